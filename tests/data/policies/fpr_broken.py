"""Policies that break the rules, each one of them."""

from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Runs


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


class StartsTwice(_Reports):
    """Asks for a pass at every free, also while one runs."""

    def take_notice(self):
        super().take_notice()
        self.lists.notify.armed = 1
        return True

    def run_pass(self):
        self.lists.notify.armed = 1
        return (yield from super().run_pass())


class ReturnsAList(MainlinePolicy):
    """Is no generator."""

    def run_pass(self):
        return []


class HandsOverAList(_Reports):
    """Hands over what is no array."""

    def _report(self):
        return (yield list(self._entries_of()))


class HandsOverNothing(MainlinePolicy):
    """Hands over an empty batch."""

    def run_pass(self):
        yield self.lists.list_take(0, 10, 1, 1)[0][:0]


class HandsOverTwice(_Reports):
    """Has a block twice in one batch."""

    def _report(self):
        blocks = self._entries_of()
        yield blocks[[0, 0]]


class TurnsBackTime(MainlinePolicy):
    """Says that its search took less than before."""

    @property
    def busy_ns(self):
        """Falls each time."""
        self.asked = getattr(self, "asked", 5) - 1
        return self.asked


class KeepsAtTheEnd(_Reports):
    """Does not put back what it holds where the run ends in its pass."""

    def _report(self):
        try:
            return (yield self._entries_of())
        except GeneratorExit:
            return False


class ForgetsItsBatch(_Reports):
    """Keeps what the device has handed back."""

    def _report(self):
        return (yield self._entries_of())


class WithoutInterval:
    """A policy of the host that is never woken."""

    runs = Runs.HOST

    def __init__(self, settings):
        self.interval_ns = 0

    def wake(self, controls):
        pass
