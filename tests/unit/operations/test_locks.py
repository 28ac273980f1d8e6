import threading
import unittest

from kvmdriver import exception
from kvmdriver.operations.locks import InstanceLocks


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
