"""Clients that keep an agent busy, and repeat a request that failed like a scheduler would.

Each client has one instance at a time, so that it knows what must have become of it.
"""

import dataclasses
import os
import random
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any

from kvmdriver import exception
from kvmdriver.agent.client import ComputeAPI

# How often a request is sent before its error counts.
ATTEMPTS = 8
# A libvirtd that dies between the two commands with which it plugs in a device leaves the first half
# in the QEMU, knows nothing of that, and names the next device in the same way. Every attach fails
# then until this QEMU has ended, which nobody else can end for the user.
HALF_PLUGGED = re.compile(r"Duplicate (ID|nodes with node-name)")
# A libvirtd that dies while it ends a copy leaves what the next one cannot read (hypervisor/lost.py),
# or what tells nothing of the end (storage_move.mend).
LOST = re.compile(r"libvirt has lost the instance|libvirt does not know that vda has moved")
# What says that the request may be repeated as it is.
PASSING = ("agent_unreachable", "hypervisor_unavailable", "hypervisor_timeout", "instance_busy")


@dataclasses.dataclass
class Expected:
    """An instance as it must be."""

    uuid: str
    name: str
    status: str
    memory: tuple[int, int] = (64, 128)
    vcpus: tuple[int, int] = (1, 2)
    disks: int = 1
    nics: int = 1
    autostart: bool = False

    def seen_as(self) -> dict[str, Any]:
        """The same in the words of the judge, disks and interfaces as numbers."""
        return {
            "name": self.name,
            "status": self.status,
            "memory": list(self.memory),
            "vcpus": list(self.vcpus),
            "disks": self.disks,
            "nics": self.nics,
            "autostart": self.autostart,
        }


@dataclasses.dataclass(frozen=True)
class Step:
    """A request, and what it makes of the instance."""

    method: str
    arguments: dict[str, Any]
    apply: Callable[[], None]


class Gate:
    """Lets clients begin requests, or waits until all of them have ended theirs."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open = False
        self._under_way = 0
        self._begun = 0

    def open(self) -> None:
        with self._condition:
            self._open = True
            self._begun = 0
            self._condition.notify_all()

    def wait_until_begun(self, requests: int, seconds: float) -> None:
        """Wait until so many requests have begun since the gate was opened."""
        with self._condition:
            self._condition.wait_for(lambda: self._begun >= requests, seconds)

    def close(self, seconds: float) -> bool:
        """Whether nothing is under way, at the latest after so many seconds."""
        with self._condition:
            self._open = False
            return self._condition.wait_for(lambda: not self._under_way, seconds)

    def enter(self, seconds: float = 1) -> bool:
        with self._condition:
            if not self._condition.wait_for(lambda: self._open, seconds):
                return False
            self._under_way += 1
            self._begun += 1
            self._condition.notify_all()
            return True

    def leave(self) -> None:
        with self._condition:
            self._under_way -= 1
            self._condition.notify_all()


class Client(threading.Thread):
    """One client.

    :param wait_for_agent: returns when the agent serves requests again and libvirt answers it.
    """

    def __init__(
        self,
        number: int,
        seed: str,
        api: ComputeAPI,
        host: str,
        state: str,
        gate: Gate,
        wait_for_agent: Callable[[], None],
    ):
        super().__init__(name=f"client-{number}", daemon=True)
        self.instance: Expected | None = None
        self.snapshot: str | None = None
        """The file of a snapshot that has been taken."""
        self.failures: list[str] = []
        self.done: dict[str, int] = {}
        self.repeated = 0
        self.half_plugged = 0
        self.lost = 0
        self._number = number
        self._random = random.Random(f"{seed}-{number}")
        self._api = api
        self._host = host
        self._state = state
        self._gate = gate
        self._wait_for_agent = wait_for_agent
        self._stopping = False

    def run(self) -> None:
        while not self._stopping:
            if not self._gate.enter():
                continue
            try:
                self._carry_out(self._random.choice(self._steps()))
            except Exception as error:
                self.failures.append(f"{self.name}: {error!r}")
            finally:
                self._gate.leave()

    def stop(self) -> None:
        self._stopping = True

    def forget(self) -> None:
        """Begin again: the instance and the snapshot have been removed by somebody else."""
        self.instance = self.snapshot = None
        self.failures = []

    def _carry_out(self, step: Step) -> None:
        """Send a request until it is answered."""
        request_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        said: list[str] = []
        while len(said) < ATTEMPTS:
            try:
                # not "ask", whose own timeout hides that of a request
                arguments = {**step.arguments, "request_id": request_id}
                self._api._call(step.method, self._host, arguments, "changes")
            except exception.KVMDriverError as error:
                said.append(f"{error.code}: {error.message}")
                if HALF_PLUGGED.search(error.message) and self.instance is not None:
                    self.half_plugged += 1
                    self._carry_out(self._off(self.instance))
                    return
                if LOST.search(error.message) and self.instance is not None:
                    self.lost += 1
                    self._carry_out(self._off(self.instance))
                    return
                if error.code not in PASSING and said.count(said[-1]) > 1:
                    break  # the same again
                self._wait_for_agent()
                continue
            step.apply()
            self.done[step.method] = self.done.get(step.method, 0) + 1
            self.repeated += bool(said)
            return
        instance = self.instance.name if self.instance else "no instance"
        self.failures.append(
            f"{step.method} of {instance} ({self.instance and self.instance.status}), request"
            f" {request_id}: {' | '.join(said)}"
        )

    def _off(self, instance: Expected) -> Step:
        def apply() -> None:
            instance.status = "stopped"

        return Step("stop_instance", {"instance": instance.uuid, "timeout": 0}, apply)

    # What can be asked for

    def _steps(self) -> list[Step]:
        """All requests that make sense now."""
        instance = self.instance
        if instance is None:
            return [self._create()]
        uuid = {"instance": instance.uuid}

        def step(method: str, arguments: dict[str, Any], **becomes: Any) -> Step:
            def apply() -> None:
                for name, value in becomes.items():
                    setattr(instance, name, value)

            return Step(method, {**uuid, **arguments}, apply)

        found = [
            Step("terminate_instance", uuid, self._gone),
            step("set_autostart", {"autostart": not instance.autostart},
                 autostart=not instance.autostart),
        ]  # fmt: skip
        if instance.status == "suspended":
            return [*found, step("resume_instance", {}, status="running")]
        if instance.status == "paused":
            return [*found, step("unpause_instance", {}, status="running")]
        if self.snapshot is None:
            path = f"{self._state}/snapshots/{instance.uuid}"
            found.append(Step("snapshot_instance", {**uuid, "path": path}, self._snapped(path)))
        else:
            # a new one takes another name
            os.unlink(self.snapshot)
            self.snapshot = None
        if instance.disks < 3:
            disk = {"disk": {"size_mib": 8}}
            found.append(step("attach_volume", disk, disks=instance.disks + 1))
        if instance.nics < 3:
            nic = {"nic": {"type": "network", "source": "default"}}
            found.append(step("attach_interface", nic, nics=instance.nics + 1))
        kind = self._random.choice(("raw", "qcow2"))
        found.append(step("move_disk", {"disk": "vda", "format": kind}))
        if instance.status == "running":
            found += [
                step("stop_instance", {"timeout": 0}, status="stopped"),
                step("reboot_instance", {"type": "hard", "timeout": 0}),
                step("suspend_instance", {}, status="suspended"),
                step("pause_instance", {}, status="paused"),
            ]
            return found
        current, maximum = self._random.choice(((64, 128), (96, 128), (96, 192)))
        name = f"{instance.name.partition('.')[0]}.{self._random.randrange(1000)}"
        return [
            *found,
            step("start_instance", {}, status="running"),
            step("rename_instance", {"name": name}, name=name),
            step("set_memory", {"current_mib": current, "maximum_mib": maximum},
                 memory=(current, maximum)),
            step("set_vcpus", {"current": 2, "maximum": 3}, vcpus=(2, 3)),
            step("set_vcpus", {"current": 1, "maximum": 2}, vcpus=(1, 2)),
        ]  # fmt: skip

    def _create(self) -> Step:
        identity = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        start = self._random.random() < 0.7
        made = Expected(
            identity, f"client{self._number}-{identity[:8]}", "running" if start else "stopped"
        )

        def apply() -> None:
            self.instance = made

        instance = {
            "uuid": made.uuid,
            "name": made.name,
            "memory": {"current_mib": 64, "maximum_mib": 128},
            "vcpus": {"current": 1, "maximum": 2},
            "disks": [{"image": {"type": "file", "path": f"{self._state}/image.qcow2"}}],
            "nics": [{"type": "network", "source": "default"}],
            "config_drive": {"hostname": "random"},
        }
        return Step("build_and_run_instance", {"instance": instance, "start": start}, apply)

    def _gone(self) -> None:
        self.instance = None

    def _snapped(self, path: str) -> Callable[[], None]:
        def apply() -> None:
            self.snapshot = path

        return apply
