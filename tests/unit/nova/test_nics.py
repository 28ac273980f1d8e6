"""nova's VIFs as interfaces, each kind once."""

import unittest
from typing import Any
from unittest import mock

import os_vif
from nova import exception

from kvmdriver.nova import nics
from tests.unit.nova import objects as made


class NicsTest(unittest.TestCase):
    def setUp(self) -> None:
        os_vif.initialize()

    def nic(
        self, image: Any = None, flavor: Any = None, libvirt: Any = None, **fields: Any
    ) -> Any:
        conf = made.configuration(**(libvirt or {}))
        image = image or made.image_meta()
        return nics.translate(conf, made.vif(**fields), image, flavor or made.flavor())

    def test_open_vswitch(self) -> None:
        nic = self.nic(delegate_create=True)
        self.assertEqual(("fa:16:3e:00:00:01", "virtio", 1450), (nic.mac, nic.model, nic.mtu))
        self.assertEqual(("ethernet", "tap3b4f0e6a-93"), (nic.plug.type, nic.plug.target))
        self.assertEqual("qemu", nic.plug.driver)
        plug = self.nic().plug
        self.assertEqual(
            ("bridge", "br-int", "openvswitch"), (plug.type, plug.bridge, plug.port_profile)
        )
        self.assertEqual(
            (("interfaceid", "3b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44"),), plug.port_parameters
        )

    def test_open_vswitch_hybrid(self) -> None:
        nic = self.nic(details={"ovs_hybrid_plug": True, "port_filter": True})
        self.assertEqual(("bridge", "qbr3b4f0e6a-93"), (nic.plug.type, nic.plug.bridge))

    def test_vhost_user(self) -> None:
        nic = self.nic(
            type="vhostuser",
            details={"vhostuser_socket": "/run/vhu1", "vhostuser_mode": "server"},
            libvirt={"rx_queue_size": 512, "tx_queue_size": 256},
        )
        self.assertEqual(
            ("vhostuser", "server", "/run/vhu1", 512, 256, None),
            (
                nic.plug.type,
                nic.plug.mode,
                nic.plug.path,
                nic.plug.rx_queue_size,
                nic.plug.tx_queue_size,
                nic.plug.driver,
            ),
        )

    def test_hardware(self) -> None:
        slot = {"pci_slot": "0000:81:00.1"}
        nic = self.nic(type="hw_veb", vnic_type="direct", profile=slot, details={"vlan": "7"})
        self.assertEqual(
            ("hostdev", slot["pci_slot"], 7), (nic.plug.type, nic.plug.device, nic.plug.vlan)
        )
        self.assertIsNone(nic.model)
        with mock.patch("kvmdriver.host.pci.interface_of", return_value="eth5"):
            nic = self.nic(type="hw_veb", vnic_type="macvtap", profile=slot)
        self.assertEqual(
            ("direct", "eth5", "passthrough"), (nic.plug.type, nic.plug.device, nic.plug.mode)
        )
        nic = self.nic(type="hostdev_physical", vnic_type="direct-physical", profile=slot)
        self.assertEqual(("hostdev-pci", slot["pci_slot"]), (nic.plug.type, nic.plug.device))

    def test_tap_and_macvtap(self) -> None:
        nic = self.nic(type="tap")
        self.assertEqual(("ethernet", False), (nic.plug.type, nic.plug.managed))
        details = {
            "macvtap_source": "eth1.7",
            "macvtap_mode": "bridge",
            "physical_interface": "eth1",
        }
        nic = self.nic(type="macvtap", details=details)
        self.assertEqual(
            ("direct", "eth1.7", "bridge"), (nic.plug.type, nic.plug.device, nic.plug.mode)
        )
        error = self.assertRaises(
            exception.VifDetailsMissingMacvtapParameters, self.nic, type="macvtap"
        )
        self.assertIsNone(error)

    def test_models(self) -> None:
        self.assertEqual("e1000", self.nic(made.image_meta(hw_vif_model="e1000")).model)
        self.assertIsNone(self.nic(made.image_meta(hw_vif_model="e1000")).plug.driver)

    def test_model_of_the_operating_system(self) -> None:
        self.assertEqual("e1000", self.nic(made.image_meta(os_distro="winxp")).model)
        both = made.image_meta(os_distro="winxp", hw_vif_model="virtio")
        self.assertEqual("virtio", self.nic(both).model)

    def test_bandwidth(self) -> None:
        specs = {"quota:vif_inbound_average": "100", "quota:vif_inbound_peak": "200"}
        plug = self.nic(flavor=made.flavor(specs)).plug
        self.assertEqual((100, 200), (plug.inbound.average, plug.inbound.peak))
        self.assertIsNone(plug.outbound)

    def test_multiqueue(self) -> None:
        image = made.image_meta(hw_vif_multiqueue_enabled="true")
        plug = self.nic(image, made.flavor(vcpus=4), {"virt_type": "kvm"}).plug
        self.assertEqual((4, "vhost"), (plug.queues, plug.driver))
        self.assertIsNone(self.nic(image, made.flavor(vcpus=4)).plug.queues)

    def test_unknown(self) -> None:
        for kind in (None, "binding_failed", "sorcery"):
            with self.assertRaises(exception.NovaException):
                self.nic(type=kind)
