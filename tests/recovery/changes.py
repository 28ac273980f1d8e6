"""Counts what a process changes in libvirt and in files, and kills it after a chosen change.

The functions of libvirt's binding and of the standard library are wrapped, so that the points are
found whichever part of the product makes the change: a libvirt function that is not known to only
read is taken for a change, and so is every file below the test's directories that is created,
renamed or removed, and every run of qemu-img that writes, at its start and at its end. Data that is
written into a file, modes and owners are no points of their own.
"""

import builtins
import functools
import io
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import libvirt
import libvirt_qemu

# Functions of libvirt that change no guest, no definition and no file.
READS = frozenset(
    (
        "ID",
        "UUIDString",
        "autostart",
        "baselineHypervisorCPU",
        "blockInfo",
        "blockJobInfo",
        "close",
        "compareHypervisorCPU",
        "connect",
        "domainEventDeregisterAny",
        "domainEventRegisterAny",
        "domainListGetStats",
        "getAllDomainStats",
        "getCPUMap",
        "getCPUStats",
        "getCapabilities",
        "getDomainCapabilities",
        "getHostname",
        "getInfo",
        "getLibVersion",
        "getVersion",
        "hasManagedSaveImage",
        "interfaceAddresses",
        "isActive",
        "isAlive",
        "isPersistent",
        "jobStats",
        "listAllDomains",
        "listAllNetworks",
        "lookupByName",
        "lookupByUUIDString",
        "name",
        "networkLookupByName",
        "newStream",
        "openConsole",
        "registerCloseCallback",
        "screenshot",
        "setKeepAlive",
        "state",
        "XMLDesc",
    )
)
# Verbs of qemu-img that write no file.
LOOKS = frozenset(("bench", "check", "compare", "info", "map", "measure"))

_PATH_FUNCTIONS = ("mkdir", "rmdir", "unlink", "remove", "truncate", "mknod", "mkfifo")
_PAIR_FUNCTIONS = ("rename", "replace", "link", "symlink")


class Changes:
    """The changes of this process, in order.

    :param directories: only files below these are counted.
    :param tell: called with the name of each change, right after it was made.
    """

    def __init__(self, directories: tuple[str, ...], tell: Callable[[str], None]):
        self._directories = tuple(f"{os.path.realpath(path)}/" for path in directories)
        self._tell = tell
        self._lock = threading.Lock()
        self._counting = False
        self._made = 0
        self._last: int | None = None

    def count(self, die_after: int | None = None) -> None:
        """Count from now on, and die right after the change of that number (the first is 1)."""
        self._made, self._last, self._counting = 0, die_after, True

    def stop(self) -> None:
        """Count no more."""
        self._counting = False

    def install(self) -> None:
        """Wrap everything that can change something, in this process and for good."""
        for owner in (libvirt.virConnect, libvirt.virDomain, libvirt.virNetwork):
            for name, function in list(vars(owner).items()):
                if callable(function) and not name.startswith("_") and name not in READS:
                    setattr(owner, name, self._libvirt(f"{owner.__name__}.{name}", function))
        command = libvirt_qemu.qemuMonitorCommand
        libvirt_qemu.qemuMonitorCommand = self._libvirt("qemuMonitorCommand", command)
        for name in _PATH_FUNCTIONS:
            setattr(os, name, self._path_function(name, getattr(os, name)))
        for name in _PAIR_FUNCTIONS:
            setattr(os, name, self._pair_function(name, getattr(os, name)))
        os.open = self._os_open(os.open)
        builtins.open = io.open = self._open(builtins.open)
        started, ended = subprocess.Popen.__init__, subprocess.Popen.wait
        subprocess.Popen.__init__ = self._started(started)  # type: ignore[method-assign]
        subprocess.Popen.wait = self._ended(ended)  # type: ignore[method-assign]

    def _changed(self, what: str) -> None:
        if not self._counting:
            return
        with self._lock:
            self._made += 1
            self._tell(what)
            if self._made == self._last:
                os.kill(os.getpid(), signal.SIGKILL)

    def _ours(self, path: Any, dir_fd: int | None = None) -> str | None:
        """A path as it is told, or None if the file is none of the test's."""
        if isinstance(path, int) or not self._counting:
            return None
        text = os.fsdecode(path)
        if dir_fd is not None and not os.path.isabs(text):
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        if text.startswith("/proc/self/fd/"):
            text = os.readlink(text)
        directory, name = os.path.split(os.path.abspath(text))
        text = os.path.join(os.path.realpath(directory), name)
        for known in self._directories:
            if text.startswith(known):
                return text[len(known) :]
        return None

    # One wrapper for each kind of function

    def _libvirt(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **named: Any) -> Any:
            answer = function(*args, **named)
            self._changed(name)
            return answer

        return wrapped

    def _path_function(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(path: Any, *args: Any, **named: Any) -> Any:
            ours = self._ours(path, named.get("dir_fd"))
            answer = function(path, *args, **named)
            if ours is not None:
                self._changed(f"{name} {ours}")
            return answer

        return wrapped

    def _pair_function(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(source: Any, target: Any, *args: Any, **named: Any) -> Any:
            answer = function(source, target, *args, **named)
            dir_fd = named.get("dst_dir_fd", named.get("dir_fd"))
            ours = self._ours(target, dir_fd)
            if ours is not None:
                self._changed(f"{name} to {ours}")
            return answer

        return wrapped

    def _os_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(path: Any, flags: int, *args: Any, **named: Any) -> Any:
            answer = function(path, flags, *args, **named)
            creates = flags & (os.O_CREAT | os.O_TRUNC) or flags & os.O_TMPFILE == os.O_TMPFILE
            ours = self._ours(path, named.get("dir_fd")) if creates else None
            if ours is not None:
                self._changed(f"create {ours}")
            return answer

        return wrapped

    def _open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(path: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            answer = function(path, mode, *args, **named)
            ours = self._ours(path) if set(mode) & set("wxa+") else None
            if ours is not None:
                self._changed(f"create {ours}")
            return answer

        return wrapped

    def _started(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(process: Any, *args: Any, **named: Any) -> None:
            function(process, *args, **named)
            verb = _writing_verb(process)
            if verb is not None:
                self._changed(f"start of qemu-img {verb}")

        return wrapped

    def _ended(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(process: Any, *args: Any, **named: Any) -> Any:
            before = process.returncode
            status = function(process, *args, **named)
            verb = _writing_verb(process)
            if before is None and verb is not None:
                self._changed(f"end of qemu-img {verb}")
            return status

        return wrapped


def _writing_verb(process: Any) -> str | None:
    """The verb of a qemu-img that writes; None for every other command."""
    command = process.args if isinstance(process.args, list | tuple) else [process.args]
    words = [os.path.basename(os.fsdecode(word)) for word in command]
    if "qemu-img" not in words:
        return None
    verb = words[words.index("qemu-img") + 1]
    return None if verb in LOOKS else verb
