"""A guest that libvirt loses: its QEMU runs on, and libvirt has its domain switched off."""

import os

from lxml import etree

from kvmdriver import exception, privsep
from tests import namespace
from tests.functional.base import FunctionalTest, guest_file
from tests.recovery.judge import qemus_by_uuid
from tests.recovery.test_random_kills import kill_libvirtd


class LostGuestTest(FunctionalTest):
    def lose(self, name: str) -> None:
        """Restart libvirtd with what a libvirtd leaves that dies while it ends a block copy."""
        kill_libvirtd()
        status = os.path.join(privsep.PID_FILES, f"{name}.xml")
        tree = etree.parse(status)
        source = tree.find(".//devices/disk/source")
        assert source is not None
        mirror = etree.Element("mirror", type="file", job="")
        etree.SubElement(mirror, "format", type="qcow2")
        etree.SubElement(mirror, "source", file="/nowhere")
        source.addnext(mirror)
        tree.write(status)
        namespace.start_libvirtd()
        namespace.wait_for(lambda: self.status(name) == "stopped")

    def status(self, name: str) -> str | None:
        try:
            return self.api.get_instance(name).status
        except exception.HypervisorUnavailable:
            return None

    def test_a_lost_guest_is_reported_and_ends_when_it_is_told_to(self) -> None:
        view = self.create(
            disks=[{"image": {"type": "file", "path": guest_file("guest.qcow2")}}], nics=[]
        )
        self.wait_for_console(view.name, "GUEST: up")
        pid = qemus_by_uuid()[view.uuid]
        with self.assertLogs("kvmdriver.operations.reconcile", "ERROR") as log:
            self.lose(view.name)
            self.agent._server.driver.init_host()
        self.assertIn(f"process {pid}", "".join(log.output))
        self.assertEqual(pid, qemus_by_uuid().get(view.uuid))
        with self.assertRaisesRegex(exception.InvalidState, f"process {pid}") as caught:
            self.api.start_instance(view.name)
        self.assertIn("kvmdriver server stop", caught.exception.remedy)
        self.api.stop_instance(view.name, timeout=0)
        self.assertNotIn(view.uuid, qemus_by_uuid())
        self.api.start_instance(view.name)
        self.wait_for_console(view.name, "GUEST: up", 2)

    def test_a_deletion_ends_a_lost_guest(self) -> None:
        view = self.create(disks=[{"size_mib": 8}], nics=[{"source": "default"}])
        self.lose(view.name)
        self.assertIn(view.uuid, qemus_by_uuid())
        self.api.terminate_instance(view.name)
        self.assertNotIn(view.uuid, qemus_by_uuid())
        self.assertEqual([], [n for n in os.listdir("/sys/class/net") if n.startswith("vnet")])
