"""Policies that break the rules of a batch, each one of them."""

from guest_model.reporting.mainline import MainlinePolicy


class ReportsAgain(MainlinePolicy):
    """Hands the first batch over once more, when it is back on the lists."""

    def run_pass(self):
        running = super().run_pass()
        batch = first = next(running, None)
        first = first.copy()
        while batch is not None:
            answer = yield batch
            try:
                batch = running.send(answer)
            except StopIteration:
                batch = None
        yield first
        return False


class _Reports(MainlinePolicy):
    def _entries_of(self):
        batch, self._entries = self._entries[0], []
        self._free_entries = self.capacity
        return batch


class PutsBackTooSoon(_Reports):
    """Frees a batch that it has handed over, when it is asked how long its search took."""

    with_device = None

    @property
    def busy_ns(self):
        """The last thing that a worker asks before it submits a batch."""
        if self.with_device is not None:
            self.lists.list_put_back(self.with_device, True)
            self.with_device = None
        return 0

    def _report(self):
        self.with_device = self._entries_of()
        return (yield self.with_device)


class PutsBackTwice(_Reports):
    """Frees a batch again that is free."""

    def _report(self):
        blocks = self._entries_of()
        success = yield blocks
        self.lists.list_put_back(blocks, success)
        self.lists.list_put_back(blocks, success)
        return success


class ForgetsItsBatch(_Reports):
    """Keeps what the device has handed back."""

    def _report(self):
        return (yield self._entries_of())
