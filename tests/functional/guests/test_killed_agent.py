"""Agents that are killed in the middle of something. Afterwards: nothing lost, nothing left."""

import glob
import os
import subprocess
import threading
import time

from kvmdriver import exception, model
from kvmdriver.hypervisor.record import Owner, Task
from tests import namespace
from tests.functional.base import run
from tests.functional.guests.service import AgentTest


class KilledAgentTest(AgentTest):
    """The agent dies in the middle of an operation and is started again."""

    def kill_during(self, call, *arguments, when, **named) -> None:  # type: ignore[no-untyped-def]
        """Start an operation, kill the agent as soon as ``when()``, start it again."""
        outcome: list[BaseException] = []

        def work() -> None:
            try:
                call(*arguments, **named)
            except BaseException as error:
                outcome.append(error)

        caller = threading.Thread(target=work, daemon=True)
        caller.start()
        namespace.wait_for(when, 30, 0.005)
        self.service.kill()
        caller.join(60)
        self.assertFalse(caller.is_alive(), "the caller still waits for a dead agent")
        self.assertIsInstance(outcome[0], exception.AgentUnreachable)
        self.restart_agent()

    def big_image(self) -> dict:
        """An image that takes a while to copy."""
        path = os.path.join(self.state, "big.qcow2")
        raw = os.path.join(self.state, "big.raw")
        with open(raw, "wb") as dense:
            dense.write(os.urandom(1 << 20) * 500)
        run("qemu-img", "convert", "-O", "qcow2", raw, path)
        os.unlink(raw)
        return {"type": "file", "path": path}

    def test_while_it_creates(self) -> None:
        other = self.remote_create(nics=[], config_drive=None)
        self.wait_for_console(other.name, "GUEST: up")
        request = self.request(disks=[{"image": self.big_image()}], nics=[], config_drive=None)
        self.made.add(request.uuid)
        parts = f"{self.instances}/_base"
        self.kill_during(
            self.remote.build_and_run_instance,
            request,
            when=lambda: any(name.endswith(".part") for name in os.listdir(parts)),
        )
        # the half-built one is gone, the other one never noticed
        self.assertEqual([other.name], [view.name for view in self.remote.list_instances()])
        self.assertFalse(os.path.exists(f"{self.instances}/{request.uuid}"))
        self.assertEqual([], [n for n in os.listdir(parts) if n.endswith(".part")])
        self.assertEqual(1, self.api.get_console_output(other.name).count("GUEST: up"))
        # the same request is as good as ever
        self.assertEqual("running", self.remote.build_and_run_instance(request).status)

    def test_while_it_clones(self) -> None:
        view = self.remote_create(
            disks=[{"image": self.big_image(), "format": "raw"}], nics=[], config_drive=None
        )
        self.remote.stop_instance(view.name, timeout=0)
        clone = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a99"
        self.made.add(clone)
        directory = f"{self.instances}/{clone}"
        self.kill_during(
            self.remote.clone_instance,
            view.name,
            self.name("-clone"),
            uuid=clone,
            when=lambda: os.path.exists(f"{directory}/disk"),
        )
        self.assertFalse(os.path.exists(directory))
        self.assertEqual([view.name], [v.name for v in self.remote.list_instances()])
        self.assertIsNone(self.remote.get_instance(view.name).task)

    def test_while_it_takes_a_snapshot(self) -> None:
        view = self.remote_create(
            disks=[{"image": self.big_image(), "format": "raw"}], nics=[], config_drive=None
        )
        target = os.path.join(self.state, "snapshot.qcow2")
        parts = os.path.join(self.state, f".{view.uuid}.*.snapshot.part")
        self.kill_during(
            self.remote.snapshot_instance, view.name, target, when=lambda: glob.glob(parts)
        )
        self.assertEqual([], glob.glob(parts))
        self.assertFalse(os.path.exists(target))
        shown = self.remote.get_instance(view.name)
        self.assertEqual(("running", None), (shown.status, shown.task))
        self.assertNotIn("<mirror", run("virsh", "dumpxml", view.name))
        self.assertEqual(target, self.remote.snapshot_instance(view.name, target))

    def test_while_it_attaches(self) -> None:
        view = self.remote_create(nics=[], config_drive=None)
        image = model.FileImage.parse(self.big_image())
        disk = model.Disk(image=image, format="raw")
        path = f"{self.instances}/{view.uuid}/disk.vdb"
        parts = f"{self.instances}/_base"
        self.kill_during(
            self.remote.attach_volume,
            view.name,
            disk,
            when=lambda: any(name.endswith(".part") for name in os.listdir(parts)),
        )
        self.assertFalse(os.path.exists(path))
        self.assertIsNone(self.remote.get_instance(view.name).task)
        self.assertEqual(1, len(self.remote.get_instance(view.name).disks))
        self.assertEqual("vdb", self.remote.attach_volume(view.name, disk).name)

    def test_while_it_waits_for_a_shutdown(self) -> None:
        # nobody in this guest hears the power button
        view = self.remote_create(disks=[{"size_mib": 8}], nics=[], config_drive=None)
        started = time.monotonic()
        self.kill_during(
            self.remote.stop_instance,
            view.name,
            timeout=120,
            when=lambda: time.monotonic() > started + 2,
        )
        self.assertEqual("running", self.remote.get_instance(view.name).status)
        self.remote.stop_instance(view.name, timeout=0)
        self.assertEqual("stopped", self.remote.get_instance(view.name).status)

    def test_while_it_deletes(self) -> None:
        # a delete is too quick to be hit: the agent is stopped where it would be hit
        view = self.remote_create(nics=[], config_drive=None)
        domain, record = self.agent._server.driver._context.find(view.name)
        victim = subprocess.Popen(["sleep", "60"])
        task = Task(name="delete", owner=Owner.of(victim.pid))
        self.agent._server.driver._context.hypervisor.save(domain, record.changed(task=task))
        self.assertEqual("deleting", self.api.get_instance(view.name).status)
        error = self.refused(exception.InstanceBusy, self.remote.start_instance, view.name)
        self.assertIn("delete", error.message)
        victim.kill()
        victim.wait()
        self.service.kill()
        self.restart_agent()
        self.assertEqual([], self.remote.list_instances())
        self.assertFalse(os.path.exists(f"{self.instances}/{view.uuid}"))
