"""Guests whose libvirtd dies while it ends a copy of a disk."""

import json
import os
import socket
from unittest import mock

from lxml import etree

from kvmdriver import exception, privsep
from kvmdriver.hypervisor.domain import Domain
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


class MissedEndTest(FunctionalTest):
    """QEMU has ended the copy and forgotten the job; libvirtd had not noted that when it died."""

    def test_the_disk_that_the_guest_has_is_kept(self) -> None:
        view = self.create(disks=[{"size_mib": 8}], nics=[])
        old = view.disks[0].path

        def die(_domain: Domain, _disk: str) -> None:
            kill_libvirtd()
            with Monitor(view.name) as monitor:
                monitor.end_copy()
            namespace.start_libvirtd()
            raise exception.HypervisorUnavailable("libvirtd died")

        with (
            mock.patch.object(Domain, "pivot", die),
            self.assertRaises(exception.HypervisorUnavailable),
        ):
            self.api.move_disk(view.name, "vda", disk_format="raw")
        with self.assertRaisesRegex(exception.InvalidState, "does not know") as caught:
            self.api.move_disk(view.name, "vda", disk_format="raw")
        self.assertIn("kvmdriver server stop", caught.exception.remedy)
        self.assertTrue(os.path.exists(old))
        self.api.stop_instance(view.name, timeout=0)
        moved = self.api.get_instance(view.name).disks[0]
        self.assertEqual("raw", moved.format)
        self.assertTrue(os.path.exists(moved.path))
        self.assertFalse(os.path.exists(old))
        self.api.start_instance(view.name)


class Monitor:
    """The monitor of a QEMU whose libvirtd is dead (QMP)."""

    def __init__(self, name: str):
        status = etree.parse(os.path.join(privsep.PID_FILES, f"{name}.xml"))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(status.xpath("string(/domstatus/monitor/@path)")))
        self._lines = self._socket.makefile("r")
        self._read()  # the greeting
        self.ask("qmp_capabilities")

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_error: object) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self._lines.readline())
        return answer

    def ask(self, command: str, **arguments: str) -> object:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "event" in (answer := self._read()):
            pass
        return answer["return"]

    def end_copy(self) -> None:
        """Have the guest go on with the copy, and forget the job, as libvirtd does for a pivot."""
        (job,) = self.jobs()
        self.ask("job-complete", id=job)
        namespace.wait_for(lambda: self.jobs() == {job: "concluded"})
        self.ask("job-dismiss", id=job)

    def jobs(self) -> dict[str, str]:
        found = self.ask("query-jobs")
        assert isinstance(found, list)
        return {job["id"]: job["status"] for job in found}
