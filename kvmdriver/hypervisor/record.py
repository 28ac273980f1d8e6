"""What the driver remembers of an instance: an element in the domain's metadata.

libvirt is the database. The element holds the instance as JSON, the digest of the request that
made it, the task under way, if any, with what it changes, and the last requests that must not be
carried out twice.
"""

import contextlib
import enum
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from lxml import etree
from oslo_utils import uuidutils
from pydantic import Field

from kvmdriver import exception
from kvmdriver.model import Instance, Migration
from kvmdriver.model.base import Model

NAMESPACE = "https://kvmdriver.org/instance/1.0"
PREFIX = "kvmdriver"
_REMEMBERED_REQUESTS = 8


class Owner(Model):
    """The process that works on a task; lets others tell a dead one's leftovers from live work."""

    boot_id: str
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Owner | None":
        """Identify a process of this host, or None where there is none."""
        try:
            with open("/proc/sys/kernel/random/boot_id") as boot:
                boot_id = boot.read().strip()
            with open(f"/proc/{pid}/stat") as stat:
                # proc(5): field 22 is starttime; the command in field 2 may contain blanks
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] == "Z":
            return None
        return cls(boot_id=boot_id, pid=pid, started=int(fields[19]))

    @classmethod
    def current(cls) -> "Owner":
        owner = cls.of(os.getpid())
        assert owner is not None  # noqa: S101 a process that asks is there
        return owner

    def is_alive(self) -> bool:
        return Owner.of(self.pid) == self


class TaskName(enum.StrEnum):
    """What can be under way with an instance, by the words that records keep."""

    CREATE = "create"
    DELETE = "delete"
    EVACUATE = "evacuate"
    INCOMING = "immigrate"
    OUTGOING = "migrate"
    ATTACH = "attach"
    DETACH = "detach"
    RENAME = "rename"
    MEMORY = "set-memory"
    VCPUS = "set-vcpus"
    AUTOSTART = "set-autostart"
    MOVE_DISK = "move-disk"
    SNAPSHOT = "snapshot"
    REBOOT = "reboot"


# Those that make an instance, or its copy on this host.
_BUILDING = frozenset({TaskName.CREATE, TaskName.EVACUATE, TaskName.INCOMING})


class Task(Model):
    """An operation under way: what it is about to change, written down before it changes it.

    A process that dies, or that loses libvirt, leaves the task. The mending finds out what
    libvirt has, and brings the instance to one of two states: done, or not done.
    """

    name: str
    owner: Owner
    id: str | None = None
    """The operation itself; None in records of versions that did not know it."""
    request_id: str | None = None
    answer: str | None = None
    """What the request is answered with once it is done."""
    files: tuple[str, ...] = ()
    """Files that it makes, which go if it is not done; files that stay, for a delete."""
    removes: tuple[str, ...] = ()
    """Files that go once it is done."""
    publishes: str | None = None
    """The file whose appearance means that it is done."""
    run: int | None = None
    """The run of the guest that it ends (``Domain.started_as``)."""
    boot_id: str | None = None
    """The run of the host in which it began."""
    migration: Migration | None = None
    wanted: Instance | None = Field(None, exclude=True)
    """The instance once it is done; None where it stays as it is. An element of its own."""

    @classmethod
    def begin(cls, name: TaskName, request_id: str | None = None, **fields: Any) -> "Task":
        """Return a new task of this process, to be worked on within ``RUNNING.hold``."""
        return cls(
            name=name,
            owner=Owner.current(),
            id=uuidutils.generate_uuid(),
            request_id=request_id,
            **fields,
        )

    def is_dead(self) -> bool:
        """Whether nobody works on it any more."""
        return is_dead(self, Owner.current(), RUNNING, self.owner.is_alive())


class RunningTasks:
    """The tasks that threads of this process really work on. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: set[str] = set()

    @contextlib.contextmanager
    def hold(self, task: Task) -> Iterator[None]:
        """Work on a task in the body; however the body ends, nobody works on the task afterwards."""
        assert task.id is not None  # noqa: S101 Task.begin gives one
        with self._lock:
            self._ids.add(task.id)
        try:
            yield
        finally:
            with self._lock:
                self._ids.discard(task.id)

    def __contains__(self, identity: object) -> bool:
        with self._lock:
            return identity in self._ids


# Of the process, as an owner is: several drivers may be in one.
RUNNING = RunningTasks()


def is_dead(task: Task, current: Owner, running: RunningTasks, owner_is_alive: bool) -> bool:
    """Return whether a task has been left: by a process that died, or by an operation that failed.

    A migration is never dead: its end depends on another host, and has its own recovery.
    """
    if task.migration is not None:
        return False
    if task.owner == current:
        return task.id not in running
    return not owner_is_alive


class DoneRequest(Model):
    """A request that has been carried out, bound to what it asked for.

    Operations know a request by its reference, ``ID:DIGEST``: an ID has no colon. Requests of
    callers that give no digest, and of older versions, are known by their ID alone.
    """

    id: str
    digest: str | None = None
    answer: str | None = None

    @classmethod
    def of(cls, reference: str, answer: str | None = None) -> "DoneRequest":
        identity, _colon, digest = reference.partition(":")
        return cls(id=identity, digest=digest or None, answer=answer)

    @property
    def reference(self) -> str:
        return f"{self.id}:{self.digest}" if self.digest else self.id


class Record(Model):
    """All that is kept in the metadata of one domain."""

    instance: Instance
    root: str
    """The directory of instances below which its files are."""
    digest: str | None = None
    task: Task | None = None
    requests: tuple[DoneRequest, ...] = Field((), description="finished requests, oldest first")
    came_by: str | None = None
    """The migration by which the instance came here."""
    evacuated_from: tuple[str, ...] = ()
    """Hosts that had the instance, died, and do not know yet that it is not theirs any more."""

    @property
    def building(self) -> str | None:
        """The operation that is making the instance, by its identifier; None once it is whole."""
        task = self.task
        if task is None or task.name not in _BUILDING:
            return None
        # records of versions that gave an operation no identifier own no directory
        return (task.migration.id if task.migration is not None else task.id) or "unknown"

    def done(self, reference: str | None) -> DoneRequest | None:
        """Return the request of that reference, if it has been carried out.

        :raises kvmdriver.exception.RequestConflict: the request of that ID asked for something else.
        """
        if reference is None:
            return None
        asked = DoneRequest.of(reference)
        found = next((request for request in self.requests if request.id == asked.id), None)
        digests = {found.digest, asked.digest} - {None} if found is not None else set()
        if len(digests) > 1:
            raise exception.RequestConflict.of(asked.id, self.instance.uuid)
        return found

    def with_request(self, reference: str | None, answer: str | None = None) -> "Record":
        """Return the record with one more request remembered as done."""
        if reference is None or self.done(reference) is not None:
            return self
        request = DoneRequest.of(reference, answer)
        return self.changed(requests=(*self.requests, request)[-_REMEMBERED_REQUESTS:])

    def to_element(self, *, bare: bool = False) -> etree._Element:
        """Return the element that libvirt keeps below ``<metadata>``.

        :param bare: without the namespace, as virDomainSetMetadata wants it, which adds its own.
        """
        space = "" if bare else f"{{{NAMESPACE}}}"
        root = etree.Element(f"{space}instance", nsmap=None if bare else {PREFIX: NAMESPACE})
        root.set("version", "1")

        def add(tag: str, text: str | None, **attributes: str) -> None:
            if text is None and not attributes:
                return
            child = etree.SubElement(root, f"{space}{tag}", attributes)
            child.text = text

        add("spec", self.instance.record_json())
        add("root", self.root)
        add("digest", self.digest)
        add("came_by", self.came_by)
        if self.task is not None:
            add("task", self.task.model_dump_json(exclude_none=True))
            if self.task.wanted is not None:
                add("wanted", self.task.wanted.record_json())
        for request in self.requests:
            add("request", None, **request.model_dump(exclude_none=True))
        for host in self.evacuated_from:
            add("evacuated_from", None, host=host)
        return root

    @classmethod
    def from_element(cls, root: etree._Element) -> "Record":
        """Read back what ``to_element`` wrote.

        :raises ValueError: the element is not one of ours (pydantic's errors are ValueErrors).
        """

        def text(tag: str) -> str | None:
            return root.findtext(f"{{{NAMESPACE}}}{tag}")

        def attributes(tag: str, name: str) -> tuple[str, ...]:
            return tuple(found.get(name, "") for found in root.iterfind(f"{{{NAMESPACE}}}{tag}"))

        spec = text("spec")
        if spec is None:
            raise ValueError("the metadata has no spec")
        task = text("task")
        wanted = text("wanted")
        data: dict[str, Any] = {
            "instance": Instance.model_validate_json(spec),
            "root": text("root"),
            "digest": text("digest"),
            "came_by": text("came_by"),
            "task": Task.model_validate(
                {
                    **json.loads(task),
                    "wanted": Instance.model_validate_json(wanted) if wanted else None,
                }
            )
            if task
            else None,
            "requests": tuple(
                DoneRequest.model_validate(dict(found.attrib))
                for found in root.iterfind(f"{{{NAMESPACE}}}request")
            ),
            "evacuated_from": attributes("evacuated_from", "host"),
        }
        return cls.model_validate(data)
