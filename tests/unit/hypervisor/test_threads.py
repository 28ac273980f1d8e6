"""Threads of calls that may never return."""

import threading
import unittest

from kvmdriver.hypervisor.threads import CallThreads


class CallThreadsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.threads = CallThreads("test-call")
        self.hang = threading.Event()
        self.addCleanup(self.hang.set)

    def test_outcomes(self) -> None:
        self.assertEqual(3, self.threads.submit(int, "3").result(5))
        with self.assertRaises(ValueError):
            self.threads.submit(int, "x").result(5)

    def test_calls_that_hang_keep_nobody_waiting(self) -> None:
        hanging = [self.threads.submit(self.hang.wait) for _ in range(50)]
        self.assertEqual(3, self.threads.submit(int, "3").result(5))
        self.assertFalse(any(call.done() for call in hanging))

    def test_the_process_ends_without_them(self) -> None:
        started: list[bool] = []
        self.threads.submit(lambda: started.append(threading.current_thread().daemon)).result(5)
        self.assertEqual([True], started)

    def test_a_free_thread_takes_the_next_call(self) -> None:
        names = set()
        for _ in range(20):
            names.add(self.threads.submit(lambda: threading.current_thread().ident).result(5))
        self.assertLess(len(names), 20)
