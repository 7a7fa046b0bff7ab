"""A survey as a cost profile: the document, checked, and its file."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from host_model.backing.machine import available_bytes, thp_setting
from host_model.calibration import fit
from host_model.calibration.benches import Stand
from host_model.calibration.survey import STEADY, Survey
from host_model.costs import PROFILES, CostProfile, parse_profile, read_profile

__all__ = ["PROFILES", "document_of", "facts", "parse", "to_yaml", "write"]

_OPTIONAL = ("fault_outer_4k_ns", "fault_outer_2m_ns", "pace_ppm", "pace_ns", "cpus", "slice_ns")


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def facts() -> dict[str, str | int]:
    """This machine: processor, kernel, cores, memory, huge pages, and whether it is virtual."""
    info = _cpuinfo()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "available_bytes": available_bytes(),
        "thp": thp_setting(shared=False),
        "thp_shmem": thp_setting(shared=True),
        "virtual": "yes" if flags and "hypervisor" in flags[1].split() else "no",
    }


def _guest(costs: dict[str, Any]) -> dict[str, Any]:
    """The guest's own work: clearing is what a huge fault does, the rest is the default's."""
    guest = read_profile("default").guest.model_dump(exclude_none=True)
    for figure in guest.values():
        if not figure["source"].startswith("[derived] as "):
            figure["source"] = "[derived] as default"
    refault = costs.get("refault_2m_ns")
    if refault and "measured" in refault["source"]:
        before = guest["zero_4k_ns"]["value"]
        zero = max(1, refault["p50"] // 512)
        guest["zero_4k_ns"] = {
            "value": zero,
            "source": "[derived] refault_2m_ns over 512: a huge fault is clearing",
        }
        guest["copy_4k_ns"] = {
            "value": guest["copy_4k_ns"]["value"] * zero // before,
            "source": "[derived] zero_4k_ns by the default's ratio of the two",
        }
    return guest


def _host(measured: dict[str, Any]) -> dict[str, Any]:
    """All costs of a host: what was not measured is the default's, and says so."""
    default = read_profile("default").host.model_dump(exclude_none=True)
    costs = {}
    for name, figure in default.items():
        if name in measured:
            costs[name] = measured[name]
        elif name not in _OPTIONAL:
            costs[name] = {**figure, "source": "[derived] as default: not measured here"}
            costs[name].pop("at_once", None)
    return costs | {name: measured[name] for name in _OPTIONAL if name in measured}


def document_of(
    survey: Survey,
    stands: Sequence[Stand],
    threads: Sequence[int],
    outer: dict[str, Any],
    name: str,
) -> dict[str, Any]:
    """The profile as a document that `parse_profile` takes."""
    here = facts()
    by_name = {stand.bench.name: stand for stand in stands}
    common = {
        **fit.signal_costs(survey),
        **fit.pace_of(survey),
        **fit.slice_of(survey, threads, int(here["cpus"])),
    }
    anonymous = fit.costs_of(
        survey, by_name.get("anonymous"), by_name.get("anonymous_thp"), threads, outer
    )
    host = _host({**anonymous, **common, **outer})
    backings = {
        section: fit.costs_of(survey, by_name.get(small), by_name.get(huge), threads, outer)
        for section, small, huge in (("memfd", "memfd", "memfd_thp"), ("hugetlb", "", "hugetlb"))
    }
    return {
        "schema": "fpr.costs/1",
        "name": name,
        "machine": f"{here['cpu']}, {here['cpus']} CPUs, {here['kernel']}",
        "facts": {
            **here,
            "measured": " ".join(by_name),
            "threads": " ".join(map(str, threads)),
            "area_bytes": min(stand.area.size for stand in stands),
            "rounds": survey.rounds,
            "seconds": round(survey.seconds),
            "medians_unsteady": sum(error > STEADY for error in survey.errors().values()),
            "median_error_pct": f"{100 * max(survey.errors().values(), default=1.0):.1f}",
        },
        "host": host,
        "backings": {key: section for key, section in backings.items() if section},
        "compared": fit.compared(survey, stands, outer),
        "guest": _guest(host),
    }


def parse(document: dict[str, Any]) -> CostProfile:
    """The profile that the document is; one that is none is a defect."""
    return parse_profile(document)


_HEAD = """\
# Made by `fpr calibrate`: what the machine below charged for memory when it was measured. Name it
# in a scenario as `host: {{costs: {name}}}`; `fpr calibrate --check {name}` holds it against the
# machine.
"""


def to_yaml(document: dict[str, Any], file_name: str) -> str:
    """The document as a text."""
    text = yaml.safe_dump(
        document, sort_keys=False, default_flow_style=None, width=98, allow_unicode=True
    )
    return _HEAD.format(name=file_name) + text


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
