"""Policies that raise an exception, each in another place; the line that does so says `here`."""

from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Option, Runs, hand_over


class Refused(Exception):
    """An exception that cannot be sent to another process."""

    def __init__(self, what, instead):
        super().__init__(f"{what}; {instead}")


class Created(MainlinePolicy):
    options = {"divisor": Option(0, "what is divided by")}

    def __init__(self, lists, settings):
        super().__init__(lists, settings)
        self.share = 100 // settings.integer(Created, "divisor")  # here


class Arguments(MainlinePolicy):
    def __init__(self):  # here
        pass


class Registers(MainlinePolicy):
    def register(self):
        raise KeyError("registry")  # here


class Notices(MainlinePolicy):
    def take_notice(self):
        return self.absent  # here


class Begins(MainlinePolicy):
    def run_pass(self, often):  # here
        yield from super().run_pass()


class Passes(MainlinePolicy):
    def run_pass(self):
        return (yield from self.search())

    def search(self):
        raise Refused("no such zone", "name another")  # here
        yield


class Asks(MainlinePolicy):
    def run_pass(self):
        blocks, _ = self.lists.list_take("0", 9, 1, 32)  # here
        return (yield from hand_over(self.lists, blocks))


class Results(MainlinePolicy):
    def run_pass(self):
        running = super().run_pass()
        taken = None
        while True:
            try:
                batch = running.send(taken)
            except StopIteration as end:
                return end.value
            taken = yield batch
            assert not taken, "the device took it"  # here


class Searches(MainlinePolicy):
    @property
    def busy_ns(self):
        return {}["absent"]  # here


class Ends(MainlinePolicy):
    def unregister(self):
        raise RuntimeError("already")  # here


class _Host:
    runs = Runs.HOST
    interval_ns = 500_000_000

    def __init__(self, settings):
        pass


class Wakes(_Host):
    def wake(self, controls):
        controls.set_target("1GiB")  # here


class Hints(_Host):
    def wake(self, controls):
        controls.start_hints()  # here


class Refuses(MainlinePolicy):
    @classmethod
    def refuse(cls, settings):
        return settings.absent  # here
