import unittest

from kvmdriver.agent.progress import ProgressTable, Reporter
from kvmdriver.model import ProgressView


class ProgressTest(unittest.TestCase):
    def test_listeners_hear_of_stages_and_not_of_every_step(self) -> None:
        table, heard = ProgressTable(), []
        reporter = Reporter(table, "r", heard.append)
        for done in range(100):
            reporter("copy", done, 100)
        reporter("start", 0, None, "steps")
        self.assertEqual(["copy", "start"], [view.stage for view in heard])
        self.assertEqual("start", table.get("r").stage)
        self.assertFalse(table.get("r").finished)
        reporter.finish()
        self.assertTrue(table.get("r").finished)

    def test_old_operations_are_forgotten(self) -> None:
        table = ProgressTable()
        for number in range(300):
            table.put(ProgressView(request_id=str(number), stage="s", done=0, total=None))
        self.assertIsNone(table.get("0"))
        self.assertIsNotNone(table.get("299"))

    def test_an_operation_without_progress_just_ends(self) -> None:
        table = ProgressTable()
        Reporter(table, "r", lambda view: None).finish()
        self.assertIsNone(table.get("r"))
