"""One guest, its device and its host, wired up and booted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np

from emulator.inputs.guest_state import GuestState
from emulator.native import NativeError, ffi, lib
from emulator.native.histogram import Histogram
from emulator.native.random import Random
from emulator.scenario.backing import SimulatedBacking
from emulator.scenario.guest import Guest
from emulator.scenario.model import Host, Scenario
from emulator.simulation.backings import create_backing, discard_calls
from emulator.simulation.real_start import (
    RING_PFN,
    allocator_of,
    memory_map_of,
    populate,
    wait_for_lists,
)
from emulator.simulation.statistics import read_statistics
from emulator.virtio.balloon import BalloonDevice, Work
from emulator.virtio.features import DEFAULT_OFFERED, Feature, QueueRole
from emulator.virtio.guest_memory import GuestMemory, Region
from emulator.virtio.virtqueue import RingFault
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, Placement
from guest_model.allocator.memory_map import PAGE_BYTES, MemoryMap, split_by_zone, x86_64
from guest_model.allocator.rules import rules_of
from guest_model.allocator.watermarks import Tunables, with_watermarks
from guest_model.driver import BalloonDriver, DriverProfile
from guest_model.release import parse_release
from guest_model.reporting.policy import PolicySettings
from guest_model.reporting.registry import find
from guest_model.reporting.versions import release_in_force, version_of
from guest_model.vcpus import StopReason, Vcpus
from guest_model.workload.op import Op, alloc, chunk
from host_model.backing.interface import Backing, DiscardCalls
from host_model.costs import CostProfile, read_profile, value_of
from host_model.footprint import HostFootprint
from host_model.host_load import HostLoad
from host_model.pressure import HostMemory

STREAM_HOST = 16
STREAM_NOTIFICATIONS = 17
"""Streams of random numbers of one seed; tasks have those from 2^32 on."""

BOOT_ROUNDS = 16
"""Boot-time allocations of the three types come in so many turns each."""
BOOT_PERCENT = ((MigrateType.UNMOVABLE, 30), (MigrateType.RECLAIMABLE, 10))
"""Kernel objects; the rest of what is used after boot is movable: page cache and processes."""


Then = Callable[[int], object]
"""Called with the instant at which something is done."""
HostWork = Callable[[int, int, Then], None]
"""Work that begins at an instant, or later, and how long it takes."""


class GuestTooSmallError(Exception):
    """A guest of this description would not boot; the sentence says what to change."""

    exit_code = 2


class InProcess:
    """Runs the device beside the guest: remembers what waits until its time has come."""

    def __init__(self) -> None:
        self.kicked: set[int] = set()
        self._config_changed = False
        self.failed: RingFault | None = None

    def queue_ready(self, index: int) -> None:
        """A kick; the latency of a notification passes before the device looks."""
        self.kicked.add(index)

    def config_changed(self) -> None:
        """An interrupt to come."""
        self._config_changed = True

    def take_config_change(self) -> bool:
        """Whether the configuration changed since this was last asked."""
        changed, self._config_changed = self._config_changed, False
        return changed

    def queue_failed(self, index: int, fault: RingFault) -> None:
        """The model's driver does not break rings; if it did, that is a defect."""
        self.failed = fault


class Machine:
    """Built from a frozen scenario. Use as a context manager, or `close`."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        tasks: int,
        owners: int,
        state: GuestState | None = None,
        profile: CostProfile | None = None,
        at_free: bool = False,
        host: HostMemory | None = None,
        load: HostLoad | None = None,
        footprint: HostFootprint | None = None,
        start_ns: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Boot a guest that has room for `tasks` tasks with `owners` owners in all.

        With a `state`, the guest goes on where a real one stands. `profile` replaces the
        scenario's costs. `at_free`: its host hears of every free, which no real one does. `host`:
        its memory is limited, and lives longer. `load`: others share its host, as that.
        `footprint`: of its host, as that. The guest is there from `start_ns` on. Once
        `stopped`, real memory is not made ready for being measured any more.
        """
        self.host_cpus: HostWork | None = None
        """Where the host has few CPUs: does its work when it has one for it."""
        guest = scenario.guest
        self.scenario = scenario
        self._next_ring_pfn = None if state is None else RING_PFN
        self.memory_map = _memory_map(guest) if state is None else memory_map_of(state)
        self.profile = _profile(profile or read_profile(scenario.host.costs), scenario.host)
        self.latency = Histogram()
        self.in_process = InProcess()
        self._random = Random(scenario.seed, STREAM_NOTIFICATIONS)
        self._host_costs = self.profile.host.native()
        self.device_ns = 0
        """What the device itself took for entries of its queues, beside its calls."""
        make = partial(create_backing, at_free=at_free, host=host, load=load, stopped=stopped)
        self.backing: Backing = make(scenario, self.memory_map, self.profile, STREAM_HOST)
        self.start_ns = start_ns
        self.backing.report_to(footprint)
        try:
            if state is None:
                self.allocator = _allocator(guest, self.memory_map, scenario.seed)
                self._populate_boot(guest)
            else:
                self.allocator = allocator_of(state, scenario)
                populate(self.backing, state)
            if guest.zeroing == "skip_zeroed":
                self.allocator.remember_zeroed()
            self.vcpus = Vcpus(
                self.allocator,
                self.backing.memory_port(),
                self.latency.native,
                cpus=guest.vcpus,
                tasks=max(1, tasks),
                owners=max(1, owners),
                costs=self.profile.guest.native(),
            )
            if state is not None:
                wait_for_lists(self.vcpus, self.allocator, state)
            self.memory = _guest_memory(self.backing, self.memory_map)
            self._plug_in(scenario)
        except BaseException:
            self.backing.close()
            raise

    def close(self) -> None:
        """Give all memory back."""
        self.vcpus.close()
        self.allocator.close()
        self.memory.close()
        self.backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host_work(self, now_ns: int, cost_ns: int, then: Then) -> None:
        """The host works for the VM for so long; `then` is told when it is done."""
        if self.host_cpus is None:
            then(now_ns + cost_ns)
        else:
            self.host_cpus(now_ns, cost_ns, then)

    @property
    def kick_exit_ns(self) -> int:
        """What a kick takes of its vCPU: the exit alone is its smallest cost."""
        return self.profile.host.kick_ns.points[0]

    @property
    def interrupt_exit_ns(self) -> int:
        """What an interrupt takes of its vCPU, as that."""
        return self.profile.host.interrupt_ns.points[0]

    def draw_kick_ns(self) -> int:
        """From the end of the kick's exit, which the vCPU pays, to the device's work."""
        return self._draw_beyond_exit("kick", self.kick_exit_ns)

    def draw_interrupt_ns(self) -> int:
        """From the used ring to the interrupt's exit, which the vCPU pays before its handler."""
        return self._draw_beyond_exit("interrupt", self.interrupt_exit_ns)

    def _draw_beyond_exit(self, name: str, exit_ns: int) -> int:
        """A notification takes its exit and, beyond that, until the other side has woken up."""
        cost = ffi.addressof(self._host_costs, name)
        return int(lib.fpr_cost_draw(cost, self._random.native)) - exit_ns

    def serve(self, role: QueueRole, now_ns: int, *, wants_interrupt: bool = True) -> Work:
        """Let the device work on a queue that the driver has kicked, and now waits for; not
        `wants_interrupt`: whose driver looks by itself."""
        index = self.device.index_of(role)
        assert index in self.in_process.kicked, "an idle device wants a kick"
        self.in_process.kicked.discard(index)
        before = self._entries(role)
        work = self.device.process(index, now_ns)
        device_ns = (self._entries(role) - before) * self._entry_ns(role)
        self.device_ns += device_ns
        if self.in_process.failed is not None:
            raise AssertionError(f"the ring broke: {self.in_process.failed.sentence}")
        assert work.notify or not wants_interrupt, "a driver that sleeps wants an interrupt"
        return replace(work, cost_ns=work.cost_ns + device_ns)

    def _entries(self, role: QueueRole) -> int:
        """Blocks or page numbers that the device was told on a queue so far."""
        queues = self.device.queues
        match role:
            case QueueRole.REPORTING:
                return queues.reporting.blocks
            case QueueRole.HINT:
                return queues.hint.hints
            case QueueRole.INFLATE:
                return queues.inflate.inflated_numbers
            case QueueRole.DEFLATE:
                return queues.inflate.deflated_numbers
            case _:
                return 0

    def _entry_ns(self, role: QueueRole) -> int:
        """What the device itself takes for one of them."""
        host = self.profile.host
        # A device that merges its calls does not tell the host of pages that are the guest's again.
        tells = discard_calls(self.scenario.host) is DiscardCalls.PER_ENTRY
        tells = tells and role is QueueRole.DEFLATE
        return value_of(host.device_entry_ns) + tells * value_of(host.deflate_call_ns)

    def _populate_boot(self, guest: Guest) -> None:
        """What the kernel and the first processes hold when the run begins is resident."""
        for first, pages in self.memory_map.reserved:
            self.backing.populate(first, pages, self.start_ns)
        pages = guest.boot_used_bytes // PAGE_BYTES
        if not pages:
            return
        for frames in _allocate_boot(self.allocator, self.backing, guest.vcpus, pages):
            for first, count in _runs(frames):
                self.backing.populate(first, count, self.start_ns)

    def _plug_in(self, scenario: Scenario) -> None:
        capacity, options = scenario.reporting.capacity, scenario.reporting.options
        features = find(scenario.reporting.policy).features
        settings = scenario.reporting.settings(
            scenario.guest.pageblock_order, scenario.guest.kernel
        )
        version = version_of(release_in_force(settings))
        self.device = BalloonDevice(
            self.memory,
            self.backing,
            self.in_process,
            offered=DEFAULT_OFFERED & ~Feature.PAGE_REPORTING | features,
            queue_size=options.get("ring_size") or max(256, 1 << (capacity - 1).bit_length()),
        )
        self.driver = BalloonDriver(
            self.device,
            self.memory,
            self._allocate_ring,
            profile=DriverProfile(
                capacity=capacity,
                extra_features=features,
                small_ring_fails=version.small_ring_fails,
            ),
            read_statistics=lambda: read_statistics(self.allocator),
        )
        self.driver.probe()
        if features & Feature.STATS_VQ:
            self.serve(QueueRole.STATS, 0, wants_interrupt=False)
        self.in_process.kicked.clear()

    def policy_settings(self) -> PolicySettings:
        """What the scenario's policy is created with, now that the driver is there."""
        guest, capacity = self.scenario.guest, self.driver.capacity
        return self.scenario.reporting.settings(
            guest.pageblock_order, guest.kernel, capacity=capacity
        )

    def _allocate_ring(self, size_bytes: int) -> int:
        """Memory of the guest's kernel for a virtqueue, as its driver would take it."""
        order = (-(-size_bytes // PAGE_BYTES) - 1).bit_length()
        if self._next_ring_pfn is not None:
            pfn = -(-self._next_ring_pfn // (1 << order)) << order
            self._next_ring_pfn = pfn + (1 << order)
            return pfn * PAGE_BYTES
        try:
            pfn = self.allocator.alloc(0, order, MigrateType.UNMOVABLE)
        except NativeError as error:
            if error.status != lib.FPR_NO_MEMORY:
                raise
            zones = [self.allocator.zone(index) for index in range(self.allocator.zones)]
            free, kept = (
                sum(pages) * PAGE_BYTES >> 20
                for pages in zip(*((z.free_pages, z.config.min_pages) for z in zones), strict=True)
            )
            raise GuestTooSmallError(
                f"{self.scenario.name}: this guest has no memory left for its virtqueues: {free} "
                f"MiB are free after boot, and watermarks keep {kept} MiB of them; lower "
                "guest.boot_used, guest.reserved or guest.min_free, or raise guest.memory"
            ) from error
        self.backing.populate(pfn, 1 << order, self.start_ns)
        return pfn * PAGE_BYTES


def _memory_map(guest: Guest) -> MemoryMap:
    return x86_64(guest.memory_bytes, guest.reserved_bytes, guest.low_memory_bytes)


def _allocator(guest: Guest, memory_map: MemoryMap, seed: int) -> Allocator:
    rules = rules_of(parse_release(guest.kernel))
    tunables = Tunables(
        huge_pages=guest.thp,
        pageblock_order=guest.pageblock_order,
        cpus=guest.vcpus,
        min_free_kib=None if guest.min_free_bytes is None else guest.min_free_bytes // 1024,
        watermark_scale_factor=guest.watermark_scale_factor,
        pcp_high_fraction=guest.pcp_high_fraction,
        rules=rules,
    )
    config = AllocatorConfig(
        frames=memory_map.frames,
        seed=seed,
        cpus=guest.vcpus,
        pageblock_order=guest.pageblock_order,
        thp_order=guest.pageblock_order if guest.thp else 0,
        placement=Placement[guest.placement.upper()],
        boost_factor=guest.watermark_boost_factor,
        rules=rules,
    )
    zones = with_watermarks(memory_map.zones, tunables)
    allocator = Allocator(config, zones)
    for first, pages in split_by_zone(memory_map.usable, zones):
        allocator.add_range(first, pages)
    if config.placement == Placement.SHUFFLE:
        allocator.shuffle()
    return allocator


def _allocate_boot(
    allocator: Allocator, backing: Backing, cpus: int, pages: int
) -> list[np.ndarray[Any, Any]]:
    """Take single pages on CPU 0 as a booting kernel does; the frames of each type."""
    rows: list[Op] = []
    shares = [(kind, pages * percent // 100) for kind, percent in BOOT_PERCENT]
    shares.append((MigrateType.MOVABLE, pages - sum(share for _, share in shares)))
    for turn in range(BOOT_ROUNDS):
        for owner, (kind, share) in enumerate(shares):
            count = share * (turn + 1) // BOOT_ROUNDS - share * turn // BOOT_ROUNDS
            rows.append(alloc(owner, count, type=kind))
    with Vcpus(
        allocator,
        backing.memory_port(),  # of no use: these operations write nothing
        Histogram().native,
        cpus=cpus,
        tasks=1,
        owners=3,
        costs=ffi.new("struct fpr_guest_costs *"),  # free of charge
    ) as boot:
        boot.start(0, 0, 0)
        boot.run(1 << 50)
        boot.refill(0, chunk(rows))
        while boot.run(1 << 50).reason != StopReason.REFILL:
            pass  # where memory ends, less is in use after boot
        return [boot.owned_blocks(owner) for owner in range(3)]


def _runs(frames: np.ndarray[Any, Any]) -> Sequence[tuple[int, int]]:
    """Contiguous runs (first, count) of single frames."""
    if not len(frames):
        return ()
    ordered = np.sort(frames).astype(np.int64)  # frame 0 may be one of them
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 2) != 1)
    counts = np.diff(starts, append=len(ordered))
    return [(int(ordered[at]), int(n)) for at, n in zip(starts, counts, strict=True)]


def _profile(profile: CostProfile, host: Host) -> CostProfile:
    """The profile for what the scenario says of its memory."""
    if isinstance(host.backing, SimulatedBacking):
        profile = profile.like(host.backing.like)
    return profile.at_distance(host.numa_distance)


def _guest_memory(backing: Backing, memory_map: MemoryMap) -> GuestMemory:
    """The bytes in which rings lie: the backing's own, or a reservation where it has none."""
    mapped = backing.regions()
    if mapped:
        return GuestMemory(
            [
                Region(
                    each.gpa,
                    each.size,
                    int(ffi.cast("uintptr_t", each.pointer)),
                    offset=each.offset,
                    page_bytes=each.page_size,
                    fd=each.fd,
                )
                for each in mapped
            ],
            owner=backing,
        )
    memory = GuestMemory.reserve(memory_map.frames * PAGE_BYTES)
    base = memory.regions[0].pointer
    memory.set_regions(
        Region(
            first * PAGE_BYTES,
            pages * PAGE_BYTES,
            base + first * PAGE_BYTES,
            # Alignment counts in a file, of which there is none: guest addresses take its place.
            offset=first * PAGE_BYTES,
            page_bytes=backing.page_bytes,
        )
        for first, pages in memory_map.ram
    )
    return memory
