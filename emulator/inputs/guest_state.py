"""The state of a real guest at the instant from which the model is to go on in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note
from emulator.inputs.photograph import FreeLists, PhotographError
from emulator.inputs.procfs import Pageset, parse_pagetypeinfo, parse_zoneinfo
from guest_model.allocator.config import MigrateType, ZoneConfig
from guest_model.reporting.timer_wheel import NS_PER_S, Jiffies

HZ_OF_UML = 100


@dataclass(frozen=True)
class GuestState:
    """Taken from the kernel: the zone's settings, its lists, what the host holds, its ticks.

    `kernel` is what its `uname -r` says. Virtual time 0 is when the guest's driver registered for
    reporting. `labels` has the type of each page block. Frames below `first_frame` are not memory
    that the guest's allocator ever had.
    """

    kernel: str
    zone: ZoneConfig
    pageblock_order: int
    lists: FreeLists
    labels: NDArray[np.uint8]
    jiffies: Jiffies
    first_frame: int

    @property
    def frames(self) -> int:
        """All frames lie below this one."""
        return self.zone.end_pfn


def guest_state(
    lists: FreeLists,
    *,
    kernel: str,
    zoneinfo: str,
    pagetypeinfo: str,
    timer_list: str,
    start_ns: int,
    first_frame: int,
) -> GuestState:
    """Put together what an agent saved; `start_ns` is on the guest's clock.

    Raises `PhotographError` where a text lacks what is needed.
    """
    notes: list[Note] = []
    zones = [each for each in parse_zoneinfo(zoneinfo, "zoneinfo", notes) if each.managed]
    types = parse_pagetypeinfo(pagetypeinfo, "pagetypeinfo", notes)
    if len(zones) != 1 or types is None or not zones[0].pagesets:
        raise PhotographError("it has other zones than one, or /proc shows none")
    zone, pageset = zones[0], zones[0].pagesets[0]
    least, most = _pcp_bounds(pageset, lists)
    config = ZoneConfig(
        start_pfn=zone.start_pfn,
        end_pfn=zone.start_pfn + zone.spanned,
        managed_pages=zone.managed,
        min_pages=zone.min,
        low_pages=zone.low,
        high_pages=zone.high,
        pcp_batch=pageset.batch,
        pcp_high=least,
        pcp_high_max=most,
    )
    return GuestState(
        kernel=kernel,
        zone=config,
        pageblock_order=types.pageblock_order,
        lists=lists,
        labels=_labels(lists, config.end_pfn, types.pageblock_order),
        jiffies=_jiffies(timer_list, start_ns),
        first_frame=first_frame,
    )


def _pcp_bounds(pageset: Pageset, lists: FreeLists) -> tuple[int, int]:
    """The least and the most that the CPU's lists are limited to.

    A kernel that is built for one CPU takes and frees past them from about 7.0 on: their limit is
    still 0 then, below its bounds.
    """
    if lists.cpu is not None:
        return lists.cpu.high, lists.cpu.high_max
    if pageset.count or pageset.high:
        raise PhotographError("no place looks like the lists of its CPU")
    return 0, 0


def _labels(lists: FreeLists, frames: int, pageblock_order: int) -> NDArray[np.uint8]:
    """By the free blocks in each page block; Movable where nothing is free, as at boot."""
    labels = np.full(-(-frames >> pageblock_order), MigrateType.MOVABLE, np.uint8)
    for pfn, order, migratetype in np.concatenate((lists.cpu_blocks, lists.blocks)).tolist():
        first = pfn >> pageblock_order
        labels[first : first + max(1, 1 << order >> pageblock_order)] = migratetype
    return labels


def _jiffies(timer_list: str, start_ns: int) -> Jiffies:
    """Where ticks lie on the guest's clock, from /proc/timer_list."""
    now = re.search(r"^now at (\d{1,19}) nsecs$", timer_list, re.MULTILINE)
    ticks = re.search(r"^\s*jiffies: (\d{1,20})$", timer_list, re.MULTILINE)
    if now is None or ticks is None:
        raise PhotographError("/proc/timer_list has no jiffies")
    jiffy_ns = NS_PER_S // HZ_OF_UML
    passed = int(ticks[1]) % 2**32 - Jiffies(HZ_OF_UML).at(0)
    begin_ns = (int(now[1]) // jiffy_ns - passed % 2**32) * jiffy_ns
    return Jiffies(HZ_OF_UML, begin_ns - start_ns)
