"""``openstack kvm ...`` in OpenStackClient's own shell: what it finds, whom it calls, what it refuses."""

import configparser
import json
import os
import pathlib
import tempfile
import unittest
from unittest import mock

from kvmdriver.agent.client import ComputeAPI
from kvmdriver.cli import connection
from kvmdriver.model import CheckView, NestedView
from kvmdriver.model.migration import MigrationView
from kvmdriver.osc import session
from tests.openstackclient import run

SETUP = pathlib.Path(__file__).parents[3] / "setup.cfg"
HOSTILE = "\x1b]0;OWNED\x07web"


def commands() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    lines = setup["entry_points"]["openstack.kvm.v1"].split("\n")
    return [line.partition(" = ")[0].replace("_", " ") for line in lines if line]


class HelpTest(unittest.TestCase):
    def test_openstack_lists_every_command(self) -> None:
        status, output, _ = run("kvm", "--help")
        self.assertEqual(0, status)
        self.assertEqual(
            sorted(commands()), sorted(line.strip() for line in output.splitlines()[1:])
        )

    def test_every_command_explains_itself(self) -> None:
        for command in commands():
            with self.subTest(command):
                status, output, _ = run(*command.split(), "--help")
                self.assertEqual(0, status)
                self.assertIn(f" {command} [-h]", output)
                self.assertIn("--host HOST", output)

    def test_what_every_openstack_command_loads_is_small(self) -> None:
        plugin = pathlib.Path(session.__file__).with_name("plugin.py").read_text()
        self.assertNotIn("import kvmdriver", plugin)
        self.assertNotIn("from kvmdriver", plugin)


class BusTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.config = os.path.join(directory.name, "kvmdriver.conf")
        with open(self.config, "w") as file:
            file.write("[DEFAULT]\ntransport_url = rabbit://u:p@127.0.0.1:1/\n")
            file.write("[kvm_agent]\nhost = here\n")
        patched = mock.patch.object(connection, "ComputeAPI", autospec=True)
        self.made = patched.start()
        self.addCleanup(patched.stop)
        self.client = self.made.return_value

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        return run("--kvm-config-file", self.config, "kvm", *arguments)

    def test_the_agent_of_the_named_host_is_called(self) -> None:
        self.client.check_host.return_value = [
            CheckView(name="QEMU", result="fail", found=HOSTILE, remedy="apt install qemu"),
        ]
        status, output, _ = self.run_command("host", "check", "--host", "compute1", "-f", "json")
        self.assertEqual(2, status, "a failed check is the exit status, as in kvmdriver")
        self.assertEqual("compute1", self.made.call_args.kwargs["host"])
        self.assertEqual(HOSTILE, json.loads(output)[0]["Found"])
        self.assertNotIn("\x1b", output)
        self.client.close.assert_called_once_with()

    def test_an_instance_of_an_agent(self) -> None:
        self.client.get_migration.return_value = MigrationView(
            id="m", instance="web", uuid="11111111-1111-4111-8111-111111111111", kind="live",
            source="compute1", destination="compute2", state="completed",
        )  # fmt: skip
        command = ("server", "migration", "watch", "web", "--host", "compute1")
        self.assertEqual((0, "completed\n"), self.run_command(*command)[:2])
        command = ("server", "migration", "set", "web", "--host", "compute1", "--downtime", "7")
        self.assertEqual(0, self.run_command(*command)[0])
        self.assertEqual(7, self.client.set_migration.call_args.args[1].downtime)

    def test_cpus_of_hosts(self) -> None:
        self.client.get_cpu.return_value = mock.Mock(definition="<cpu/>")
        self.client.baseline_cpu.return_value = "<cpu mode='custom'/>\n"
        status, output, _ = self.run_command("cpu", "baseline", "compute1", "compute2")
        self.assertEqual((0, "<cpu mode='custom'/>\n"), (status, output))
        asked = [call.kwargs["host"] for call in self.client.get_cpu.call_args_list]
        self.assertEqual(["compute1", "compute2"], asked)

    def test_what_lies_in_another_machine_is_refused(self) -> None:
        status, output, errors = self.run_command("host", "nested", "show", "--host", "compute1")
        self.assertEqual((1, ""), (status, output))
        self.assertIn("--host = compute1", errors)
        self.assertIn("remedy: run it on that host", errors)
        view = NestedView(
            vendor="AMD", cpu_flag=True, module=None, loaded=False, nested=None, kernel="6"
        )
        with mock.patch("kvmdriver.cli.host.NestedHost") as host:
            host.return_value.view.return_value = view
            self.assertEqual(0, self.run_command("host", "nested", "show", "--host", "here")[0])
        self.made.assert_not_called()

    def test_a_configuration_that_cannot_be_read(self) -> None:
        status, _, errors = run("--kvm-config-file", "/nonexistent/x", "kvm", "host", "show")
        self.assertEqual(1, status)
        self.assertIn("field: --kvm-config-file", errors)


class WithoutBusTest(unittest.TestCase):
    def test_nothing_is_done_on_this_machine_instead(self) -> None:
        with mock.patch.object(connection, "LocalAgent") as agent:
            for command in (
                ("host", "show"),
                ("host", "check"),
                ("cpu", "models"),
                ("server", "show", "web", "--host", "compute1"),
            ):
                with self.subTest(command):
                    status, output, errors = run("kvm", *command)
                    self.assertEqual((1, ""), (status, output))
                    self.assertIn("no message bus is configured", errors)
                    self.assertIn("transport_url", errors)
        agent.assert_not_called()

    def test_a_server_without_credentials(self) -> None:
        status, output, errors = run("kvm", "server", "show", "web")
        self.assertEqual((1, ""), (status, output))
        self.assertIn("Nova's API cannot be used", errors)
        self.assertIn("--os-cloud", errors)

    def test_the_methods_that_commands_call_are_those_of_the_client(self) -> None:
        own = {name for name in vars(session.NovaAPI) if not name.startswith("_")}
        self.assertLessEqual(own, set(dir(ComputeAPI)))
