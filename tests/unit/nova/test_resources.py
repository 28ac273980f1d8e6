"""What the host reports, and how long images stay."""

import dataclasses
import json
import os
import re
import subprocess
import tempfile
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from nova import exception as nova_exception
from nova import objects as nova_objects
from nova.compute import provider_tree

from kvmdriver import exception
from kvmdriver.host import pci
from kvmdriver.nova import cpu_traits, errors, image_cache, images, pci_devices, resources, traits
from kvmdriver.storage.store import InstanceStore
from tests.unit.nova import objects as made


class ProvidersTest(unittest.TestCase):
    def test_mediated_devices_that_nova_has_left_are_withdrawn(self) -> None:
        tree = provider_tree.ProviderTree()
        tree.new_root("kvm1", made.UUID)
        inventory = {"VGPU": {"total": 4, "reserved": 0}}
        for name in ("kvm1_pci_0000_81_00_0", "kvm1_0000:81:00.0"):
            tree.new_child(name, made.UUID)
            tree.update_inventory(name, inventory)
        resources._withdraw_mediated_devices(tree, "kvm1")
        self.assertEqual(
            {"total": 4, "reserved": 4}, tree.data("kvm1_pci_0000_81_00_0").inventory["VGPU"]
        )
        # that one is of nova's PCI tracker, for ports
        self.assertEqual(inventory, tree.data("kvm1_0000:81:00.0").inventory)


class HostTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = temporary.name
        self.cache = os.path.join(self.root, "_base")
        os.mkdir(self.cache)
        self.node = dataclasses.replace(
            made.node(),
            store=InstanceStore(self.root),
            images=SimpleNamespace(directory=self.cache),
        )
        self.node.hypervisor.online_cpus.return_value = {0, 1, 2, 3}

    def disk(self, uuid: str = made.UUID, image: str = made.IMAGE) -> str:
        """A qcow2 disk of 64 MiB over a cached image, as an instance has it."""
        base = os.path.join(self.cache, images.cache_name(image))
        with open(base, "wb") as file:
            file.truncate(1 << 20)
        directory = os.path.join(self.root, uuid)
        os.makedirs(directory)
        path = os.path.join(directory, "disk")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path, "64M"],
            check=True,
        )
        with open(os.path.join(directory, "disk.info"), "w") as file:
            json.dump({path: "qcow2"}, file)
        return path

    def test_over_committed(self) -> None:
        self.assertEqual(0, resources.over_committed(self.node))
        path = self.disk()
        left = (64 << 20) - os.stat(path).st_blocks * 512
        self.assertEqual(left, resources.over_committed(self.node))

    def test_pci_devices(self) -> None:
        device = pci.PciDevice("0000:81:02.1", "8086", "154c", "virtual", 1, "0000:81:00.0", "e1")
        with mock.patch.object(pci, "devices", return_value=[device]):
            self.assertEqual([], pci_devices.inventory(self.node.conf))
            self.node.conf.set_override("device_spec", ['{"vendor_id": "8086"}'], group="pci")
            self.addCleanup(self.node.conf.clear_override, "device_spec", group="pci")
            found = pci_devices.inventory(self.node.conf)
        # as nova's own tracker reads it
        made_of = nova_objects.PciDevice.create(None, found[0])
        self.assertEqual(
            ("0000:81:02.1", "type-VF", "0000:81:00.0", 1),
            (made_of.address, made_of.dev_type, made_of.parent_addr, made_of.numa_node),
        )
        self.assertEqual("pci_0000_81_02_1", found[0]["dev_id"])

    def test_uptime_is_as_nova_reads_it(self) -> None:
        # nova.api.openstack.compute.hypervisors takes it apart with this
        pattern = (
            r"^.+\sup\s(?P<uptime>.+),\s+(?P<users>[0-9]+)\susers?,\s+load average:\s(?P<load>.+)$"
        )
        self.assertIsNotNone(re.match(pattern, resources.uptime().strip()), resources.uptime())

    def test_cpus(self) -> None:
        self.assertEqual({0, 1, 2, 3}, resources.shared_cpus(self.node))
        self.node.conf.set_override("cpu_dedicated_set", "2-3", group="compute")
        self.addCleanup(self.node.conf.clear_override, "cpu_dedicated_set", group="compute")
        self.assertEqual(set(), resources.shared_cpus(self.node))
        self.assertEqual({2, 3}, resources.dedicated_cpus(self.node))
        self.node.conf.set_override("cpu_dedicated_set", "9", group="compute")
        with self.assertRaises(nova_exception.Invalid) as caught:
            resources.dedicated_cpus(self.node)
        self.assertIn("cpu_dedicated_set", str(caught.exception))

    def test_numa(self) -> None:
        self.node.conf(["--config-file", os.devnull], project="nova")
        from nova.conf import neutron

        neutron.register_dynamic_opts(self.node.conf)
        topology = resources.numa_topology(self.node)
        cell = topology.cells[0]
        self.assertEqual((8192, {0, 1, 2, 3}), (cell.memory, cell.cpuset))
        self.assertEqual([(4, 1 << 20), (2048, 16)], [(p.size_kb, p.total) for p in cell.mempages])

    def test_cache(self) -> None:
        self.disk()
        unused = os.path.join(self.cache, images.cache_name("nobody's"))
        young = os.path.join(self.cache, images.cache_name("new"))
        for path in (unused, young):
            with open(path, "w"):
                pass
        for name in os.listdir(self.cache):
            if name != os.path.basename(young):
                os.utime(os.path.join(self.cache, name), (0, 0))
        image_cache.manage(self.node, [])
        left = os.listdir(self.cache)
        self.assertEqual({os.path.basename(young), images.cache_name(made.IMAGE)}, set(left))
        used = os.path.join(self.cache, images.cache_name(made.IMAGE))
        self.assertLess(time.time() - os.stat(used).st_mtime, 60, "its age counts from now on")

    def test_cache_of_an_instance_without_overlay(self) -> None:
        path = os.path.join(self.cache, images.cache_name(made.IMAGE))
        with open(path, "w"):
            pass
        os.utime(path, (0, 0))
        image_cache.manage(self.node, [made.instance()])
        self.assertTrue(os.path.exists(path))


class TraitsTest(unittest.TestCase):
    def test_flags(self) -> None:
        found = cpu_traits.cpu_traits({"svm", "sse4.1", "avx512f", "amd-ssbd", "pni", "aes"})
        on = {name.removeprefix("HW_CPU_X86_") for name, value in found.items() if value}
        self.assertLessEqual(
            {"SVM", "AMD_SVM", "SSE41", "AVX512F", "AMD_SSBD", "SSE3", "AESNI"}, on
        )
        self.assertFalse(found["HW_CPU_X86_VMX"])

    def test_what_is_switched_off_is_no_trait(self) -> None:
        node = made.node(cpu_mode="custom", cpu_models=["EPYC"], cpu_model_extra_flags=["-avx2"])
        node.hypervisor.version_numbers.return_value = (7002000, 9000000)
        found = traits.traits(node, {"COMPUTE_TRUSTED_CERTS": True})
        self.assertFalse(found["HW_CPU_X86_AVX2"])
        self.assertFalse(found["HW_CPU_X86_VMX"])
        self.assertTrue(found["HW_CPU_X86_SVM"], "who asks for it gets it")
        node.conf.set_override("policy", "off", group="kvm_nested")
        self.addCleanup(node.conf.clear_override, "policy", group="kvm_nested")
        self.assertFalse(traits.traits(node, {})["HW_CPU_X86_SVM"])
        self.assertTrue(found["COMPUTE_STORAGE_BUS_VIRTIO"])
        self.assertFalse(found["COMPUTE_GRAPHICS_MODEL_QXL"])
        self.assertTrue(found["COMPUTE_TRUSTED_CERTS"])


class ErrorsTest(unittest.TestCase):
    def test_each_is_one_of_novas(self) -> None:
        for cls, wanted in (
            (exception.InstanceNotFound, nova_exception.InstanceNotFound),
            (exception.ImageUnacceptable, nova_exception.ImageUnacceptable),
            (exception.HypervisorUnavailable, nova_exception.HypervisorUnavailable),
            (exception.InsufficientResources, nova_exception.ComputeResourcesUnavailable),
            (exception.Unsupported, nova_exception.Invalid),
            (exception.StorageError, nova_exception.InternalError),
        ):
            found = errors.to_nova(cls("what happened", field="some.field", instance="web"))
            self.assertIsInstance(found, wanted)

    def test_field_and_remedy_are_kept(self) -> None:
        error = exception.Unsupported("no", field="hw_disk_bus", value="x", remedy="take another")
        text = str(errors.to_nova(error))
        self.assertIn("hw_disk_bus", text)
        self.assertIn("take another", text)
