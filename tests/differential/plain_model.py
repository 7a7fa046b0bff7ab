"""A VM by itself on paper: what tasks, the reporting worker and the balloon cost, and what the host
holds. It shares no code with the product.

It takes as given what a policy, an allocator and a workload decide (`Facts`): which operations a
task executes, which frames it gets, which blocks a batch has. When anything happens, what it costs
and what is resident follows from the costs, which are constants here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count as counting

ALLOC, TOUCH, FREE, WAIT, UNTIL, WORK, UNITS = range(7)
FAULTED, ZEROED, COPIED, PIECEMEAL = 1, 2, 4, 8
MARK_NS, PAGE, CHUNK = 1_000_000, 4096, 512
Span = tuple[int, int]
"""First frame and number of frames."""
Op = tuple[int, int, int, int, int, int]
"""Count, owner, kind, order, type, flags."""


@dataclass
class Facts:
    """What others decide: in order, and of each batch and message when the device had it."""

    ram: list[Span] = field(default_factory=list)
    booted: list[Span] = field(default_factory=list)
    tasks: list[list[list[Op]]] = field(default_factory=list)
    touches: list[tuple[int, Span]] = field(default_factory=list)
    batches: list[tuple[int, list[Span]]] = field(default_factory=list)
    messages: list[tuple[str, list[Span]]] = field(default_factory=list)
    """Of the balloon: `inflate` or `deflate`, and its pages."""


@dataclass
class Bill:
    """What comes out, in ns and bytes."""

    busy: list[int] = field(default_factory=list)
    fault: list[int] = field(default_factory=list)
    worker: int = 0
    balloon: int = 0
    discard: int = 0
    fault_bytes: int = 0
    refault_bytes: int = 0
    peak_bytes: int = 0
    end: int = 0
    changes: list[tuple[int, int]] = field(default_factory=list)

    def footprint(self, until: int) -> int:
        """Byte seconds."""
        return sum(n * (until - at) for at, n in self.changes if at < until) * PAGE // 10**9


class Host:
    """Residency, as sets of frames."""

    def __init__(self, costs: dict[str, int], facts: Facts, bill: Bill, thp: bool) -> None:
        self.costs, self.bill, self.thp = costs, bill, thp
        self.whole = {c for a, n in facts.ram for c in range(-(-a // CHUNK), (a + n) // CHUNK)}
        self.here: set[int] = set()
        self.seen: set[int] = set()
        self.huge: set[int] = set()
        self.tables: set[int] = set()
        for first, count in facts.booted:
            for c, frames in pieces(first, count):
                self.bring(c, frames, 0, huge=len(frames) == CHUNK)

    def change(self, pages: int, now: int) -> None:
        self.bill.changes.append((now, pages))
        self.bill.peak_bytes = max(self.bill.peak_bytes, len(self.here) * PAGE)

    def bring(self, c: int, frames: range, now: int, *, huge: bool) -> tuple[set[int], bool]:
        """What is missing of it comes in; whether as one huge page."""
        chunk = range(c * CHUNK, (c + 1) * CHUNK)
        huge = huge and self.thp and c in self.whole and c not in self.tables
        huge = huge and self.here.isdisjoint(chunk)
        missing = set(chunk if huge else frames) - self.here
        if missing:
            (self.huge if huge else self.tables).add(c)
            self.here |= missing
            self.change(len(missing), now)
        return missing, huge

    def touch(self, first: int, count: int, now: int) -> int:
        """What the faults cost."""
        cost = 0
        for c, frames in pieces(first, count):
            missing, huge = self.bring(c, frames, now, huge=True)
            again = missing & self.seen
            self.seen |= missing
            if huge:
                cost += self.costs["refault_2m" if again else "fault_2m"]
            else:
                cost += len(again) * self.costs["refault_4k"]
                cost += len(missing - again) * self.costs["fault_4k"]
            self.bill.fault_bytes += len(missing) * PAGE
            self.bill.refault_bytes += len(again) * PAGE
        return cost

    def discard(self, first: int, count: int, now: int) -> int:
        """One call."""
        costs = self.costs
        cost, found_any = costs["discard_call"], False
        for c, frames in pieces(first, count):
            found = self.here.intersection(frames)
            whole = len(frames) == CHUNK
            if not found:
                cost += costs["discard_empty_2m"] * len(frames) // CHUNK
            elif c in self.huge and whole:
                cost += costs["discard_huge_2m"]
            else:
                cost += costs["discard_split_2m"] * (c in self.huge)
                cost += costs["discard_4k"] * len(found)
            found_any = found_any or bool(found)
            if found:
                if c in self.huge and not whole:
                    self.tables.add(c)
                self.huge.discard(c)
                self.here -= found
                self.change(-len(found), now)
            if whole:
                self.tables.discard(c)
        cost += costs["discard_flush"] if found_any else 0
        self.bill.discard += cost
        return cost


def pieces(first: int, count: int) -> Iterator[tuple[int, range]]:
    """Cut at every 2 MiB."""
    while count:
        here = min(count, CHUNK - first % CHUNK)
        yield first // CHUNK, range(first, first + here)
        first, count = first + here, count - here


class Vm:
    """One vCPU, one task at a time; events in the order of time, before what starts then."""

    def __init__(
        self, costs: dict[str, int], facts: Facts, phases: list[tuple[str, int]], *, thp: bool
    ) -> None:
        """`phases`: (`job`, 0), (`idle`, its duration) or (`balloon`, its duration)."""
        self.costs, self.facts, self.phases = costs, facts, phases
        self.bill = Bill()
        self.host = Host(costs, facts, self.bill, thp)
        self.clock = 0
        self.events: list[tuple[int, int, Callable[[int], None]]] = []
        self.numbers = counting()
        self.touches, self.tasks = list(facts.touches)[::-1], iter(facts.tasks)
        self.messages = iter(facts.messages)
        self.batches = list(facts.batches)
        self.works = False
        """The balloon's work item."""

    def at(self, when: int, then: Callable[[int], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), then))

    def run(self) -> Bill:
        """All phases, one after another."""
        now = 0
        if self.batches:
            self.begin_pass()
        for number, (kind, duration) in enumerate(self.phases):
            if number and self.phases[number - 1][0] == "balloon":  # which is let go
                self.at(now + self.rest("interrupt"), self.config_interrupt)
            if kind == "balloon":
                self.at(now + self.rest("interrupt"), self.config_interrupt)
            if kind == "job":
                now = self.job(now)
            else:
                self.wait(now + duration)
                now += duration
        if self.phases[-1][0] == "balloon":
            self.at(now + self.rest("interrupt"), self.config_interrupt)
        self.wait(now)
        self.bill.end = now
        return self.bill

    def wait(self, until: int) -> None:
        """Events up to an instant."""
        while self.events and self.events[0][0] <= until:
            when, _, then = heapq.heappop(self.events)
            then(when)

    def rest(self, name: str) -> int:
        """Of a notification, beyond its exit: nothing where it always takes the same."""
        return self.costs[name] - self.costs[f"{name}_exit"]

    def charge(self, now: int, cost: int) -> int:
        self.clock = max(self.clock, now) + cost
        return cost

    def job(self, now: int) -> int:
        """A task, from its start to its end."""
        self.clock = max(self.clock, now)
        self.bill.busy.append(0)
        self.bill.fault.append(0)
        blocks: dict[int, list[tuple[int, Span | None]]] = {}
        for ops in next(self.tasks):
            for count, owner, kind, order, _, flags in ops:
                held = blocks.setdefault(owner, [])
                if kind == ALLOC:
                    for _ in range(count):
                        held += self.allocate(order, flags)
                elif kind == FREE:
                    for _ in range(min(count, len(held)) if count else len(held)):
                        huge = held.pop(0)[0] >= 9
                        self.spend(self.costs["free_thp" if huge else "free_4k"])
                elif kind == TOUCH:
                    for order_of, span in held[: count or None]:
                        assert span is not None, "it was written before"
                        self.write(self.costs["zero_4k"] << order_of, again=span)
                elif kind in (WAIT, UNTIL):
                    self.sync()
                    self.clock = self.sleep(self.clock + count if kind == WAIT else count)
                elif kind == WORK:
                    self.spend(count)
        self.sync()
        return self.clock

    def sleep(self, wake: int) -> int:
        """Until then; what takes the vCPU meanwhile may take it for longer."""
        while self.events and self.events[0][0] <= max(wake, self.clock):
            self.wait(self.events[0][0])
        return max(wake, self.clock)

    def sync(self) -> None:
        """Whatever comes no later than the next step comes first."""
        while self.events and self.events[0][0] <= self.clock:
            self.wait(self.events[0][0])

    def spend(self, cost: int) -> None:
        """A step without a fault."""
        self.sync()
        self.clock += max(1, cost)
        self.bill.busy[-1] += max(1, cost)

    def write(self, guest_ns: int, *, again: Span | None = None) -> Span:
        """A step that writes a block."""
        self.sync()
        when, span = self.touches.pop()
        assert when == self.clock, "the product wrote at another instant"
        assert again in (None, span)
        host_ns = self.host.touch(*span, self.clock)
        self.clock += guest_ns + host_ns
        self.bill.busy[-1] += guest_ns + host_ns
        self.bill.fault[-1] += host_ns
        return span

    def allocate(self, order: int, flags: int) -> list[tuple[int, Span | None]]:
        """One block; single pages where the product got no huge one."""
        costs = self.costs

        def work(size: int) -> int:
            cost = costs["alloc_thp" if size >= 9 else "alloc_4k"]
            cost += costs["fault_thp" if size >= 9 else "fault_4k_guest"] * bool(flags & FAULTED)
            cost += (costs["zero_4k"] << size) * bool(flags & ZEROED)
            return cost + (costs["copy_4k"] << size) * bool(flags & COPIED)

        if not flags & (ZEROED | COPIED):
            self.spend(work(order))
            return [(order, None)]
        if order and flags & PIECEMEAL and self.touches[-1][1][1] == 1:
            return [(0, self.write(work(0))) for _ in range(1 << order)]
        taken = self.write(work(order))
        assert taken[1] == 1 << order, "the product got another block"
        return [(order, taken)]

    # The worker: a pass is batch after batch, as long as the product's next one comes at once.

    def begin_pass(self) -> None:
        when, blocks = self.batches[0]
        cost = len(blocks) * self.costs["alloc_4k"] + self.costs["kick_exit"]
        self.at(when - self.rest("kick") - cost, lambda now: self.submit(now, 0))

    def submit(self, now: int, back: int) -> None:
        """Put blocks back, take the next ones, kick."""
        cost = back * self.costs["free_4k"]
        if self.batches:
            when, blocks = self.batches[0]
            more = len(blocks) * self.costs["alloc_4k"] + self.costs["kick_exit"]
            if when == now + cost + more + self.rest("kick"):
                self.bill.worker += self.charge(now, cost + more)
                self.at(when, self.serve)
                return
            assert when > now + cost, "a batch comes before its pass can begin"
            self.begin_pass()
        self.bill.worker += self.charge(now, cost)

    def serve(self, now: int) -> None:
        """The device discards block by block."""
        _, blocks = self.batches.pop(0)
        cost = sum(self.host.discard(first, count, now) for first, count in blocks)

        def interrupted(at: int) -> None:
            exit_ns = self.charge(at, self.costs["interrupt_exit"])
            self.bill.worker += exit_ns
            self.submit(at + exit_ns, len(blocks))

        self.at(now + cost + self.rest("interrupt"), interrupted)

    # The balloon: a message after the other, until the product has no more of the same kind.

    def config_interrupt(self, now: int) -> None:
        cost = self.charge(now, self.costs["interrupt_exit"])
        self.bill.balloon += cost
        if not self.works:
            self.works = True
            self.at(now + cost, self.step)

    def step(self, now: int) -> None:
        """Fill a message, and kick; there is none where the target is reached."""
        kind, pages = next(self.messages)
        if kind == "reached":
            self.works = False
            return
        taken = len(pages) * (self.costs["alloc_4k"] + self.costs["inflate_4k"])
        cost = self.costs["kick_exit"] + taken * (kind == "inflate")
        self.bill.balloon += self.charge(now, cost)
        self.at(now + cost + self.rest("kick"), lambda at: self.serve_message(kind, pages, at))

    def serve_message(self, kind: str, pages: list[Span], now: int) -> None:
        """The device discards page by page; of pages that come out it only takes note."""
        cost = 0
        if kind == "inflate":
            cost = sum(self.host.discard(first, count, now) for first, count in pages)
        given_back = len(pages) * (self.costs["free_4k"] + self.costs["deflate_4k"])

        def complete(at: int) -> None:
            exit_ns = self.costs["interrupt_exit"] + given_back * (kind == "deflate")
            self.bill.balloon += self.charge(at, exit_ns)
            self.at(at + exit_ns, self.step)

        self.at(now + cost + self.rest("interrupt"), complete)
