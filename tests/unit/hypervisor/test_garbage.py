"""Where libvirt's objects are freed; with libvirt's own test driver."""

import gc
import queue
import threading
import unittest
from unittest import mock

import libvirt

from kvmdriver.hypervisor import garbage


class GarbageTest(unittest.TestCase):
    def setUp(self) -> None:
        garbage.install()
        connection = libvirt.open("test:///default")
        self.addCleanup(connection.close)
        self.lookup = connection.lookupByID
        free = libvirt.libvirtmod.virDomainFree
        self.threads: queue.SimpleQueue[str] = queue.SimpleQueue()

        def watched(domain: object) -> None:
            free(domain)
            self.threads.put(threading.current_thread().name)

        patched = mock.patch.object(libvirt.libvirtmod, "virDomainFree", watched)
        patched.start()
        self.addCleanup(patched.stop)

    def test_an_object_in_a_cycle_is_freed_once_in_the_thread_for_garbage(self) -> None:
        cycle: list[object] = [self.lookup(1)]
        cycle.append(cycle)
        del cycle
        gc.collect()
        self.assertEqual("libvirt-garbage", self.threads.get(timeout=5))
        gc.collect()
        self.assertTrue(self.threads.empty())

    def test_an_object_that_nobody_refers_to_is_freed_at_once(self) -> None:
        domain = self.lookup(1)
        del domain
        self.assertEqual(threading.current_thread().name, self.threads.get_nowait())
