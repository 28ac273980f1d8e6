"""qemu-img, run with limits and with the format always named, its progress passed on."""

import dataclasses
import json
import os
import re
import select
import subprocess
import threading
from collections.abc import Callable
from typing import IO

from kvmdriver import exception
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import private
from kvmdriver.storage.copy import create_empty, remove_file

_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")

# glibc reserves 64 MiB of address space for each thread that allocates memory (mallopt(3)), which
# would make any limit of address space a matter of luck.
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "MALLOC_ARENA_MAX": "1",
}

# a damaged image gives thousands of lines
_MESSAGE = 300
_OUTPUT = 4096
_TELL_SECONDS = 1.0

# qemu-img spells two formats in its own way
_NAMES = {"vhd": "vpc", "iso": "raw"}


@dataclasses.dataclass(frozen=True)
class QemuImg:
    """Runs qemu-img under limits of address space (MiB) and CPU time (s), see prlimit(1)."""

    memory_mib: int = 4096
    cpu_seconds: int = 1800

    def create(
        self,
        path: str,
        image_format: str,
        *,
        size_mib: int | None = None,
        backing: str | None = None,
        backing_format: str | None = None,
    ) -> None:
        """Make an empty image, or an overlay over ``backing`` (whose size it takes by default).

        :raises kvmdriver.exception.StorageError: there is an entry of that name already.
        """
        command = ["create", "-q", "-f", image_format]
        if backing is not None:
            command += ["-b", backing, "-F", backing_format or "raw"]
        command.append(path)
        if size_mib is not None:
            command.append(f"{size_mib}M")
        self._create(command, path)

    def create_target(
        self,
        path: str,
        image_format: str,
        size: int,
        *,
        backing: str | None = None,
        backing_format: str = "raw",
    ) -> None:
        """Make an image of ``size`` bytes for QEMU to fill; ``backing`` may come later.

        :raises kvmdriver.exception.StorageError: there is an entry of that name already.
        """
        command = ["create", "-q", "-f", image_format]
        if backing is not None:
            command += ["-u", "-b", backing, "-F", backing_format]
        self._create([*command, path, str(size)], path)

    def rename_backing(self, path: str, backing: str) -> None:
        """Have an overlay of ours name its raw backing file by another path; nothing is copied."""
        self._run(["rebase", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path], path)

    def convert(
        self,
        source: str | int,
        source_format: str,
        target: str,
        target_format: str,
        *,
        stage: str = "convert image",
        progress: Progress = ignore,
        watch: Callable[[], float] | None = None,
    ) -> None:
        """Copy an image with all its backing files into one file, made or overwritten.

        :param source: its path, or the image if it is open.
        :param target: where others could put a link, make the file before: ``create_empty``.
        :param watch: called again and again until the end, each time after the seconds that it
            has returned; qemu-img is killed when it raises.
        """
        name = _NAMES.get(source_format, source_format)
        path, passed = _named(source)
        command = ["convert", "-p", "-f", name, "-O", target_format, path, target]
        self._run(command, target, stage, progress, passed=passed, watch=watch)

    def check(self, image: str | int, image_format: str) -> float:
        """Look for damage.

        :param image: its path, or the image if it is open.
        :returns: the part of the image that has content, from 0 to 1: a sparse copy cannot take
            more. 0 where the format does not tell.
        :raises kvmdriver.exception.ImageUnacceptable: the image is damaged or cut off.
        """
        path, passed = _named(image)
        command = ["check", "--output=json", "-f", _NAMES.get(image_format, image_format), path]
        try:
            found = json.loads(self._run(command, path, passed=passed))
        except exception.StorageError as error:
            raise exception.ImageUnacceptable(
                f"the image is damaged: {error.message}",
                remedy="get the image again, and give its checksum",
            ) from None
        return float(found.get("allocated-clusters", 0) / (found.get("total-clusters") or 1))

    def require_unused(self, path: str, image_format: str) -> None:
        """Make sure that no QEMU has an image open for writing, on this host or on another one.

        QEMU locks what it opens (qemu(1), file.locking), and file systems that hosts share tell.

        :raises kvmdriver.exception.StorageError: it is in use, or cannot be opened.
        """
        # opening it for reading alone asks for a lock that a writer does not grant
        self._run(["map", "-f", image_format, "--start-offset=0", "--max-length=1", path], path)

    def resize(self, path: str, image_format: str, size_mib: int) -> None:
        """Grow an image that no guest uses; shrinking is refused by qemu-img itself."""
        self._run(["resize", "-q", "-f", image_format, path, f"{size_mib}M"], path)

    def _create(self, arguments: list[str], path: str) -> None:
        # qemu-img would follow a link, and write over a file
        os.close(create_empty(path))
        try:
            self._run(arguments, path)
        except BaseException:
            remove_file(path)
            raise

    def _run(
        self,
        arguments: list[str],
        path: str,
        stage: str = "",
        progress: Progress = ignore,
        *,
        passed: tuple[int, ...] = (),
        watch: Callable[[], float] | None = None,
    ) -> bytes:
        command = [
            "prlimit",
            f"--as={self.memory_mib * 1024 * 1024}",
            f"--cpu={self.cpu_seconds}",
            "qemu-img",
            *arguments,
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                umask=private.UMASK,
                pass_fds=passed,
            )
        except FileNotFoundError as error:
            raise exception.StorageError(
                f"cannot run {error.filename}",
                remedy="install qemu-utils (qemu-img on RPM systems)",
            ) from None
        with process:
            output, problems = process.stdout, process.stderr
            assert output is not None and problems is not None  # noqa: S101 both are pipes
            errors: list[bytes] = []
            drain = threading.Thread(target=lambda: errors.append(problems.read()), daemon=True)
            drain.start()
            try:
                last = _follow(output, stage, progress, watch)
                status = process.wait()
            except BaseException:
                process.kill()
                raise
            drain.join()
        if status:
            raise _failure(arguments[0], status, b"".join(errors).decode(errors="replace"), path)
        return last


def _named(image: str | int) -> tuple[str, tuple[int, ...]]:
    """Return a name of an image that a child process can open, and the descriptors that it needs."""
    return (image, ()) if isinstance(image, str) else (f"/proc/self/fd/{image}", (image,))


def _follow(
    output: IO[bytes], stage: str, progress: Progress, watch: Callable[[], float] | None
) -> bytes:
    """Pass progress on until the process closes its output; the end of that output."""
    last, percent = b"", 0
    ready = select.poll()
    ready.register(output, select.POLLIN)
    while True:
        if not ready.poll((watch() if watch is not None else _TELL_SECONDS) * 1000):
            # there is no news, but progress may raise to end the work
            progress(stage, percent, 100, "percent")
            continue
        chunk = os.read(output.fileno(), _OUTPUT)
        if not chunk:
            return last
        last = (last + chunk)[-_OUTPUT:]
        found = _PERCENT.findall(last[-256:])
        if found:
            percent = int(float(found[-1]))
            progress(stage, percent, 100, "percent")


def _failure(verb: str, status: int, output: str, path: str) -> exception.KVMDriverError:
    text = " ".join(output[:_MESSAGE].split()) or f"exit status {status}"
    if "No space left" in text or "Disk quota" in text:
        return exception.InsufficientResources(
            f"the disk is full: qemu-img {verb} could not write {path}",
            remedy="free space in the file system of [kvm_storage] instances_path",
        )
    if status < 0 or "Cannot allocate memory" in text:
        text += "; it may have hit [kvm_storage] qemu_img_memory_mib or qemu_img_cpu_seconds"
    return exception.StorageError(f"qemu-img {verb}: {text}")
