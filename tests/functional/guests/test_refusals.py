"""What must be refused, before anything is changed: each with a field and a remedy."""

import http.server
import os
import subprocess
import threading

from kvmdriver import exception
from kvmdriver.host.memory import total_and_available_mib
from tests.functional.base import FunctionalTest, guest_file, run


class RefusalsTest(FunctionalTest):
    def image(self, name: str, *create: str) -> dict:
        path = os.path.join(self.state, name)
        if create:
            run("qemu-img", "create", "-q", *create, path)
        return {"type": "file", "path": path}

    def test_networks(self) -> None:
        error = self.create_refused(
            exception.NetworkNotFound, nics=[{"type": "network", "source": "nowhere"}]
        )
        self.assertEqual(("nics.0.source", "nowhere"), (error.field, error.value))
        self.assertIn("default", error.remedy)
        error = self.create_refused(
            exception.NetworkNotFound, nics=[{"type": "bridge", "source": "lo"}]
        )
        self.assertIn("ip link add", error.remedy)
        xml = os.path.join(self.state, "net.xml")
        with open(xml, "w") as network:
            network.write("<network><name>idle</name><bridge name='idle0'/></network>")
        run("virsh", "-q", "net-define", xml)
        self.addCleanup(run, "virsh", "-q", "net-undefine", "idle")
        error = self.create_refused(
            exception.NetworkNotFound, nics=[{"type": "network", "source": "idle"}]
        )
        self.assertIn("net-start idle", error.remedy)

    def test_more_than_the_host_has(self) -> None:
        total = total_and_available_mib()[0]
        error = self.create_refused(
            exception.InsufficientResources, memory={"current_mib": 64, "maximum_mib": total + 1}
        )
        self.assertEqual("memory.maximum_mib", error.field)
        error = self.create_refused(
            exception.InsufficientResources, machine="pc", vcpus={"current": 280}
        )
        self.assertEqual("vcpus.maximum", error.field)

    def test_what_the_host_cannot_do(self) -> None:
        error = self.create_refused(exception.Unsupported, virt_type="kvm")
        self.assertEqual(("virt_type", "kvm"), (error.field, error.value))
        self.assertIn("fallback_to_qemu", error.remedy)
        error = self.create_refused(exception.Unsupported, cpu={"mode": "host-passthrough"})
        self.assertEqual("cpu.mode", error.field)
        error = self.create_refused(
            exception.Unsupported, cpu={"mode": "custom", "models": ["NoSuchCpu"]}
        )
        self.assertEqual("cpu.models", error.field)
        error = self.create_refused(exception.Unsupported, machine="z15")
        self.assertEqual("machine", error.field)
        error = self.create_refused(exception.InvalidRequest, os_variant="debain11")
        self.assertIn("debian11", error.remedy)
        error = self.create_refused(
            exception.Unsupported, disks=[{"size_mib": 5, "bus": "ide"}], machine="q35"
        )
        self.assertEqual("disks.0.bus", error.field)

    def test_images(self) -> None:
        small = self.image("small.qcow2")["path"]
        run("qemu-img", "create", "-q", "-f", "qcow2", small, "64M")
        missing = self.image("missing")
        with open(guest_file("guest.qcow2"), "rb") as whole:
            data = whole.read(3_000_000)
        with open(os.path.join(self.state, "cut.qcow2"), "wb") as cut:
            cut.write(data)
        for image, kind, words in (
            (missing, exception.ImageNotFound, "cannot read"),
            ({"type": "file", "path": self.state}, exception.ImageUnacceptable, "regular"),
            ({"type": "file", "path": "/dev/zero"}, exception.ImageUnacceptable, "regular"),
            (self.image("cut.qcow2"), exception.ImageUnacceptable, "damaged"),
            (
                self.image("backed", "-f", "qcow2", "-b", small, "-F", "qcow2"),
                exception.ImageUnacceptable,
                "backing_file",
            ),
            (
                self._data_file_image(),
                exception.ImageUnacceptable,
                "data_file",
            ),
            (
                self._descriptor(),
                exception.ImageUnacceptable,
                "descriptor",
            ),
            (
                {"type": "file", "path": small, "format": "raw"},
                exception.ImageUnacceptable,
                "declared",
            ),
            (self._bomb(), exception.ImageUnacceptable, "unfolds"),
            (
                {"type": "file", "path": small, "checksum": "sha256:" + "0" * 64},
                exception.ImageUnacceptable,
                "checksum",
            ),
        ):
            with self.subTest(words):
                error = self.create_refused(kind, disks=[{"image": image}])
                self.assertIn(words, error.message)
                self.assertTrue(error.field.startswith("disks.0.image"), error.field)
        error = self.create_refused(
            exception.InvalidRequest,
            disks=[{"image": {"type": "file", "path": small}, "size_mib": 8}],
        )
        self.assertEqual("disks.0.size_mib", error.field)
        error = self.create_refused(
            exception.ImageNotFound, boot={"kernel": missing}, disks=[], config_drive=None
        )
        self.assertEqual("boot.kernel.path", error.field)
        error = self.create_refused(
            exception.InvalidRequest,
            disks=[{"size_mib": 5, "file": {"path": small, "format": "raw"}}],
        )
        self.assertEqual("disks.0.file", error.field)

    def _data_file_image(self) -> dict:
        path = os.path.join(self.state, "outside.raw")
        return self.image("data", "-f", "qcow2", "-o", f"size=64M,data_file={path}")

    def _descriptor(self) -> dict:
        path = os.path.join(self.state, "flat.vmdk")
        run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "8M")
        return {"type": "file", "path": path}

    def _bomb(self) -> dict:
        path = os.path.join(self.state, "bomb")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "30T")
        return {"type": "file", "path": path}

    def test_urls(self) -> None:
        class Refusing(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/huge":
                    self.send_response(200)
                    self.send_header("Content-Length", str(10**15))
                    self.end_headers()
                elif self.path == "/other":
                    self.send_response(200)
                    self.send_header("Content-Length", "4")
                    self.end_headers()
                    self.wfile.write(b"evil")
                elif self.path == "/redirect":
                    self.send_response(302)
                    self.send_header("Location", "file:///etc/passwd")
                    self.end_headers()
                else:
                    self.send_error(404)

            def log_message(self, *_args: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        base = f"http://127.0.0.1:{server.server_port}"
        for url, kind in (
            (f"{base}/missing", exception.ImageNotFound),
            (f"{base}/huge", exception.ImageUnacceptable),
            (f"{base}/other", exception.ImageUnacceptable),
            (f"{base}/redirect", exception.ImageNotFound),
            ("http://127.0.0.1:1/closed", exception.ImageNotFound),
        ):
            image = {"type": "url", "url": url, "checksum": "sha256:" + "0" * 64}
            with self.subTest(url):
                error = self.create_refused(kind, disks=[{"image": image}])
                self.assertTrue(error.field.startswith("disks.0.image"), error.field)

    def test_duplicates_and_redelivery(self) -> None:
        request = self.request(nics=[], config_drive=None)
        self.made.add(request.uuid)
        first = self.api.build_and_run_instance(request, start=False)
        again = self.api.build_and_run_instance(request, start=False)
        self.assertEqual(first, again)
        same_uuid = request.changed(name=self.name("-other"))
        error = self.refused(exception.InstanceExists, self.api.build_and_run_instance, same_uuid)
        self.assertEqual("uuid", error.field)
        same_name = self.request(name=request.name, nics=[])
        error = self.refused(exception.InstanceExists, self.api.build_and_run_instance, same_name)
        self.assertEqual("name", error.field)
        self.assertEqual(1, len(self.api.list_instances()))

    def test_names_that_are_uuids(self) -> None:
        named = self.create(disks=[{"size_mib": 4}], nics=[], config_drive=None, start=False)
        other = self.create(disks=[{"size_mib": 4}], nics=[], config_drive=None, start=False)
        for taken in (other.uuid, other.uuid.replace("-", ""), other.uuid.upper()):
            request = self.request(name=taken)
            error = self.refused(
                exception.InvalidRequest, self.api.build_and_run_instance, request
            )
            self.assertEqual("name", error.field)
            for call in (self.api.rename_instance, self.api.clone_instance):
                error = self.refused(exception.InvalidRequest, call, named.uuid, taken)
                self.assertEqual("name", error.field)
        # one that got such a name elsewhere, or before names were checked
        name = other.uuid.replace("-", "")
        run("virsh", "-q", "domrename", named.name, name)
        self.assertEqual(other.name, self.api.get_instance(name).name)
        for _delivered_twice in range(2):
            self.api.terminate_instance(name)
            self.assertEqual([named.uuid], [view.uuid for view in self.api.list_instances()])
        self.refused(
            exception.InstanceNotFound, self.api.terminate_instance, name, if_exists=False
        )
        self.api.terminate_instance(named.uuid, if_exists=False)
        self.assertEqual([], self.api.list_instances())

    def test_somebody_elses_domain_is_left_alone(self) -> None:
        xml = os.path.join(self.state, "foreign.xml")
        name = self.name()
        with open(xml, "w") as domain:
            domain.write(
                f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
                "<os><type machine='pc'>hvm</type></os></domain>"
            )
        run("virsh", "-q", "define", xml)
        self.addCleanup(run, "virsh", "-q", "undefine", name)
        for call in (
            self.api.start_instance,
            self.api.terminate_instance,
            self.api.get_instance,
            self.api.suspend_instance,
        ):
            error = self.refused(exception.InstanceNotFound, call, name)
            self.assertIn("virsh", error.remedy)
        self.create_refused(exception.InstanceExists, name=name)
        self.assertEqual([], self.api.list_instances())

    def test_unknown_instances(self) -> None:
        for call in (
            self.api.start_instance,
            self.api.stop_instance,
            self.api.reboot_instance,
            self.api.get_console_output,
            self.api.get_diagnostics,
        ):
            self.refused(exception.InstanceNotFound, call, "nobody")
            self.refused(exception.InstanceNotFound, call, "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44")
        self.assertEqual((), self.api.terminate_instance("nobody"))


class FullDiskTest(FunctionalTest):
    def test_a_full_disk(self) -> None:
        os.makedirs(self.instances, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", self.instances], check=True
        )
        self.addCleanup(subprocess.run, ["umount", "-l", self.instances], check=True)
        # refused before anything is written: the image alone is larger than what is free
        error = self.create_refused(
            exception.InsufficientResources,
            disks=[
                {"image": {"type": "file", "path": guest_file("guest.qcow2")}, "format": "raw"}
            ],
        )
        self.assertEqual("kvm_storage.instances_path", error.field)
        # its size does not tell: a small file that unfolds to more than there is
        path = os.path.join(self.state, "dense.qcow2")
        raw = os.path.join(self.state, "dense.raw")
        with open(raw, "wb") as dense:
            dense.write(b"\1" * (60 << 20))
        run("qemu-img", "convert", "-c", "-O", "qcow2", raw, path)
        request = self.request(
            disks=[{"image": {"type": "file", "path": path}}], nics=[], config_drive=None
        )
        self.made.add(request.uuid)
        error = self.refused(
            exception.InsufficientResources, self.api.build_and_run_instance, request
        )
        self.assertIn("needs 60 MiB more on disk", error.message)
        self.assert_nothing_left()
        # and a snapshot that does not fit
        view = self.create(disks=[{"size_mib": 4}], nics=[], config_drive=None, start=False)
        error = self.refused(
            exception.InvalidRequest,
            self.api.snapshot_instance,
            view.name,
            os.path.join(self.instances, "nowhere", "x"),
        )
        self.assertEqual("path", error.field)


class BrokenQemuTest(FunctionalTest):
    def test_qemu_that_fails_to_start(self) -> None:
        # a disk image that was damaged while the instance was off
        view = self.create(start=False, nics=[], config_drive=None)
        os.truncate(view.disks[0].path, 100)
        error = self.refused(exception.HypervisorError, self.api.start_instance, view.name)
        self.assertEqual(view.name, error.instance)
        self.assertEqual("stopped", self.api.get_instance(view.name).status)

    def test_nothing_is_left_of_an_instance_that_cannot_start(self) -> None:
        # the port of a VNC server on an address that this host does not have
        self.agent._server.driver._context.conf.set_override("listen", "192.0.2.77", "kvm_console")
        mac = "52:54:00:77:a1:01"
        request = self.request(nics=[{"type": "network", "source": "default", "mac": mac}])
        self.made.add(request.uuid)
        self.refused(exception.HypervisorError, self.api.build_and_run_instance, request)
        self.assert_nothing_left()
        # libvirt gives a TAP device the address of the interface, beginning with fe
        self.assertNotIn(mac[2:], run("ip", "-br", "link"))


class RestrictedAgentTest(FunctionalTest):
    """An agent on the bus may not be used to read or write the host's other files."""

    def start_agent(self):  # type: ignore[no-untyped-def]
        agent = super().start_agent()
        allowed = os.path.join(self.state, "images")
        os.makedirs(allowed)
        agent._server.driver._context.images._allowed = (allowed,)
        return agent

    def test_paths(self) -> None:
        link = os.path.join(self.state, "images", "link")
        os.symlink("/etc/shadow", link)
        for path in ("/etc/shadow", link, guest_file("guest.qcow2")):
            error = self.create_refused(
                exception.ImageNotFound, disks=[{"image": {"type": "file", "path": path}}]
            )
            self.assertIn("image_directories", error.remedy)
        view = self.create(disks=[{"size_mib": 4}], nics=[], config_drive=None, start=False)
        error = self.refused(
            exception.ImageNotFound, self.api.snapshot_instance, view.name, "/etc/cron.d/evil"
        )
        inside = os.path.join(self.state, "images", "good.qcow2")
        self.assertEqual(inside, self.api.snapshot_instance(view.name, inside))
