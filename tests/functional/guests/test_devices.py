"""Changes of a running guest, seen from inside."""

import os
import time

from kvmdriver import exception, model
from tests import namespace
from tests.functional.base import FunctionalTest


class DevicesTest(FunctionalTest):
    def test_memory_and_vcpus(self) -> None:
        view = self.create(
            memory={"current_mib": 192, "maximum_mib": 384}, vcpus={"current": 1, "maximum": 3}
        )
        guest = self.wait_for_ssh(view.name)
        small = guest.memory_mib()
        self.assertLess(small, 192)

        self.assertEqual(384, self.api.set_memory(view.name, current_mib=384).current_mib)
        namespace.wait_for(lambda: guest.memory_mib() > 300, 30)
        self.api.set_memory(view.name, current_mib=192)
        namespace.wait_for(lambda: guest.memory_mib() < 192, 30)
        # the guest gives its pages back little by little; what it counts as its own falls first
        namespace.wait_for(lambda: self.api.get_instance(view.name).memory_mib == 192, 30)
        error = self.refused(
            exception.InvalidRequest, self.api.set_memory, view.name, current_mib=512
        )
        self.assertIn("384", error.message)
        self.refused(exception.InvalidState, self.api.set_memory, view.name, maximum_mib=512)

        self.api.set_vcpus(view.name, current=2)
        namespace.wait_for(lambda: guest.cpus() == 2, 30)
        self.refused(exception.Unsupported, self.api.set_vcpus, view.name, current=1)
        self.refused(exception.InvalidState, self.api.set_vcpus, view.name, maximum=4)

        self.api.stop_instance(view.name)
        self.api.set_memory(view.name, current_mib=256, maximum_mib=256)
        self.api.set_vcpus(view.name, current=2, maximum=2)
        self.api.start_instance(view.name)
        guest = self.wait_for_ssh(view.name)
        self.assertEqual(2, guest.cpus())
        self.assertTrue(192 < guest.memory_mib() <= 256)
        shown = self.api.get_instance(view.name)
        self.assertEqual((256, 2), (shown.memory_maximum_mib, shown.vcpus_maximum))

    def test_memory_modules(self) -> None:
        view = self.create(memory={"current_mib": 192, "maximum_mib": 448, "growth": "hotplug"})
        guest = self.wait_for_ssh(view.name)
        before = guest.memory_mib()
        error = self.refused(
            exception.InvalidRequest, self.api.set_memory, view.name, current_mib=200
        )
        self.assertEqual("current_mib", error.field)
        self.api.set_memory(view.name, current_mib=320)
        namespace.wait_for(lambda: guest.memory_mib() >= before + 100, 30)
        self.refused(exception.InvalidRequest, self.api.set_memory, view.name, current_mib=192)
        # the module is there after a restart as well
        self.api.reboot_instance(view.name, hard=True)
        guest = self.wait_for_ssh(view.name)
        self.assertGreaterEqual(guest.memory_mib(), before + 100)

    def test_disks(self) -> None:
        view = self.create()
        guest = self.wait_for_ssh(view.name)
        virtio = self.api.attach_volume(view.name, model.Disk(size_mib=40))
        self.assertEqual("vdb", virtio.name)
        namespace.wait_for(lambda: guest.disks_mib().get("vdb") == 40, 20)
        guest.run("echo data on disk > /dev/vdb; sync")
        scsi = self.api.attach_volume(view.name, model.Disk(size_mib=24, bus="scsi", format="raw"))
        namespace.wait_for(lambda: guest.disks_mib().get(scsi.name) == 24, 20)
        error = self.refused(
            exception.Unsupported,
            self.api.attach_volume,
            view.name,
            model.Disk(size_mib=8, bus="sata"),
        )
        self.assertEqual("disk.bus", error.field)
        kept = self.api.detach_volume(view.name, "vdb")
        self.assertEqual(virtio.path, kept)
        namespace.wait_for(lambda: "vdb" not in guest.disks_mib(), 20)
        self.assertIsNone(self.api.detach_volume(view.name, scsi.name, delete=True))
        self.assertFalse(os.path.exists(scsi.path))
        self.refused(exception.DeviceNotFound, self.api.detach_volume, view.name, "vdb")
        # the name of a file that is still there is not given again
        again = self.api.attach_volume(view.name, model.Disk(size_mib=8))
        self.assertEqual("vdc", again.name)
        names = [disk.name for disk in self.api.get_instance(view.name).disks]
        self.assertEqual(["vda", "vdc"], [name for name in names if name.startswith("vd")])
        limits = model.IoLimits(total_bytes_sec=1 << 20)
        slow = self.api.attach_volume(view.name, model.Disk(size_mib=16, limits=limits))
        namespace.wait_for(lambda: 16 in guest.disks_mib().values(), 20)
        start = time.monotonic()
        name = next(n for n, size in guest.disks_mib().items() if size == 16)
        guest.run(f"dd if=/dev/zero of=/dev/{name} bs=64k count=64 conv=fsync 2>/dev/null")
        self.assertGreater(time.monotonic() - start, 2, "4 MiB at 1 MiB a second")
        self.api.detach_volume(view.name, slow.name, delete=True)
        # what was plugged in is there after a cold start
        self.api.reboot_instance(view.name, hard=True)
        guest = self.wait_for_ssh(view.name)
        self.assertEqual(8, guest.disks_mib().get("vdb", guest.disks_mib().get("vdc")))

    def test_interfaces(self) -> None:
        view = self.create()
        guest = self.wait_for_ssh(view.name)
        nic = model.Nic(source="default", mac="52:54:00:77:88:99")
        self.assertEqual(nic.mac, self.api.attach_interface(view.name, nic).mac)
        self.api.attach_interface(view.name, nic)
        namespace.wait_for(lambda: nic.mac in guest.macs(), 20)
        namespace.wait_for(lambda: len(self.api.get_instance(view.name).addresses) == 2, 30)
        self.assertEqual(2, len(self.api.get_instance(view.name).nics))
        other = nic.changed(model="e1000")
        self.refused(exception.InvalidRequest, self.api.attach_interface, view.name, other)
        self.refused(
            exception.NetworkNotFound,
            self.api.attach_interface,
            view.name,
            model.Nic(source="nowhere"),
        )
        self.api.detach_interface(view.name, nic.mac)
        namespace.wait_for(lambda: nic.mac not in guest.macs(), 20)
        self.refused(exception.DeviceNotFound, self.api.detach_interface, view.name, nic.mac)

    def test_devices_of_a_stopped_instance(self) -> None:
        view = self.create(start=False, nics=[], config_drive=None)
        disk = self.api.attach_volume(view.name, model.Disk(size_mib=8, bus="sata"))
        self.api.attach_interface(view.name, model.Nic(type="user"))
        self.assertEqual(2, len(self.api.get_instance(view.name).disks))
        self.api.detach_volume(view.name, "vda", delete=True)
        self.api.detach_volume(view.name, disk.name, delete=True)
        shown = self.api.get_instance(view.name)
        self.assertEqual(((), 1), (shown.disks, len(shown.nics)))
