"""What is refused by its name, and what is not."""

import json
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

from nova import objects

from kvmdriver import exception
from kvmdriver.hypervisor import xml
from kvmdriver.nova import attach, demands, live_migration, refusals
from kvmdriver.nova.block_devices import Slot
from kvmdriver.nova.refusals import Demand, VolumeDemand
from tests.unit.nova import objects as made


def volume(**fields: Any) -> Demand:
    return Demand(volumes=(VolumeDemand(**{"id": "the-volume", "name": "vdb", **fields}),))


REFUSED = (
    (Demand(specs={"hw:tpm_version": "2.0"}), "hw:tpm_version"),
    (Demand(specs={"hw:mem_encryption": "true"}), "hw:mem_encryption"),
    (Demand(specs={"pci_passthrough:alias": "gpu:1"}), "pci_passthrough:alias"),
    (Demand(specs={"accel:device_profile": "fpga"}), "accel:device_profile"),
    (Demand(specs={"resources:VGPU": "1"}), "resources:VGPU"),
    (Demand(specs={"resources1:VGPU": "1"}), "resources1:VGPU"),
    (Demand(specs={"resources_GPU:PGPU": "1"}), "resources_GPU:PGPU"),
    (Demand(specs={"resources:CUSTOM_PMEM_NAMESPACE_SMALL": "1"}), "CUSTOM_PMEM_NAMESPACE_SMALL"),
    (
        Demand(specs={"resources2:CUSTOM_NVIDIA_35": "1"}, mdev_classes=("CUSTOM_NVIDIA_35",)),
        "resources2:CUSTOM_NVIDIA_35",
    ),
    (Demand(resource_classes=("VCPU", "VGPU")), "VGPU"),
    (
        Demand(resource_classes=("CUSTOM_NVIDIA_35",), mdev_classes=("CUSTOM_NVIDIA_35",)),
        "CUSTOM_NVIDIA_35",
    ),
    (Demand(properties={"hw_viommu_model": "intel"}), "hw_viommu_model"),
    (Demand(properties={"hw_architecture": "aarch64"}), "hw_architecture"),
    (Demand(properties={"hw_vm_mode": "xen"}), "hw_vm_mode"),
    (Demand(pci_aliases=("gpu",)), "gpu"),
    (Demand(accelerators=("the-request",)), "the-request"),
    (Demand(shares=("the-share",)), "the-share"),
    (Demand(passthrough_ports=("the-port (direct)",)), "the-port"),
    (volume(encrypted=True), "the-volume (vdb) is encrypted"),
    (volume(access_mode="ro", bus="sata"), "the-volume (vdb) is read-only"),
    (volume(access_mode="ro", device="lun", bus="scsi"), "the-volume (vdb) is read-only"),
    (volume(access_mode="append"), "append"),
)

CARRIED_OUT = (
    Demand(),
    Demand(specs={"hw:mem_encryption": "false", "hw:cpu_policy": "dedicated"}),
    Demand(specs={"resources:VCPU": "1", "resources:CUSTOM_LICENSE": "1"}),
    Demand(specs={"resources:VGPU": "0"}),
    Demand(resource_classes=("VCPU", "MEMORY_MB", "CUSTOM_PCI_8086_1563")),
    Demand(properties={"hw_architecture": "x86_64", "hw_vm_mode": "hvm"}),
    volume(multiattach=True),
    volume(access_mode="rw"),
    volume(access_mode="ro"),
    volume(access_mode="ro", bus="scsi"),
    volume(access_mode="ro", device="cdrom", bus="sata"),
    volume(encrypted=True, decrypted=True),
)


class RefusalsTest(unittest.TestCase):
    def test_refused_by_name(self) -> None:
        for demand, name in REFUSED:
            with self.subTest(name), self.assertRaises(exception.Unsupported) as caught:
                refusals.check(demand)
            self.assertIn(name, str(caught.exception))
            self.assertTrue(caught.exception.field)
            self.assertTrue(caught.exception.remedy)

    def test_carried_out(self) -> None:
        for demand in CARRIED_OUT:
            with self.subTest(demand):
                refusals.check(demand)


class DemandsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.node = made.node()

    def check(self, instance: Any = None, **arguments: Any) -> None:
        volumes = arguments.pop("volumes", ())
        instance = instance or made.instance()
        demands.check(self.node, instance, made.image_meta(), volumes, **arguments)

    def refused(self, name: str, instance: Any = None, **arguments: Any) -> None:
        with self.assertRaises(exception.Unsupported) as caught:
            self.check(instance, **arguments)
        self.assertIn(name, str(caught.exception))

    def slot(self, **connection: Any) -> Slot:
        info = {"driver_volume_type": "iscsi", "serial": made.UUID, "data": {}, **connection}
        entry = {"connection_info": info, "mount_device": "/dev/vdb"}
        return Slot(name="vdb", bus="virtio", volume=entry)

    def test_a_plain_server(self) -> None:
        self.check(allocations={made.UUID: {"resources": {"VCPU": 1}}}, accel_info=[])

    def test_encrypted(self) -> None:
        (plain,) = demands.of_slots([self.slot()])
        self.check(volumes=[plain])
        (secret,) = demands.of_slots([self.slot(data={"encrypted": True})])
        self.refused(made.UUID, volumes=[secret])
        by_context = demands.of_connection({"data": {}}, self.slot(), {"provider": "luks"})
        self.assertTrue(by_context.encrypted)

    def test_a_guest_that_was_started_with_a_decrypted_disk(self) -> None:
        """The definition of nova's own driver counts, even if nova's record says nothing."""
        domain = self.node.hypervisor.find.return_value = mock.Mock()
        domain.xml.return_value = _definition("<encryption format='luks'/>")
        wanted = demands.of_server(self.node, made.instance(), [self.slot()])
        self.refused("the-volume", volumes=wanted)
        demands.check_kept(
            [VolumeDemand(id="the-volume", name="vdb", encrypted=True)], domain.xml()
        )
        with self.assertRaises(exception.Unsupported):
            demands.check_kept(
                [VolumeDemand(id="the-volume", name="vdb", encrypted=True)], _definition("")
            )

    def test_pci_devices_by_alias(self) -> None:
        requests = objects.InstancePCIRequests(
            instance_uuid=made.UUID,
            requests=[
                objects.InstancePCIRequest(count=1, alias_name=None, spec=[{"x": "y"}]),
            ],
        )
        self.check(made.instance(pci_requests=requests))
        requests.requests.append(
            objects.InstancePCIRequest(count=1, alias_name="gpu", spec=[{"x": "y"}])
        )
        self.refused("gpu", made.instance(pci_requests=requests))

    def test_mediated_devices_of_the_configuration(self) -> None:
        conf = self.node.conf
        flavor = made.flavor({"resources:CUSTOM_NVIDIA_35": "1"})
        self.check(made.instance(flavor))
        conf.set_override("enabled_mdev_types", ["nvidia-35"], group="devices")
        self.addCleanup(conf.clear_override, "enabled_mdev_types", group="devices")
        demands.check_flavor(self.node, made.flavor())
        conf.set_override("mdev_class", "CUSTOM_NVIDIA_35", group="mdev_nvidia-35")
        self.refused("resources:CUSTOM_NVIDIA_35", made.instance(flavor))
        allocations = {made.UUID: {"resources": {"CUSTOM_NVIDIA_35": 1}}}
        self.refused("CUSTOM_NVIDIA_35", allocations=allocations)

    def test_accelerators_and_shares(self) -> None:
        self.refused("the-request", accel_info=[{"uuid": "the-request"}])
        self.refused("the-share", share_info=[SimpleNamespace(share_id="the-share")])

    def test_recorded_volumes(self) -> None:
        info = {"driver_volume_type": "iscsi", "serial": "a", "data": {"encrypted": True}}
        bdm = mock.Mock(
            is_volume=True,
            connection_info=json.dumps(info),
            device_name="/dev/vdc",
            disk_bus=None,
            device_type=None,
            volume_id="a",
        )
        with mock.patch.object(
            objects.BlockDeviceMappingList, "get_by_instance_uuid", return_value=[bdm]
        ):
            (found,) = demands.recorded(None, made.instance())
        self.assertEqual(("a", "vdc", True), (found.id, found.name, found.encrypted))

    def test_ports_that_do_not_move(self) -> None:
        instance = made.instance()
        for kind, moves in (("normal", True), ("direct", False), ("vdpa", False)):
            network_info = [made.vif(vnic_type=kind)]
            with (
                self.subTest(kind),
                mock.patch.object(objects.Instance, "get_network_info", return_value=network_info),
            ):
                if moves:
                    demands.check_move(self.node, instance, made.image_meta(), ())
                    continue
                with self.assertRaises(exception.Unsupported) as caught:
                    demands.check_move(self.node, instance, made.image_meta(), ())
                self.assertIn(kind, str(caught.exception))

    def test_suspend_with_devices_of_the_host(self) -> None:
        demands.check_suspend(_definition(""))
        for device in (
            "<hostdev mode='subsystem' type='pci'><alias name='gpu'/></hostdev>",
            "<interface type='hostdev'><mac address='gpu'/></interface>",
            "<interface type='vdpa'><mac address='gpu'/></interface>",
        ):
            with self.subTest(device), self.assertRaises(exception.Unsupported) as caught:
                demands.check_suspend(xml.parse(f"<domain><devices>{device}</devices></domain>"))
            self.assertIn("gpu", str(caught.exception))

    def test_where_an_interface_is(self) -> None:
        """A whole network card is found by its address: nova gives it to the next guest."""
        root = xml.parse(
            "<domain><devices><interface><mac address='fa:16:3e:00:00:01'/></interface>"
            "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x81' "
            "slot='0x0a' function='0x1'/></source></hostdev></devices></domain>"
        )
        card = {"type": "hostdev_physical", "profile": {"pci_slot": "0000:81:0a.1"}}
        for vif, tag in ((made.vif(), "interface"), (made.vif(**card), "hostdev")):
            with self.subTest(tag):
                (found,) = root.xpath(attach._interface_path(vif))
                self.assertEqual(tag, found.tag)
        other = {**card, "profile": {"pci_slot": "0000:82:0a.1"}}
        self.assertEqual([], root.xpath(attach._interface_path(made.vif(**other))))


class ArrivalTest(unittest.TestCase):
    """A live migration to this host that is refused."""

    def test_rolling_back_takes_nothing_that_was_here(self) -> None:
        node, instance = made.node(), made.instance(pci_requests=None, info_cache=None)
        instance.flavor.extra_specs = {"hw:tpm_version": "2.0"}
        data = objects.LibvirtLiveMigrateData(is_shared_instance_path=False)
        with mock.patch("shutil.rmtree") as remove:
            with self.assertRaises(exception.Unsupported):
                live_migration.prepare(node, None, instance, None, [], "[]", data)
            live_migration.roll_back_at_destination(node, instance, [], None, data)
        remove.assert_not_called()
        node.hypervisor.define.assert_not_called()
        self.assertEqual(set(), node.not_prepared)


def _definition(encryption: str) -> Any:
    return xml.parse(
        "<domain><devices><disk type='block' device='disk'><source dev='/dev/sdx'>"
        f"{encryption}</source><target dev='vdb' bus='virtio'/><serial>the-volume</serial></disk>"
        "</devices></domain>"
    )
