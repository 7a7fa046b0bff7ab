"""A host with limited memory, page by page: the slow, obvious reference of host_model/native/
pressure.c and reclaim.c. Costs are constant, so that time can be told without drawing."""

from __future__ import annotations

from dataclasses import dataclass, field

HUGE = 512
AT_ONCE = 32

Page = tuple[int, int]
"""VM and frame; with the frame divided by 512: an entry of the list."""


@dataclass
class SlowPressure:
    """All that VMs share, and all that they have."""

    memory: int
    swap: int
    marks: tuple[int, int, int]
    thp: bool
    out_ns: int
    in_ns: tuple[int, int]
    """Alone, and right behind the last request."""
    device_ns: tuple[int, int, int, int]
    """Busy with a read, one right behind the last request, a write, and such a one."""
    scattered: int = 0
    resident: set[Page] = field(default_factory=set)
    swapped: set[Page] = field(default_factory=set)
    young: set[Page] = field(default_factory=set)
    huge: set[Page] = field(default_factory=set)
    tables: set[Page] = field(default_factory=set)
    lazy: set[Page] = field(default_factory=set)  # resident, until room is made
    lru: list[Page] = field(default_factory=list)  # the newest first
    killed: dict[int, int] = field(default_factory=dict)
    awake: bool = False
    reclaimed_until: int = 0
    device_until: int = 0
    slot_of: dict[Page, int] = field(default_factory=dict)
    next_slot: int = 0
    cluster_left: int = 0
    head: int = -1
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free_huge = (self.memory - self.scattered) // HUGE
        self.free_small = self.memory - self.free_huge * HUGE

    @property
    def free(self) -> int:
        return self.free_huge * HUGE + self.free_small

    def add(self, name: str, value: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + value

    def pages_of(self, entry: Page) -> list[Page]:
        vm, chunk = entry
        return [(vm, pfn) for pfn in range(chunk * HUGE, (chunk + 1) * HUGE)]

    def touch(self, vm: int, first: int, count: int, now: int) -> int:
        """All of it lies in one chunk; what the vCPU waits for room and swap."""
        entry = (vm, first // HUGE)
        wanted = {(vm, pfn) for pfn in range(first, first + count)}
        asked = cost = 0
        self.catch_up(now)
        self.young |= wanted  # of a killed VM nobody asks
        self.lazy -= set(self.pages_of(entry)) if entry in self.huge else wanted
        while True:
            if vm in self.killed or self.resident.issuperset(self.pages_of(entry)):
                return cost
            wanted_huge = self.thp and entry not in self.tables and entry not in self.huge
            huge = wanted_huge and self.free_huge > 0
            missing = set(self.pages_of(entry)) if huge else wanted - self.resident
            if len(missing) <= asked:
                break
            cost = self.make_room(len(missing), now, cost)
            asked = len(missing)
        self.add("huge_unavailable", wanted_huge and not huge)  # once a fault
        back = [self.slot_of.pop(page) for page in sorted(missing & self.swapped)]
        self.came(entry, missing, huge)
        at = now + cost
        for slot in back:
            at = max(at, self.device_until)
            at += self.in_ns[self.request(slot, at, write=False)]
        return at - now

    def request(self, slot: int, at: int, *, write: bool) -> bool:
        """The device does one; whether it lies right behind the last one."""
        behind = slot == self.head
        self.head = slot + 1
        self.device_until = max(self.device_until, at) + self.device_ns[2 * write + behind]
        return behind

    def take_slots(self, pages: set[Page]) -> list[int]:
        """256 free slots in a row, one after the other; else the next that is free."""
        self.slot_of = {page: self.slot_of[page] for page in self.swapped}
        used = set(self.slot_of.values())
        whole = set(range(self.swap // 256)) - {slot // 256 for slot in used}
        found = []
        for page in sorted(pages):
            if not self.cluster_left and whole:
                here = self.next_slot // 256
                self.next_slot = 256 * min(whole, key=lambda c: (c < here, c))
                self.cluster_left = 256
            if not self.cluster_left:
                free = set(range(self.swap)) - used
                self.next_slot = min(free, key=lambda slot: (slot < self.next_slot, slot))
            self.slot_of[page] = self.next_slot
            found.append(self.next_slot)
            used.add(self.next_slot)
            whole.discard(self.next_slot // 256)
            self.cluster_left = max(0, self.cluster_left - 1)
            self.next_slot += 1
        return found

    def came(self, entry: Page, pages: set[Page], huge: bool) -> None:
        if not pages:
            return
        if huge:
            self.free_huge -= 1
            self.huge.add(entry)
        else:
            while self.free_small < len(pages):
                self.free_huge -= 1
                self.free_small += HUGE
            self.free_small -= len(pages)
            self.tables.add(entry)
        self.add("swap_in_pages", len(pages & self.swapped))
        self.swapped -= pages
        self.resident |= pages
        if entry not in self.lru:
            self.lru.insert(0, entry)

    def went(self, entry: Page, pages: set[Page]) -> None:
        """Resident pages of one chunk."""
        if not pages:
            return
        if entry in self.huge:
            self.huge.discard(entry)
            self.tables.add(entry)
        self.resident -= pages
        self.lazy -= pages
        if len(pages) == HUGE:
            self.free_huge += 1
        else:
            self.free_small += len(pages)
        if entry in self.lru and not self.resident & set(self.pages_of(entry)):
            self.lru.remove(entry)

    def discard(self, vm: int, first: int, count: int, now: int) -> None:
        """All of it lies in one chunk."""
        self.catch_up(now)
        pages = {(vm, pfn) for pfn in range(first, first + count)}
        entry = (vm, first // HUGE)
        self.add("swap_drop_pages", len(pages & self.swapped))
        self.swapped -= pages
        self.went(entry, pages & self.resident)
        if count == HUGE:
            self.tables.discard(entry)

    def free_lazily(self, vm: int, first: int, count: int, now: int) -> None:
        """All of it lies in one chunk."""
        self.catch_up(now)
        pages = {(vm, pfn) for pfn in range(first, first + count)}
        entry = (vm, first // HUGE)
        self.add("swap_drop_pages", len(pages & self.swapped))
        self.swapped -= pages
        fresh = (pages & self.resident) - self.lazy
        if not fresh:
            return
        if entry in self.huge and count < HUGE:
            self.huge.discard(entry)
            self.tables.add(entry)
        self.lazy |= fresh
        self.young -= pages
        self.lru.remove(entry)
        self.lru.append(entry)

    def make_room(self, pages: int, now: int, cost: int) -> int:
        """What the vCPU has waited for in all, `cost` being what it has before."""
        low = self.marks[1]
        self.catch_up(now)
        if self.free < low + pages and not self.awake:
            self.awake = True
            self.reclaimed_until = max(self.reclaimed_until, now)
        if self.free >= self.marks[0] + pages:
            return cost
        while self.free < self.marks[0] + pages:
            taken, ns = self.reclaim(now + cost)
            cost += ns
            self.add("direct_pages", taken)
            if not taken:
                break
        while self.free < pages:
            self.kill(now)
        return cost

    def catch_up(self, now: int) -> None:
        while self.awake and self.reclaimed_until <= now:
            taken, ns = self.reclaim(self.reclaimed_until)
            self.reclaimed_until += ns
            self.add("background_pages", taken)
            if not taken or self.free >= self.marks[2]:
                self.awake = False

    def reclaim(self, now: int) -> tuple[int, int]:
        looks, taken, ns = 2 * len(self.lru), 0, 0
        while (
            taken < AT_ONCE and self.lru and looks and (len(self.swapped) < self.swap or self.lazy)
        ):
            looks -= 1
            gone = self.lazy & set(self.pages_of(self.lru[-1]))
            if gone:
                entry = self.lru[-1]
                self.went(entry, gone)
                self.tables.add(entry)
                taken += len(gone)
                continue
            slots = self.shrink(self.lru[-1], AT_ONCE - taken)
            taken += len(slots)
            if slots:
                for slot in slots:
                    self.request(slot, now + ns, write=True)
                ns += max(len(slots) * self.out_ns, self.device_until - now - ns)
        return taken, ns

    def shrink(self, entry: Page, want: int) -> list[int]:
        """The slots of what goes out."""
        pages = [page for page in self.pages_of(entry) if page in self.resident]
        used = [page for page in pages if page in self.young]
        room = self.swap - len(self.swapped)
        old = [page for page in pages if page not in self.young]
        if entry in self.huge:
            want = HUGE
            old = [] if any(page in self.young for page in self.pages_of(entry)) else old
        gone = set(old[: min(want, room)])
        self.went(entry, gone)
        slots = self.take_slots(gone)
        self.swapped |= gone
        self.add("swap_out_pages", len(gone))
        if len(gone) == len(old):
            self.young -= set(self.pages_of(entry))
            if entry in self.lru:
                self.lru.remove(entry)
            if used or len(gone) < len(pages):
                self.lru.insert(0, entry)
        return slots

    def kill(self, now: int) -> None:
        held: dict[int, int] = {}
        for vm, _ in [*self.resident, *self.swapped]:
            held[vm] = held.get(vm, 0) + 1
        victim = max(sorted(held), key=lambda vm: held[vm])
        self.killed[victim] = now
        self.add("kills")
        self.leave(victim)

    def leave(self, vm: int) -> None:
        entries = {(vm, pfn // HUGE) for v, pfn in self.resident | self.swapped if v == vm}
        for entry in sorted(entries):
            pages = set(self.pages_of(entry))
            self.add("swap_drop_pages", len(pages & self.swapped))
            self.swapped -= pages
            self.went(entry, pages & self.resident)
            self.tables.discard(entry)
