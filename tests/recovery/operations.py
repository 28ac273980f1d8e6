"""What is done to an instance while the agent is killed, and how the instance is before."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from tests.functional.base import guest_file

SUBJECT = "5b1d0f0a-5c1e-4d0e-9a53-0d6f3c1b2a01"
CLONE = "5b1d0f0a-5c1e-4d0e-9a53-0d6f3c1b2a02"
SECOND_MAC = "52:54:00:00:00:02"

Before = Literal["missing", "stopped", "running", "suspended"]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One request, and the instance that it is about.

    Guests have nothing to boot, which most requests do not mind. ``boots`` is for those that need
    a guest which answers.
    """

    name: str
    method: str
    arguments: dict[str, Any]
    before: Before = "stopped"
    boots: bool = False
    autostart: bool = False

    @property
    def request(self) -> dict[str, Any]:
        """The arguments, with the identifier that stays the same when the request is repeated."""
        return {**self.arguments, "request_id": f"request-{self.name.replace(' ', '-')}"}

    def preparation(self, state: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The requests that make the instance, with files of the test in ``state``."""
        if self.before == "missing":
            return
        start = self.before != "stopped"
        made = instance(state, boots=self.boots, autostart=self.autostart)
        yield "build_and_run_instance", {"instance": made, "start": start}
        if self.before == "suspended":
            yield "suspend_instance", {"instance": SUBJECT}


def instance(state: str, *, boots: bool = False, autostart: bool = False) -> dict[str, Any]:
    """An instance with two disks, two interfaces and a config drive."""
    image = guest_file("guest.qcow2") if boots else f"{state}/image.qcow2"
    return {
        "uuid": SUBJECT,
        "name": "subject",
        "memory": {"current_mib": 192 if boots else 64, "maximum_mib": 192 if boots else 128},
        "vcpus": {"current": 1, "maximum": 2},
        "disks": [{"image": {"type": "file", "path": image}}, {"size_mib": 8}],
        "nics": [
            {"type": "network", "source": "default"},
            {"type": "network", "source": "default", "mac": SECOND_MAC},
        ],
        "config_drive": {"hostname": "subject"},
        "autostart": autostart,
    }


def all_operations(state: str) -> list[Operation]:
    """Every kind of request that changes an instance, of a stopped and of a running one."""
    of_it = {"instance": SUBJECT}
    image = {"type": "file", "path": f"{state}/image.qcow2"}
    found = [
        Operation(
            "create",
            "build_and_run_instance",
            {"instance": instance(state, autostart=True)},
            before="missing",
        ),
        Operation(
            "create stopped",
            "build_and_run_instance",
            {"instance": instance(state), "start": False},
            before="missing",
        ),
        Operation("clone", "clone_instance", {**of_it, "name": "clone", "uuid": CLONE}),
        Operation("rename", "rename_instance", {**of_it, "name": "other"}),
        Operation("start", "start_instance", of_it),
        Operation("stop", "stop_instance", {**of_it, "timeout": 0}, before="running"),
        Operation(
            "reboot", "reboot_instance", {**of_it, "type": "hard", "timeout": 0}, before="running"
        ),
        Operation("suspend", "suspend_instance", of_it, before="running"),
        Operation("resume", "resume_instance", of_it, before="suspended"),
        Operation("pause", "pause_instance", of_it, before="running"),
        Operation("set autostart", "set_autostart", {**of_it, "autostart": True}),
        Operation(
            "clear autostart", "set_autostart", {**of_it, "autostart": False}, autostart=True
        ),
        Operation(
            "set maximum memory",
            "set_memory",
            {**of_it, "current_mib": 160, "maximum_mib": 256},
        ),
        Operation("set maximum vcpus", "set_vcpus", {**of_it, "current": 3, "maximum": 4}),
        Operation("lower maximum vcpus", "set_vcpus", {**of_it, "current": 1, "maximum": 1}),
    ]
    for before in ("stopped", "running"):
        state_of_it: Before = "running" if before == "running" else "stopped"
        # a device is unplugged only from a guest that releases it
        boots = before == "running"
        for name, method, arguments, guest in (
            ("delete", "terminate_instance", {}, False),
            ("delete keeping disks", "terminate_instance", {"keep_disks": True}, False),
            ("attach disk", "attach_volume", {"disk": {"image": image}}, False),
            ("attach nic", "attach_interface", {"nic": {"source": "default"}}, False),
            ("detach disk", "detach_volume", {"disk": "vdb"}, boots),
            ("detach and delete disk", "detach_volume", {"disk": "vdb", "delete": True}, boots),
            ("detach nic", "detach_interface", {"mac": SECOND_MAC}, boots),
            ("set memory", "set_memory", {"current_mib": 96}, False),
            ("set vcpus", "set_vcpus", {"current": 2}, False),
            ("move disk", "move_disk", {"disk": "vda", "directory": f"{state}/disks"}, False),
            ("convert disk", "move_disk", {"disk": "vda", "format": "raw"}, False),
            ("snapshot", "snapshot_instance", {"path": f"{state}/snapshots/snapshot"}, False),
        ):
            found.append(
                Operation(
                    f"{name} {before}", method, {**of_it, **arguments}, state_of_it, boots=guest
                )
            )
    return found
