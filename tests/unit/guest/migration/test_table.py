"""What is told of migrations that are under way."""

import unittest
from unittest import mock

from kvmdriver.guest.migration import table
from kvmdriver.model import MigrationPolicy, MigrationView

VIEW = MigrationView(
    id="m1",
    instance="web",
    uuid="0a1b2c3d-0000-4000-8000-000000000001",
    kind="live",
    source="kvm1",
    destination="kvm2",
    state="prepare",
)


class TableTest(unittest.TestCase):
    def setUp(self) -> None:
        clock = mock.patch.object(table.time, "monotonic", side_effect=lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.now = 100.0
        self.table = table.MigrationTable()
        self.told: list[MigrationView] = []
        self.table.subscribe(self.told.append)

    def test_changes_are_told_at_once_and_numbers_every_second(self) -> None:
        self.table.begin(VIEW, MigrationPolicy())
        running = VIEW.changed(state="run")
        for after, view in (
            (0.0, running),
            (0.3, running.changed(rate=1)),
            (0.3, running.changed(rate=2, decisions=("downtime",))),
            (0.9, running.changed(rate=3, decisions=("downtime",))),
            (0.2, running.changed(rate=4, decisions=("downtime",))),
            (0.1, running.changed(state="completed")),
            (5.0, running.changed(state="completed", elapsed=9)),
        ):
            self.now += after
            self.table.put(view)
        self.assertEqual(
            [("prepare", None), ("run", None), ("run", 2), ("run", 4), ("completed", None)],
            [(view.state, view.rate) for view in self.told],
        )
        latest = self.table.find("m1")
        assert latest is not None
        self.assertEqual(9, latest.elapsed)
        self.assertIsNone(self.table.wishes("m1"))

    def test_the_oldest_are_forgotten_but_those_that_run(self) -> None:
        self.table.begin(VIEW, MigrationPolicy())
        for number in range(100):
            self.table.put(VIEW.changed(id=f"old{number}", state="completed"))
        known = [view.id for view in self.table.views()]
        self.assertEqual(64, len(known))
        self.assertEqual({"m1", "old99"}, {known[0], known[-1]})
