"""A spawn that fails at any point leaves nothing behind."""

import contextlib
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

from nova import exception, objects, test
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import utils as test_utils
from nova.tests.unit.virt import test_virt_drivers as cases
from nova.virt import fake
from oslo_utils import importutils

from kvmdriver import exception as our_exception
from kvmdriver.hypervisor.domain import Domain
from tests.contract.base import DRIVER, RealHost


class FailuresTest(RealHost, cases._FakeDriverBackendTestCase, test.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = importutils.import_object(DRIVER, fake.FakeVirtAPI())
        self.image_service = self.useFixture(nova_fixtures.GlanceFixture(self))
        self.context = test_utils.get_test_admin_context()
        self.start_driver(self.driver, self.image_service)

    def spawn(self) -> None:
        self.instance = test_utils.get_test_instance(obj=True)
        self.driver.spawn(
            self.context,
            self.instance,
            test_utils.get_test_image_object(None, self.instance),
            [],
            "secret",
            {},
            network_info=test_utils.get_test_network_info(),
        )

    @contextlib.contextmanager
    def nothing_left(self, *, plugged: bool = True) -> Iterator[None]:
        """No domain, file or lock stays, and interfaces are unplugged where they were plugged."""
        unplugged = mock.Mock()
        with mock.patch("kvmdriver.nova.vifs.unplug", unplugged):
            yield
        node = self.driver.node
        self.assertIsNone(node.hypervisor.find(self.instance.uuid))
        self.assertFalse(os.path.exists(node.layout(self.instance).directory))
        self.assertEqual(0, len(node.locks))
        cached = os.listdir(node.images.directory) if os.path.isdir(node.images.directory) else []
        self.assertEqual([], [name for name in cached if name.endswith(".part")])
        self.assertEqual(plugged, unplugged.called)

    def test_files_that_another_domain_uses_stay(self) -> None:
        """virt-clone puts the copy beside the original."""
        self.spawn()
        node = self.driver.node
        directory = node.layout(self.instance).directory
        with open(os.path.join(directory, "disk-clone"), "wb") as file:
            file.truncate(1 << 20)
        root = node.domain(self.instance).xml(inactive=True)
        for tag, text in (("name", "clone"), ("uuid", str(uuid.uuid4()))):
            root.find(tag).text = text
        for path in ("devices/interface", "sysinfo", "os/smbios"):
            for element in root.findall(path):
                element.getparent().remove(element)
        root.find("devices/disk[@device='disk']/source").set("file", f"{directory}/disk-clone")
        clone = node.hypervisor.define(root)
        with mock.patch("kvmdriver.nova.vifs.unplug"):
            self.driver.destroy(self.context, self.instance, [], destroy_disks=True)
        self.assertIn("disk-clone", os.listdir(directory))
        self.assertNotIn("disk", os.listdir(directory))
        # nova asks again, periodically
        self.assertFalse(self.instance.cleaned)
        clone.undefine()
        self.assertTrue(self.driver.delete_instance_files(self.instance))
        self.assertFalse(os.path.exists(directory))

    def test_image_that_would_read_other_files(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "image")
            subprocess.run(
                [
                    "qemu-img",
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-b",
                    "/etc/passwd",
                    "-F",
                    "raw",
                    path,
                ],
                check=True,
            )
            with open(path, "rb") as image:
                data = image.read()
        instance_image = "cedef40a-ed67-4d10-800e-17455edce175"
        self.image_service._imagedata[instance_image] = data
        self.image_service.images[instance_image]["disk_format"] = "qcow2"
        with self.nothing_left():
            self.assertRaises(exception.ImageUnacceptable, self.spawn)

    def test_image_larger_than_the_flavor(self) -> None:
        self.image_service._imagedata["cedef40a-ed67-4d10-800e-17455edce175"] = bytes(5 << 20)
        with (
            self.nothing_left(),
            mock.patch("kvmdriver.nova.disks._MIB", 1),
            mock.patch.object(objects.Flavor, "root_gb", 1, create=True),
            mock.patch(
                "kvmdriver.storage.image_cache.ImageCache.fetch",
                return_value=mock.Mock(size_mib=2048, path="/nowhere"),
            ),
        ):
            self.assertRaises(exception.FlavorDiskSmallerThanImage, self.spawn)

    def test_neutron_does_not_answer(self) -> None:
        self.flags(vif_plugging_timeout=1, vif_plugging_is_fatal=True)
        waiting = mock.MagicMock()
        waiting.return_value.__exit__.side_effect = exception.InstanceEventTimeout()
        network_info = test_utils.get_test_network_info()
        network_info[0]["active"] = False
        with (
            self.nothing_left(),
            mock.patch.object(self.driver.virtapi, "wait_for_instance_event", waiting),
            mock.patch.object(test_utils, "get_test_network_info", return_value=network_info),
        ):
            self.assertRaises(exception.VirtualInterfaceCreateException, self.spawn)
        self.assertEqual("network-vif-plugged", waiting.call_args.args[1][0][0])

    def test_guest_does_not_start(self) -> None:
        error = our_exception.HypervisorError("QEMU ended")
        with self.nothing_left(), mock.patch.object(Domain, "start", side_effect=error):
            self.assertRaises(exception.InternalError, self.spawn)

    def test_full_disk(self) -> None:
        def full(*_arguments: Any, **_named: Any) -> None:
            raise our_exception.InsufficientResources("the disk is full")

        with (
            self.nothing_left(),
            mock.patch("kvmdriver.storage.qemu_img.QemuImg.create", side_effect=full),
        ):
            self.assertRaises(exception.ComputeResourcesUnavailable, self.spawn)

    def test_unsupported_request(self) -> None:
        self.instance = test_utils.get_test_instance(obj=True)
        self.instance.flavor.extra_specs = {"hw:tpm_version": "2.0"}
        with (
            self.nothing_left(plugged=False),
            mock.patch.object(test_utils, "get_test_instance", return_value=self.instance),
        ):
            error = self.assertRaises(exception.Invalid, self.spawn)
        self.assertIn("hw:tpm_version", str(error))

    def test_a_lost_root_disk_is_not_made_anew(self) -> None:
        self.spawn()
        self.driver.power_off(self.instance)
        layout = self.driver.node.layout(self.instance)
        os.unlink(layout.file("disk"))
        network_info = test_utils.get_test_network_info()
        self.assertRaises(
            exception.DiskNotFound,
            self.driver.power_on,
            self.context,
            self.instance,
            network_info,
        )
        self.assertFalse(os.path.exists(layout.file("disk")))

    def test_a_lost_image_is_fetched_again(self) -> None:
        self.spawn()
        self.driver.power_off(self.instance)
        for name in os.listdir(self.driver.node.images.directory):
            os.unlink(os.path.join(self.driver.node.images.directory, name))
        network_info = test_utils.get_test_network_info()
        self.driver.power_on(self.context, self.instance, network_info)
        self.assertEqual(1, self.driver.get_info(self.instance).state)

    def test_files_that_were_there_stay(self) -> None:
        """An evacuation finds the disks on shared storage; its failure must not remove them."""
        self.instance = test_utils.get_test_instance(obj=True)
        directory = self.driver.node.layout(self.instance).directory
        os.mkdir(directory)
        error = our_exception.HypervisorError("QEMU ended")
        with (
            mock.patch.object(test_utils, "get_test_instance", return_value=self.instance),
            mock.patch.object(Domain, "start", side_effect=error),
        ):
            self.assertRaises(exception.InternalError, self.spawn)
        self.assertTrue(os.path.exists(os.path.join(directory, "disk")))
        self.assertIsNone(self.driver.node.hypervisor.find(self.instance.uuid))
