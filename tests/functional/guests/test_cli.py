"""The command line as a user types it: results, tables, errors and exit status."""

import json
import os
import subprocess
import sys
import tempfile

from tests.functional.base import (
    FunctionalTest,
    Guest,
    guest_file,
    kvmdriver,
    kvmdriver_json,
    run,
)


class CommandLineTest(FunctionalTest):
    def run_json(self, *arguments: str) -> object:
        return kvmdriver_json(*arguments, state=self.state)

    def run_text(self, *arguments: str) -> str:
        return kvmdriver(*arguments, state=self.state).stdout

    def test_the_life_of_a_server(self) -> None:
        name, clone = self.name(), self.name("-clone")
        shown = self.run_json(
            "server", "create", name, "--image", guest_file("guest.qcow2"), "--memory", "192:256",
            "--vcpus", "1:2", "--os", "debian11", "--network", "default", "--hostname", "cli",
            "--ssh-key", guest_file("id_ed25519.pub"), "--wait",
        )  # fmt: skip
        self.made.add(shown["uuid"])
        guest = Guest(shown["addresses"][0])
        self.assertEqual("cli", guest.run("hostname"))
        guest.run("echo kept > /root/file; sync")
        row = self.row(name)
        self.assertEqual(("running", 1, "debian11"), (row["Status"], row["vCPUs"], row["OS"]))
        self.assertEqual(shown["addresses"], row["Addresses"])
        before = guest.uptime()
        self.run_text("server", "suspend", name)
        self.assertEqual("suspended", self.row(name)["Status"])
        self.run_text("server", "resume", name)
        self.assertGreater(guest.uptime(), before)
        self.assertEqual(2, self.run_json("server", "set", "vcpus", name, "2")["current"])
        self.run_text("server", "reboot", name)
        self.wait_for_console(name, "GUEST: up", 2)
        self.assertIn("GUEST: down", self.run_text("server", "console", "log", name))
        self.run_text("server", "stop", name)
        self.assertEqual("stopped", self.row(name)["Status"])
        copied = self.run_json("server", "clone", name, clone)
        self.made.add(copied["uuid"])
        self.run_text("server", "autostart", clone, "on")
        self.run_text("server", "start", clone)
        self.assertEqual("kept", self.wait_for_ssh(clone).run("cat /root/file"))
        self.assertTrue(self.row(clone)["Autostart"])
        picture = os.path.join(self.state, "screen.png")
        self.run_text("server", "screenshot", clone, picture)
        with open(picture, "rb") as png:
            self.assertEqual(b"\x89PNG", png.read(4))
        self.assertTrue(self.run_text("server", "vnc", clone).startswith("vnc://127.0.0.1:59"))
        self.run_text("server", "delete", name, clone)
        self.assertEqual([], self.run_json("server", "list"))

    def row(self, name: str) -> dict:
        return {row["Name"]: row for row in self.run_json("server", "list")}[name]

    def test_errors(self) -> None:
        for arguments, words in (
            (("server", "show", "nobody"), ("instance_not_found", "remedy")),
            (
                ("server", "create", "x", "--image", "/nonexistent"),
                ("image_not_found", "disks.0.image.path"),
            ),
            (("server", "create", "a/b", "--image", "x"), ("invalid_request", "name = a/b")),
            (("server", "create", "x"), ("disks", "invalid_request")),
            (
                ("server", "create", "x", "--image", guest_file("guest.qcow2"), "--os", "debain"),
                ("os_variant", "did you mean"),
            ),
            (("--config-file", "/nonexistent", "host", "show"), ("configuration_error",)),
        ):
            done = kvmdriver(*arguments, state=self.state, check=False)
            self.assertEqual(1, done.returncode, arguments)
            self.assertEqual("", done.stdout)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        done = kvmdriver(
            "server", "create", "x", "--memory", "lots", state=self.state, check=False
        )
        self.assertEqual(2, done.returncode)
        self.assertIn("memory size", done.stderr)

    def test_formats(self) -> None:
        rows = json.loads(self.run_text("os", "list", "ubuntu18", "-f", "json"))
        self.assertIn("ubuntu18.04", [row["ID"] for row in rows])
        self.assertIn('"ubuntu18.04"', self.run_text("os", "list", "ubuntu18.04", "-f", "csv"))
        self.assertIn("ID: ubuntu18.04", self.run_text("os", "list", "ubuntu18.04", "-f", "yaml"))
        self.assertIn("| ubuntu18.04", self.run_text("os", "list", "ubuntu18.04"))
        self.assertEqual("QEMU", self.run_json("host", "show")["hypervisor"])
        self.assertIn("server", self.run_text("complete"))

    def test_cpus_and_the_host(self) -> None:
        host = self.run_json("cpu", "show")
        self.assertIn("svm", host["flags"])
        self.assertEqual(("svm", True), (host["nested_flag"], host["nested_granted"]))
        models = {m["Name"]: m for m in json.loads(self.run_text("cpu", "models", "-f", "json"))}
        self.assertTrue(models["Westmere"]["Usable"])
        self.assertIn("avx512f", models["Skylake-Server"]["Missing"])
        directory = tempfile.mkdtemp(dir=self.state)
        mine, found = f"{directory}/mine.xml", f"{directory}/cpu.xml"
        with open(mine, "w") as file:
            file.write(run("virsh", "domcapabilities", "--virttype", "qemu"))
        self.run_text("cpu", "baseline", mine, "qemu:///system", "--output", found)
        self.assertEqual("identical", self.run_json("cpu", "compare", "--with", mine)["result"])
        self.assertNotEqual(
            "incompatible", self.run_json("cpu", "compare", "--with", found)["result"]
        )
        done = kvmdriver("cpu", "baseline", "elsewhere", state=self.state, check=False)
        self.assertEqual(1, done.returncode)
        self.assertIn("transport_url", done.stderr)
        lines = {line["Check"]: line for line in json.loads(self.run_text("doctor", "-f", "json"))}
        for name in ("libvirt", "QEMU", "network", "CPU model", "tools"):
            self.assertEqual("pass", lines[name]["Result"], lines[name])
        # neither is there in a laboratory
        self.assertEqual("warn", lines["/dev/kvm"]["Result"])
        self.assertIn("/etc/pki/qemu", lines["TLS"]["Found"])
        self.assertIn("vendor", self.run_json("host", "nested", "show"))

    def test_the_doctor_names_what_is_wrong(self) -> None:
        config = os.path.join(tempfile.mkdtemp(dir=self.state), "kvmdriver.conf")
        with open(config, "w") as file:
            file.write("[kvm]\nvirt_type = kvm\nuri = qemu+unix:///system?socket=/nowhere\n")
        done = self._plain("kvmdriver", config, "doctor", "-f", "json")
        self.assertEqual(2, done.returncode, done.stderr)
        lines = {line["Check"]: line for line in json.loads(done.stdout)}
        self.assertEqual("fail", lines["libvirt"]["Result"])
        self.assertIn("libvirtd", lines["libvirt"]["Remedy"])
        self.assertEqual("fail", lines["/dev/kvm"]["Result"])
        self.assertIn("chgrp kvm", lines["/dev/kvm"]["Remedy"])
        done = self._plain("kvmdriver-status", config, "upgrade", "check")
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn("Failure", done.stdout)

    @staticmethod
    def _plain(program: str, config: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """With a configuration file only."""
        path = os.path.join(os.path.dirname(sys.executable), program)
        return subprocess.run(
            [path, "--config-file", config, *arguments], capture_output=True, text=True
        )
