"""Whether there was something to remove."""

import contextlib
import unittest
from unittest import mock

from kvmdriver import exception
from kvmdriver.operations import destroy

UUID = "0a1b2c3d-0000-4000-8000-000000000001"


class FoundTest(unittest.TestCase):
    def setUp(self) -> None:
        self.context = mock.Mock()
        self.context.find.side_effect = exception.InstanceNotFound("gone")
        self.context.hypervisor.find.return_value = None
        self.context.known.return_value = None
        self.context.locks.hold_to_remove.return_value = contextlib.nullcontext()
        self.context.at_rest.side_effect = exception.InstanceNotFound("gone")

    def test_nothing(self) -> None:
        self.context.cancellations.instance.return_value = None
        self.assertIsNone(destroy.terminate(self.context, "web"))

    def test_an_instance_whose_creation_is_ended(self) -> None:
        self.context.cancellations.instance.return_value = UUID
        self.assertEqual((), destroy.terminate(self.context, "web"))

    def test_somebody_elses_domain(self) -> None:
        self.context.hypervisor.find.return_value = mock.Mock()
        with self.assertRaises(exception.InstanceNotFound):
            destroy.terminate(self.context, "web")
