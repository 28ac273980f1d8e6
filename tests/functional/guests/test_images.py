"""Images on their way into the cache, in it, and out of it again."""

import contextlib
import hashlib
import http.server
import os
import threading
from collections.abc import Callable

from kvmdriver import exception
from tests.functional.base import FunctionalTest, kvmdriver, kvmdriver_json, run

MIB = 1024 * 1024


def serve(
    test: FunctionalTest, answer: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> str:
    """Have a server answer every request so; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # the agent may end it
                answer(self)

        def log_message(self, *_args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}/image"


class SpaceTest(FunctionalTest):
    """Guests of the same file system must never see it full: 260 MiB, of which 100 stay free."""

    config = {"kvm_storage": {"reserved_disk_mib": 100}}

    def start_agent(self):
        os.mkdir(self.instances)
        run("mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", self.instances)
        self.addCleanup(run, "umount", self.instances)
        return super().start_agent()

    def refused_with_space_left(self, image: dict, mib: int = 99) -> exception.KVMDriverError:
        """The refusal of an image that is too large; so much must be free at any time."""
        stop, least = threading.Event(), [1 << 60]

        def look() -> None:
            while not stop.wait(0.001):
                status = os.statvfs(self.instances)
                least[0] = min(least[0], status.f_bavail * status.f_frsize)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            error = self.create_refused(
                exception.InsufficientResources,
                disks=[{"image": image}],
                nics=[],
                config_drive=None,
            )
        finally:
            stop.set()
            thread.join()
        self.assertGreaterEqual(least[0], mib * MIB, "the reserve was not kept")
        self.assertEqual([], os.listdir(os.path.join(self.instances, "_base")))
        return error

    def unfolding(self, image_format: str, *options: str) -> dict:
        """An image of a few MiB that unfolds to 400."""
        raw, path = os.path.join(self.state, "raw"), os.path.join(self.state, image_format)
        with open(raw, "wb") as file:
            for _ in range(400):
                file.write(b"\1" * MIB)
        run("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, path)
        os.unlink(raw)
        self.assertLess(os.path.getsize(path), 20 * MIB)
        return {"type": "file", "path": path}

    def test_a_body_without_end(self) -> None:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b"x" * MIB)

        url = serve(self, answer)
        self.refused_with_space_left({"type": "url", "url": url, "checksum": "sha256:" + "0" * 64})

    def test_a_length_that_does_not_fit(self) -> None:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(170 * MIB))
            handler.end_headers()

        url = serve(self, answer)
        error = self.refused_with_space_left(
            {"type": "url", "url": url, "checksum": "sha256:" + "0" * 64}
        )
        self.assertIn("170 MiB", error.message)

    def test_an_image_that_unfolds(self) -> None:
        self.refused_with_space_left(self.unfolding("qcow2", "-c"))
        # what a qcow2 image takes is known beforehand, what a VMDK takes is seen as it unfolds
        streamed = self.unfolding("vmdk", "-o", "subformat=streamOptimized")
        self.refused_with_space_left(streamed, 50)

    def test_a_raw_disk_of_a_fetched_image(self) -> None:
        data = b"\1" * 90 * MIB

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        image = {"type": "url", "url": serve(self, answer), "checksum": checksum}
        # the image fits into the cache, and its copy does not fit beside it
        error = self.create_refused(
            exception.InsufficientResources,
            disks=[{"image": image, "format": "raw"}],
            nics=[],
            config_drive=None,
        )
        self.assertIn("90 MiB are needed", error.message)


class CacheTest(FunctionalTest):
    def test_the_life_of_a_cached_image(self) -> None:
        path = os.path.join(self.state, "small.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
        made = self.create(
            disks=[{"image": {"type": "file", "path": path}}],
            nics=[],
            config_drive=None,
            start=False,
        )
        (row,) = kvmdriver_json("image", "cache", "list", state=self.state)
        self.assertEqual((8, [made.name]), (row["Size MiB"], row["Used by"]))
        cached = os.path.join(self.instances, "_base", row["Name"])
        self.assertEqual(0, os.stat(cached).st_mode & 0o007)
        done = kvmdriver("image", "cache", "prune", row["Name"], state=self.state, check=False)
        self.assertEqual(1, done.returncode)
        self.assertIn("code: image_in_use", done.stderr)
        self.assertIn(made.name, done.stderr)
        kvmdriver("image", "cache", "prune", "--unused", state=self.state)
        self.assertTrue(os.path.exists(cached))
        self.api.terminate_instance(made.name)
        done = kvmdriver("image", "cache", "prune", "--unused", state=self.state)
        self.assertEqual(f"{row['Name']}\n", done.stdout)
        self.assertEqual([], os.listdir(os.path.dirname(cached)))
        error = self.refused(exception.ImageNotFound, self.api.prune_image_cache, [row["Name"]])
        self.assertIn("image cache list", error.remedy)

    def test_tidied_when_an_image_is_added(self) -> None:
        self.agent._server.driver._context.conf.set_override("cache_unused_days", 1, "kvm_storage")
        for name in ("first", "second"):
            path = os.path.join(self.state, name)
            run("qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
            made = self.create(
                disks=[{"image": {"type": "file", "path": path}}],
                nics=[],
                config_drive=None,
                start=False,
            )
            self.api.terminate_instance(made.name)
            (cached,) = self.api.list_cached_images()
            os.utime(os.path.join(self.instances, "_base", cached.name), (0, 0))


class MisledTest(FunctionalTest):
    def test_a_redirect_to_metadata(self) -> None:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(302, "\x1b]0;OWNED\x07")
            handler.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            handler.end_headers()

        image = {"type": "url", "url": serve(self, answer), "checksum": "sha256:" + "0" * 64}
        error = self.create_refused(exception.ImageNotFound, disks=[{"image": image}])
        self.assertEqual("disks.0.image.url", error.field)
        self.assertIn("image_url_networks", error.remedy)

    def test_an_empty_kernel(self) -> None:
        path = os.path.join(self.state, "vmlinuz")
        with open(path, "wb"):
            pass
        error = self.create_refused(
            exception.ImageUnacceptable,
            boot={"kernel": {"type": "file", "path": path}},
            disks=[],
            config_drive=None,
        )
        self.assertEqual("boot.kernel.path", error.field)
