"""Operations that are ended from outside."""

import unittest

from kvmdriver import exception
from kvmdriver.operations.cancel import Cancellations
from kvmdriver.progress import ignore


class CancellationsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.cancellations = Cancellations()
        self.told: list[str] = []

    def tell(self, stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
        self.told.append(stage)

    def test_an_operation_ends_when_it_tells_its_progress(self) -> None:
        with self.cancellations.watch("uuid", "web", self.tell) as progress:
            progress("download", 1, None)
            self.cancellations.cancel("uuid", "it is being deleted")
            with self.assertRaises(exception.OperationCancelled) as caught:
                progress("download", 2, None)
        self.assertEqual(["download"], self.told)
        self.assertIn("it is being deleted", caught.exception.message)
        with self.cancellations.watch("uuid", "web", self.tell) as progress:
            progress("again", 1, None)

    def test_others_go_on(self) -> None:
        with (
            self.cancellations.watch("a", "one", self.tell) as one,
            self.cancellations.watch("b", "two", self.tell, goes_with_instance=False) as two,
        ):
            self.cancellations.cancel("b", "gone")
            one("x", 0, None)
            two("y", 0, None)
            self.cancellations.cancel_all("the end")
            for progress in (one, two):
                self.assertRaises(exception.OperationCancelled, progress, "z", 0, None)
        self.assertEqual(["x", "y"], self.told)

    def test_what_begins_at_the_end_is_ended(self) -> None:
        self.cancellations.cancel_all("the end")
        with self.cancellations.watch("a", "one", ignore) as progress:
            self.assertRaises(exception.OperationCancelled, progress, "z", 0, None)

    def test_who_is_being_made(self) -> None:
        with self.cancellations.watch("a", "one", ignore):
            self.assertEqual("a", self.cancellations.instance("one"))
            self.assertEqual("a", self.cancellations.instance("a"))
            self.assertIsNone(self.cancellations.instance("two"))
        self.assertIsNone(self.cancellations.instance("one"))
