"""Instances are what was asked for, as the guest itself sees it."""

import http.server
import os
import threading

from tests.functional.base import FunctionalTest, guest_file, public_key, run


class CreateTest(FunctionalTest):
    def test_everything_at_once(self) -> None:
        view = self.create(
            os_variant="debian11",
            memory={"current_mib": 192, "maximum_mib": 256},
            vcpus={"current": 1, "maximum": 2},
            cpu={
                "mode": "custom",
                "models": ["qemu64"],
                "features": [{"name": "sse4.1"}, {"name": "cx16", "policy": "disable"}],
                "topology": {"sockets": 1, "cores": 2, "threads": 1},
            },
            disks=[
                {
                    "image": {"type": "file", "path": guest_file("guest.qcow2")},
                    "size_mib": 300,
                    "cache": "unsafe",
                },
                {"size_mib": 64, "serial": "second", "discard": True},
                {"size_mib": 32, "bus": "scsi", "format": "raw"},
            ],
            nics=[
                {"type": "network", "source": "default", "mac": "52:54:00:aa:bb:01"},
                {"type": "user", "mac": "52:54:00:aa:bb:02"},
            ],
            config_drive={
                "hostname": "full-house.example",
                "ssh_keys": [public_key()],
                "user_data": "#!/bin/sh\necho from user data > /root/proof\n",
            },
            watchdog={"action": "pause"},
            autostart=True,
        )
        self.assertEqual("running", view.status)
        self.assertTrue(view.autostart)
        self.assertEqual(("debian11", "qemu"), (view.os_variant, view.virt_type))
        self.assertTrue(view.warnings, "192 MiB are less than Debian's minimum")
        guest = self.wait_for_ssh(view.name)
        self.assertEqual("full-house", guest.run("hostname"))
        self.assertEqual("from user data", guest.run("cat /root/proof"))
        self.assertEqual(1, guest.cpus())
        flags = guest.run("grep -m1 ^flags /proc/cpuinfo").split()
        self.assertIn("sse4_1", flags)
        self.assertNotIn("cx16", flags)
        self.assertTrue(130 < guest.memory_mib() <= 192, guest.memory_mib())
        disks = guest.disks_mib()
        self.assertEqual(300, disks["vda"])
        self.assertEqual(64, disks["vdb"])
        self.assertEqual(32, disks["sda"])
        self.assertEqual("second", guest.run("cat /sys/block/vdb/serial"))
        self.assertEqual({"52:54:00:aa:bb:01", "52:54:00:aa:bb:02"}, guest.macs())
        guest.run("grep -q virtio /sys/class/misc/hw_random/rng_available")
        # Intel's 6300ESB by its PCI id: the cloud kernel has no driver to show more
        guest.run("grep -q 0x25ab /sys/bus/pci/devices/*/device")

    def test_uefi(self) -> None:
        view = self.create(
            boot={"firmware": "uefi"},
            memory={"current_mib": 384},
            nics=[],
            consoles={"graphics": "none"},
        )
        self.assertEqual("uefi", view.firmware)
        output = self.wait_for_console(view.name, "GUEST: up")
        self.assertNotIn("SYSLINUX", output)
        self.assertTrue(os.path.exists(f"{self.instances}/{view.uuid}/nvram.fd"))

    def test_secure_boot(self) -> None:
        view = self.create(
            boot={"firmware": "uefi", "secure_boot": True},
            memory={"current_mib": 1024},
            consoles={"graphics": "none"},
        )
        guest = self.wait_for_ssh(view.name)
        self.assertIn("Secure boot enabled", guest.run("dmesg | grep -i 'secure boot'"))

    def test_kernel_and_initrd(self) -> None:
        view = self.create(
            boot={
                "kernel": {"type": "file", "path": guest_file("vmlinuz")},
                "initrd": {"type": "file", "path": guest_file("initrd.img")},
                "cmdline": "console=ttyS0 quiet tsc=unstable guest.from=kernel",
            },
            disks=[],
            nics=[],
            config_drive=None,
            machine="pc",
        )
        self.assertTrue(view.machine.startswith("pc-i440fx"), view.machine)
        output = self.wait_for_console(view.name, "GUEST: cmdline")
        self.assertIn("guest.from=kernel", output)

    def test_installer_with_a_blank_disk(self) -> None:
        view = self.create(
            disks=[
                {"size_mib": 200},
                {
                    "device": "cdrom",
                    "image": {"type": "file", "path": guest_file("installer.iso")},
                },
            ],
            nics=[],
            config_drive=None,
        )
        output = self.wait_for_console(view.name, "GUEST: disk vda")
        self.assertIn("guest.from=cd", output)
        self.assertIn(f"GUEST: disk vda {200 * 2048}", output)

    def test_image_from_a_url(self) -> None:
        checksum = "sha256:" + run("sha256sum", guest_file("guest.qcow2")).split()[0]
        base = self._serve(os.path.dirname(guest_file("x")))
        image = {"type": "url", "url": f"{base}/guest.qcow2", "checksum": checksum}
        first = self.create(disks=[{"image": image}], nics=[])
        # from the cache, with no server left
        self.server.shutdown()
        second = self.create(disks=[{"image": image, "format": "raw"}], nics=[])
        self.wait_for_console(first.name, "GUEST: up")
        self.wait_for_console(second.name, "GUEST: up")
        self.assertEqual(["qcow2", "raw"], [v.disks[0].format for v in (first, second)])

    def test_cpu_modes(self) -> None:
        for mode in ("host-model", "maximum", "none"):
            with self.subTest(mode):
                view = self.create(cpu={"mode": mode}, nics=[], config_drive=None)
                self.wait_for_console(view.name, "GUEST: up")
                self.assertEqual(mode, self.api.get_instance(view.name).cpu_mode)
                self.api.terminate_instance(view.uuid)

    def test_bridge_and_machine_pc(self) -> None:
        view = self.create(
            machine="pc",
            cpu={"mode": "none"},
            nics=[{"type": "bridge", "source": "virbr0", "model": "e1000"}],
            disks=[
                {"image": {"type": "file", "path": guest_file("guest.qcow2")}},
                {"device": "cdrom"},
            ],
        )
        self.assertEqual("e1000", view.nics[0].model)
        # the guest has no driver for the emulated Intel card, but its bridge port is there
        self.assertIn("master virbr0", run("ip", "link", "show", view.nics[0].tap))
        self.wait_for_console(view.name, "GUEST: up")

    def test_two_at_once_share_one_download(self) -> None:
        views = []
        threads = [
            threading.Thread(target=lambda: views.append(self.create(nics=[], config_drive=None)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(["running"] * 3, [view.status for view in views])
        self.assertEqual(1, len(os.listdir(f"{self.instances}/_base")))

    def _serve(self, directory: str) -> str:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object, **kwargs: object) -> None:
                super().__init__(*args, directory=directory, **kwargs)  # type: ignore[arg-type,misc]

            def log_message(self, *_args: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        return f"http://127.0.0.1:{self.server.server_port}"
