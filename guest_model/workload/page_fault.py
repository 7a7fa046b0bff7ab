"""The loops of will-it-scale's page_fault1 and page_fault2.

Both map 128 MiB, write one byte of each page, unmap, and begin again; an iteration in their results
is one page. page_fault1 maps anonymous memory. page_fault2 maps a file of its own privately, so
that each write copies a page out of the page cache, where the file stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from guest_model.workload.op import OpFlags, Ops, alloc, chunk, free, wait
from guest_model.workload.task import Task, anonymous, pages_of

CHUNK_PAGES = 1 << 17
MAX_ROUNDS = 4096
"""A chunk is as many rounds as write CHUNK_PAGES: Python is asked for one now and then only, and
a process makes the first of them row by row. The first chunk is one round, and the next ones are
twice as many each: what the first rounds cost is then known apart from the rest."""


class PageFault(Task):
    """One process of the benchmark, which begins `delay_ns` late; `iterations` counts rounds of
    the loop, None: for ever."""

    owners = 2  # the mapping, the file's page cache
    file_owners = (1,)
    repeats = True

    def __init__(
        self,
        variant: int,
        size_bytes: int,
        *,
        huge: bool,
        iterations: int | None = None,
        delay_ns: int = 0,
    ) -> None:
        self.variant = variant
        self.pages = pages_of(size_bytes)
        self.most_pages = self.owners * self.pages
        self.huge = huge
        self.iterations = iterations
        self.delay_ns = delay_ns

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """The file is read in once, then come the rounds; each page written is a unit of work."""
        mapping, cache = first_owner, first_owner + 1
        if self.delay_ns:
            yield chunk([wait(self.delay_ns)])
        if self.variant == 1:
            rows = anonymous(mapping, self.pages, huge=self.huge)
        else:
            yield chunk([alloc(cache, self.pages, flags=OpFlags.ZEROED | OpFlags.COLD)])
            flags = OpFlags.FAULTED | OpFlags.COPIED | OpFlags.COUNTED
            rows = [alloc(mapping, self.pages, flags=flags)]
        rows.append(free(mapping))
        most = max(1, min(CHUNK_PAGES // self.pages, MAX_ROUNDS))
        rounds = np.tile(chunk(rows), most)
        left, grown = self.iterations, 1
        while left is None or left > 0:
            now = grown if left is None else min(left, grown)
            grown = min(2 * grown, most)
            yield rounds[: now * len(rows)]
            left = None if left is None else left - now
        yield self.exit(first_owner)
