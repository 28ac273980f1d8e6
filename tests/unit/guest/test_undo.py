import unittest

from kvmdriver.guest.undo import undo_on_failure


class UndoTest(unittest.TestCase):
    def test_taken_back_last_one_first(self) -> None:
        steps: list[int] = []
        with self.assertRaises(RuntimeError), undo_on_failure() as undo:
            undo.add(steps.append, 1)
            undo.add(steps.append, 2)
            raise RuntimeError
        self.assertEqual([2, 1], steps)

    def test_forgotten_on_success(self) -> None:
        steps: list[int] = []
        with undo_on_failure() as undo:
            undo.add(steps.append, 1)
        self.assertEqual([], steps)

    def test_a_step_that_fails_does_not_stop_the_others(self) -> None:
        steps: list[int] = []
        with (
            self.assertLogs("kvmdriver.guest.undo", "ERROR"),
            self.assertRaisesRegex(RuntimeError, "the first"),
            undo_on_failure() as undo,
        ):
            undo.add(steps.append, 1)
            undo.add(lambda: 1 / 0)
            raise RuntimeError("the first")
        self.assertEqual([1], steps)
