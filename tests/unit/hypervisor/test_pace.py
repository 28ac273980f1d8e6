"""Calls that may hang begin one by one, and nothing else begins with them."""

import threading
import unittest

from kvmdriver.hypervisor.pace import Pace


class PaceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.pace = Pace()
        self.order: list[str] = []

    def start(self, name: str, *, alone: bool) -> threading.Thread:
        """A call in a thread, which notes when it begins."""

        def work() -> None:
            if alone:
                with self.pace.alone(10):
                    self.order.append(name)
            else:
                call = self.pace.join()
                self.order.append(name)
                self.pace.leave(call)

        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join)
        return thread

    def test_one_at_a_time(self) -> None:
        with self.pace.alone(10):
            others = [self.start(str(number), alone=True) for number in range(3)]
            self.order.append("first")
        for thread in others:
            thread.join()
        self.assertEqual("first", self.order[0])
        self.assertEqual(4, len(self.order))

    def test_an_ordinary_call_waits_for_a_moment_at_most(self) -> None:
        with self.pace.alone(10):
            self.start("ordinary", alone=False).join()  # also if the other one is never sent
        self.assertEqual(["ordinary"], self.order)

    def test_a_call_that_may_hang_waits_for_those_that_have_just_begun(self) -> None:
        call = self.pace.join()
        waiting = self.start("may hang", alone=True)
        self.order.append("ended")
        self.pace.leave(call)
        waiting.join()
        self.assertEqual(["ended", "may hang"], self.order)

    def test_a_call_that_has_its_worker_keeps_nobody(self) -> None:
        call = self.pace.join()
        self.start("may hang", alone=True).join()
        self.assertEqual(["may hang"], self.order)
        self.pace.leave(call)

    def test_it_begins_anyway_when_its_time_is_up(self) -> None:
        with self.pace.alone(10), self.pace.alone(0):
            self.order.append("both")
        self.assertEqual(["both"], self.order)
        self.start("later", alone=True).join()

    def test_a_failure_keeps_nobody(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.pace.alone(10):
            raise ZeroDivisionError
        self.start("next", alone=True).join()
        self.assertEqual(["next"], self.order)
