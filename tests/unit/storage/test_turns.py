"""Places for work on images."""

import threading
import unittest

from kvmdriver import exception
from kvmdriver.progress import ignore
from kvmdriver.storage.turns import Turns


class TurnsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.go = threading.Event()
        self.addCleanup(self.go.set)
        self.running: list[str] = []

    def begin(self, turns: Turns, name: str, progress=ignore) -> threading.Thread:  # type: ignore[no-untyped-def]
        """A thread that works on ``name`` for as long as the test likes."""

        def work() -> None:
            with turns.turn(name, progress):
                self.running.append(name)
                begun.set()
                self.go.wait()

        begun = threading.Event()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        if progress is ignore:
            self.assertTrue(begun.wait(5))
        return thread

    def in_line(self, turns: Turns, name: str) -> threading.Thread:
        waits = threading.Event()
        thread = self.begin(turns, name, lambda *_told: waits.set())
        self.assertTrue(waits.wait(5))
        return thread

    def test_a_few_at_once_some_in_line_and_the_rest_refused(self) -> None:
        turns = Turns(at_once=2, in_line=1)
        threads = [self.begin(turns, "a"), self.begin(turns, "b")]
        threads.append(self.in_line(turns, "c"))
        with self.assertRaises(exception.HostBusy) as caught, turns.turn("d", ignore):
            self.fail("one too many")
        self.assertEqual("agent_busy", caught.exception.code)
        self.assertEqual(["a", "b"], self.running)
        self.go.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(["a", "b", "c"], self.running)
        with turns.turn("d", ignore):
            self.running.append("d")
        self.assertIn("d", self.running)

    def test_one_image_is_worked_on_by_one(self) -> None:
        turns = Turns(at_once=2, in_line=4)
        threads = [self.begin(turns, "a"), self.in_line(turns, "a")]
        self.assertEqual(["a"], self.running)
        self.go.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(["a", "a"], self.running)

    def test_a_request_in_line_can_be_cancelled(self) -> None:
        turns = Turns(at_once=1, in_line=1)
        first = self.begin(turns, "a")

        def cancelled(*_told: object) -> None:
            raise exception.OperationCancelled("no more")

        for _ in range(3):  # a place in the line is given back
            with (
                self.assertRaises(exception.OperationCancelled),
                turns.turn("b", cancelled),
            ):
                self.fail("it went on")
        self.go.set()
        first.join(5)
        with turns.turn("b", ignore):
            self.running.append("b")
        self.assertEqual(["a", "b"], self.running)
