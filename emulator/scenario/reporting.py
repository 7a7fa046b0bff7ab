"""The part of a scenario that says how memory is given back: a policy and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from emulator.scenario.errors import did_you_mean
from emulator.scenario.fields import Duration, Part, mistake, not_text, written
from emulator.scenario.limits import MAX_DURATION_NS
from emulator.scenario.units import (
    QuantityError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    shown,
)
from guest_model.release import ReleaseError, parse_release
from guest_model.reporting.failures import is_own, policy_failed
from guest_model.reporting.policy import Option, OptionValue, PolicySettings, Runs
from guest_model.reporting.registry import BUILT_IN, PolicyError, UnknownPolicyError, find

__all__ = ["TOP_ORDER", "Reporting", "as_written", "check_policy", "with_order", "written_name"]

TOP_ORDER = 10
"""The largest block of the buddy allocator on x86-64: 4 MiB."""
REAL_POLICIES = ("mainline", "none")
"""What a real kernel can do."""
_UNITS = {"ns": (parse_duration, format_duration), "bytes": (parse_size, format_size)}


def _policy(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        find(value)
    except UnknownPolicyError as error:
        what = f"no policy is called {shown(value)}"
        raise mistake(what, did_you_mean(value, error.known)) from error
    except PolicyError as error:
        raise mistake(error.what, error.instead) from error
    return value


PolicyName = Annotated[
    str,
    BeforeValidator(_policy),
    WithJsonSchema({"anyOf": [{"enum": sorted(BUILT_IN)}, {"type": "string", "minLength": 1}]}),
]
"""YAML: a policy's name, or `package.module:Class`; attribute: the same, which can be found."""


def written_name(name: str) -> str:
    """What a scenario calls an option: the unit is in the value."""
    stem, _, unit = name.rpartition("_")
    return stem if unit in _UNITS else name


def as_written(name: str, value: OptionValue) -> OptionValue:
    """The value of an option as a scenario has it, with its unit."""
    _, text = _UNITS.get(name.rpartition("_")[2], (None, None))
    return value if text is None else text(int(value))


def _option(key: str, name: str, option: Option, value: Any) -> OptionValue:
    """The value of an option in its unit; a mistake where it cannot be."""
    parse, text = _UNITS.get(name.rpartition("_")[2], (None, shown))
    kind = type(option.default)
    if parse is not None:
        try:
            value = parse(value)
        except QuantityError as error:
            raise mistake(error.what, error.instead, (key,)) from error
    elif type(value) is not kind or (option.choices and value not in option.choices):
        what = f"{shown(value)} is not possible here"
        instead = f"write for example {shown(option.default)}"
        if option.choices:
            instead = did_you_mean(value, option.choices)
        wrong = not_text if kind is str and not isinstance(value, str) else mistake
        raise wrong(what, instead, (key,))
    if option.minimum is not None and value < option.minimum:
        what = f"{text(value)} is too small"
        raise mistake(what, f"write {text(option.minimum)} or more", (key,))
    if option.maximum is not None and value > option.maximum:
        what = f"{text(value)} is too large"
        raise mistake(what, f"write {text(option.maximum)} or less", (key,))
    found: OptionValue = value
    return found


def with_order(reporting: dict[str, Any], pageblock_order: int) -> dict[str, Any]:
    """The part as written, with the order that its policy has where none is written."""
    default = _default(reporting.get("policy", "mainline"), "default_order")
    return {"order": pageblock_order if default is None else default, **reporting}


def _default(policy: Any, name: str) -> Any:
    """A default of a policy's own; None where it has none, or cannot be found."""
    try:
        return getattr(find(policy), name) if isinstance(policy, str) else None
    except PolicyError:
        return None


class Reporting(Part):
    """How memory that the guest does not use is given back to the host."""

    policy: PolicyName = Field(default="mainline", examples=["mainline"])
    """Who decides what is given back, and when; `fpr policies` lists them: `mainline` as in Linux
    since 5.7, `none`, other designs, those of installed packages, or `package.module:Class`."""
    order: int = Field(default=9, ge=0, le=TOP_ORDER, examples=[9])
    """The smallest block reported, as a power of two of pages. Default: the policy's own, or the
    page block order."""
    delay_ns: Duration = Field(
        default=written("2s"), alias="delay", ge=0, le=MAX_DURATION_NS, examples=["2s"]
    )
    """From the first free to the pass over the lists; the timer rounds it up, and 0 is at once.
    Default: the policy's own; 2 s in the kernel."""
    capacity: int = Field(default=32, ge=1, le=1024, examples=[32])
    """Blocks in one batch to the device. Default: the policy's own; 32 in the kernel."""
    budget_divisor: int = Field(default=16, ge=1, le=65536, examples=[16])
    """A pass sends about this fraction of a list: 16 is a sixteenth, as in the kernel. Only
    policies with a budget look at it."""
    options: Annotated[
        Mapping[str, Any], WithJsonSchema({"type": "object", "additionalProperties": True})
    ] = Field(default=written({}), examples=[{}])
    """What the policy has of its own; `fpr policies` lists it."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_policy(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        policy = data.get("policy", "mainline")
        own: dict[str, Any] = {}
        if (delay_ns := _default(policy, "default_delay_ns")) is not None:
            own["delay"] = written(format_duration(delay_ns))
        if (capacity := _default(policy, "default_capacity")) is not None:
            own["capacity"] = capacity
        return {**own, **data}

    @field_validator("delay_ns")
    @classmethod
    def _at_once_or_by_the_timer(cls, delay_ns: int) -> int:
        if 0 < delay_ns < 1_000_000:
            raise mistake(f"{shown(format_duration(delay_ns))} is too small", "write 1ms or more")
        return delay_ns

    @field_validator("options", mode="before")
    @classmethod
    def _of_the_policy(cls, written_options: Any, info: ValidationInfo) -> Any:
        """All options of the policy, by their names with units."""
        known = _default(info.data.get("policy"), "options")
        if not isinstance(written_options, Mapping) or known is None:
            return written_options
        by_key = {written_name(name): name for name in known}
        values = {name: option.default for name, option in known.items()}
        for key, value in written_options.items():
            if key not in by_key:
                what = f"policy {info.data['policy']} has no option {shown(key)}"
                instead = did_you_mean(key, by_key) if by_key else "leave it out: it has none"
                raise mistake(what, instead, (key,))
            name = by_key[key]
            values[name] = _option(key, name, known[name], value)
        return values

    @field_serializer("options", when_used="json")
    def _as_written(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {written_name(name): as_written(name, value) for name, value in options.items()}

    def settings(
        self, pageblock_order: int, kernel: str, *, capacity: int | None = None
    ) -> PolicySettings:
        """What the policy is created with; `capacity`: what its driver has room for."""
        return PolicySettings(
            order=self.order,
            top_order=TOP_ORDER,
            pageblock_order=pageblock_order,
            capacity=self.capacity if capacity is None else capacity,
            budget_divisor=self.budget_divisor,
            delay_ns=self.delay_ns,
            kernel=kernel,
            options=self.options,
        )


def check_policy(
    reporting: Reporting, settings: PolicySettings, *, real_guest: bool, real_host: bool
) -> None:
    """A mistake where this guest, this host or these settings cannot have the policy."""
    name, policy = reporting.policy, find(reporting.policy)
    release = reporting.options.get("version", "guest")
    try:
        if release != "guest":
            parse_release(str(release))
    except ReleaseError as error:
        what, instead = error.what, f"{error.instead}, or guest"
        raise mistake(what, instead, ("reporting", "options", "version")) from error
    if policy.runs is Runs.AT_FREE and (real_guest or real_host):
        what = f"{name} is no policy that a real guest or host could have"
        raise mistake(what, "use a simulated backing and guest", ("reporting", "policy"))
    if real_guest and name not in REAL_POLICIES:
        what = f"a real guest has no policy {name}"
        raise mistake(what, "write mainline or none", ("reporting", "policy"))
    try:
        refusal = policy.refuse(settings)
    except Exception as error:
        asked = f"reporting.policy {name}, when asked to `refuse` settings"
        failed = None if is_own(policy) else policy_failed(error, policy.refuse, asked)
        if failed is None:
            raise
        raise failed from error
    if refusal is not None:
        raise mistake(refusal.what, refusal.instead, ("reporting", refusal.field))
