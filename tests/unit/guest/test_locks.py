import threading
import unittest

from kvmdriver import exception
from kvmdriver.guest.locks import InstanceLocks


class LocksTest(unittest.TestCase):
    def test_one_at_a_time(self) -> None:
        locks = InstanceLocks()
        inside, worst = 0, 0

        def work() -> None:
            nonlocal inside, worst
            for _ in range(200):
                with locks.hold("a"):
                    inside += 1
                    worst = max(worst, inside)
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(1, worst)
        self.assertEqual(0, len(locks))

    def test_busy(self) -> None:
        locks = InstanceLocks(timeout=0.05)
        with locks.hold("a"), self.assertRaises(exception.InstanceBusy), locks.hold("a"):
            self.fail("held twice")
        self.assertEqual(0, len(locks))

    def test_a_lock_that_is_held_is_not_waited_for(self) -> None:
        locks = InstanceLocks(timeout=3600)
        with (
            locks.hold("a"),
            self.assertRaisesRegex(exception.InstanceBusy, "under way"),
            locks.hold_at_once("a"),
        ):
            self.fail("held twice")
        with locks.hold_at_once("a"), locks.hold_at_once("b"):
            self.assertEqual(2, len(locks))
        self.assertEqual(0, len(locks))

    def test_others_are_free(self) -> None:
        locks = InstanceLocks(timeout=0.05)
        with locks.hold("a", "b"), locks.hold("c"):
            self.assertEqual(3, len(locks))

    def test_two_pairs_in_opposite_order_do_not_deadlock(self) -> None:
        locks = InstanceLocks(timeout=5)

        def work(*names: str) -> None:
            for _ in range(300):
                with locks.hold(*names):
                    pass

        threads = [threading.Thread(target=work, args=names) for names in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            self.assertFalse(thread.is_alive())

    def test_few_wait_for_one_instance(self) -> None:
        locks = InstanceLocks(timeout=60, waiting=1)
        waits = threading.Event()

        def wait() -> None:
            waits.set()
            with locks.hold("a"):
                pass

        waiting = threading.Thread(target=wait)
        with locks.hold("a"):
            waiting.start()
            waits.wait(5)
            while locks._locks["a"][1] < 2:  # the other one is on its way into the line
                threading.Event().wait(0.01)
            with self.assertRaises(exception.InstanceBusy), locks.hold("a"):
                self.fail("held twice")
            with locks.hold("b"):
                self.assertEqual(2, len(locks))
        waiting.join(5)
        self.assertEqual(0, len(locks))

    def test_a_removal_has_the_operation_before_it_end(self) -> None:
        locks = InstanceLocks(timeout=60, waiting=1)
        held, end = threading.Event(), threading.Event()

        def operation() -> None:
            with locks.hold("a"):
                held.set()
                end.wait()

        working = threading.Thread(target=operation)
        working.start()
        self.assertTrue(held.wait(5))
        with locks.hold_to_remove("a", end.set):
            self.assertTrue(end.is_set())
        working.join(5)

    def test_a_removal_that_is_not_in_the_way_of_anything_interrupts_nothing(self) -> None:
        interrupts: list[None] = []
        with InstanceLocks().hold_to_remove("a", lambda: interrupts.append(None)):
            self.assertEqual([], interrupts)

    def test_a_removal_does_not_wait_for_ever(self) -> None:
        locks = InstanceLocks(timeout=0.1)
        with (
            locks.hold("a"),
            self.assertRaises(exception.InstanceBusy),
            locks.hold_to_remove("a", lambda: None, every=0.02),
        ):
            self.fail("held twice")
