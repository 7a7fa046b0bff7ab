"""Report from the largest blocks down, as long as a zone has more free memory than it keeps."""

from guest_model.allocator.config import MigrateType
from guest_model.reporting.policy import Option, ReportingPolicy, hand_over


class PatientPolicy(ReportingPolicy):
    description = "Largest blocks first, and a zone keeps some free memory that does not fault."
    default_delay_ns = 1_000_000_000
    options = {"keep_bytes": Option(64 << 20, "free memory of a zone that is not reported")}

    def __init__(self, lists, settings):
        self.lists, self.settings = lists, settings
        self.keep_pages = settings.integer(PatientPolicy, "keep_bytes") // 4096
        self.running = self.again = False
        lists.notify.order = settings.order

    def register(self):
        self.lists.notify.armed = self.lists.notify.raised = 0  # the first pass comes anyway

    unregister = register

    def take_notice(self):
        raised, self.lists.notify.raised = self.lists.notify.raised, 0
        self.again |= bool(raised)
        return bool(raised) and not self.running

    def run_pass(self):
        self.running, self.again, self.lists.notify.armed = True, False, 1
        for zone in range(self.lists.zones):
            yield from self.report_zone(zone)
        self.running = False
        return self.again

    def report_zone(self, zone):
        for order in range(self.settings.top_order, self.settings.order - 1, -1):
            for kind in (MigrateType.MOVABLE, MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE):
                spare = self.lists.zone(zone).free_pages - self.keep_pages
                while (most := min(self.settings.capacity, spare >> order)) > 0:
                    blocks, _ = self.lists.list_take(zone, order, kind, most)
                    if not len(blocks) or not (yield from hand_over(self.lists, blocks)):
                        break
                    spare -= len(blocks) << order
