import unittest

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor import errors


def libvirt_error(code: int, domain: int = libvirt.VIR_FROM_QEMU, message: str = "it broke"):
    error = libvirt.libvirtError(message)
    error.err = (code, domain, message, 2, None, None, None, -1, -1)
    return error


class ErrorsTest(unittest.TestCase):
    def test_kinds(self) -> None:
        for code, kind in (
            (libvirt.VIR_ERR_NO_DOMAIN, exception.InstanceNotFound),
            (libvirt.VIR_ERR_NO_NETWORK, exception.NetworkNotFound),
            (libvirt.VIR_ERR_OPERATION_INVALID, exception.InvalidState),
            (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, exception.Unsupported),
            (libvirt.VIR_ERR_OPERATION_TIMEOUT, exception.OperationTimeout),
            (libvirt.VIR_ERR_INTERNAL_ERROR, exception.HypervisorError),
        ):
            error = errors.translate(libvirt_error(code), "web")
            self.assertIs(kind, type(error))
            self.assertEqual("web", error.instance)

    def test_taken_names(self) -> None:
        error = libvirt_error(
            libvirt.VIR_ERR_OPERATION_FAILED, message="domain 'x' already exists with uuid y"
        )
        self.assertIsInstance(errors.translate(error), exception.InstanceExists)

    def test_lost_connections(self) -> None:
        lost = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
        self.assertTrue(errors.is_connection_lost(lost))
        self.assertIsInstance(errors.translate(lost), exception.HypervisorUnavailable)
        # the same code from QEMU's side is an ordinary failure
        self.assertFalse(errors.is_connection_lost(libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)))
