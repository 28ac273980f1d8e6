"""The agent on a real RabbitMQ: calls, notifications, a broker that goes and comes back."""

import json
import os
import sys
import threading
import time

from kvmdriver import exception, model
from tests import namespace, openstackclient
from tests.functional.base import kvmdriver_json, run
from tests.functional.guests.service import AgentTest
from tests.functional.watcher import watch


class BusTest(AgentTest):
    def test_an_instance_through_the_broker_while_another_watches(self) -> None:
        watcher = watch(self, self.conf, self.rabbit.url)
        view = self.remote_create()
        guest = self.wait_for_ssh(view.name)
        guest.run("echo kept > /root/file; sync")
        self.remote.suspend_instance(view.name)
        self.remote.resume_instance(view.name)
        self.assertEqual("kept", guest.run("cat /root/file"))
        with self.assertRaises(exception.NetworkNotFound) as caught:
            self.remote.attach_interface(view.name, model.Nic(source="nowhere"))
        self.assertEqual("nic.source", caught.exception.field)
        self.remote.terminate_instance(view.name)
        expected = [
            "instance.create.start", "instance.create.end", "instance.suspend.start",
            "instance.suspend.end", "instance.resume.start", "instance.resume.end",
            "instance.attach_interface.start", "instance.attach_interface.error",
            "instance.delete.start", "instance.delete.end",
        ]  # fmt: skip
        ours = (view.uuid, view.name)
        namespace.wait_for(lambda: "instance.delete.end" in watcher.types(*ours), 20)
        seen = watcher.types(*ours)
        commands = [t for t in seen if t.rpartition(".")[2] in ("start", "end", "error")]
        self.assertEqual(expected, commands)
        self.assertIn("instance.lifecycle.started", seen)
        self.assertIn("instance.create.progress", seen)
        errors = [p["error"] for t, p in watcher.seen if t == "instance.attach_interface.error"]
        self.assertEqual("network_not_found", errors[0]["code"])

    def test_the_command_line_with_a_transport(self) -> None:
        view = self.remote_create(nics=[], config_drive=None)
        rows = kvmdriver_json(
            "--config-file", self.service._command[2], "server", "list", state=self.state
        )
        self.assertEqual([view.name], [row["Name"] for row in rows])

    def openstack(self, *arguments: str) -> tuple[int, str, str]:
        """Run an ``openstack kvm`` command with the configuration of the agent."""
        return openstackclient.run(
            "--kvm-config-file", self.service._command[2], "kvm", *arguments
        )

    def test_openstackclient_with_a_transport(self) -> None:
        view = self.remote_create(nics=[], config_drive=None)
        there = ("--host", self.conf.kvm_agent.host, "-f", "json")
        command = os.path.join(os.path.dirname(sys.executable), "openstack")
        file = self.service._command[2]
        shown = json.loads(
            run(command, "--kvm-config-file", file, "kvm", "server", "show", view.name, *there)
        )
        self.assertEqual((view.uuid, "running"), (shown["uuid"], shown["status"]))
        host = json.loads(self.openstack("host", "show", *there)[1])
        self.assertEqual((self.conf.kvm_agent.host, 1), (host["host"], host["instances_running"]))
        models = json.loads(self.openstack("cpu", "models", "--usable", *there)[1])
        self.assertIn("qemu64", [model["Name"] for model in models])
        _, compared, _ = self.openstack(
            "cpu", "compare", "--with", self.conf.kvm_agent.host, *there
        )
        self.assertNotEqual("incompatible", json.loads(compared)["result"])
        status, checked, _ = self.openstack("host", "check", *there)
        results = {line["Check"]: line["Result"] for line in json.loads(checked)}
        self.assertEqual("pass", results["libvirt"])
        self.assertEqual(2 if "fail" in results.values() else 0, status)
        _, moves, _ = self.openstack("server", "migration", "list", *there)
        self.assertEqual([], json.loads(moves))

    def test_a_broker_that_is_restarted(self) -> None:
        view = self.remote_create()
        guest = self.wait_for_ssh(view.name)
        self.rabbit.kill()
        outcome: list[object] = []

        def reboot() -> None:
            try:
                self.remote.reboot_instance(view.name, hard=True)
                outcome.append("rebooted")
            except exception.KVMDriverError as error:
                outcome.append(error)

        caller = threading.Thread(target=reboot)
        caller.start()
        time.sleep(3)
        self.assertTrue(guest.answers(), "guests do not care for brokers")
        self.rabbit.start()
        caller.join(120)
        self.assertEqual(["rebooted"], outcome)
        self.wait_for_console(view.name, "GUEST: up", 2)
        time.sleep(3)
        booted = self.api.get_console_output(view.name).count("GUEST: up")
        self.assertEqual(2, booted, "rebooted more than once")

    def test_a_dead_agent_is_noticed_in_seconds(self) -> None:
        self.service.kill()
        start = time.monotonic()
        with self.assertRaises(exception.AgentUnreachable) as caught:
            self.remote.list_instances()
        self.assertLess(time.monotonic() - start, 30)
        self.assertEqual("host", caught.exception.field)
        self.restart_agent()

    def test_stops_when_told(self) -> None:
        view = self.remote_create(nics=[], config_drive=None)
        self.assertEqual(0, self.service.stop())
        self.assertEqual("running", self.api.get_instance(view.name).status)
        self.restart_agent()
        self.assertEqual("running", self.remote.get_instance(view.name).status)
