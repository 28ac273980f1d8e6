"""What the driver remembers of an instance: an element in the domain's metadata.

libvirt is the database. The element holds the instance as JSON, the digest of the request that
made it, the task under way, if any, with what it has created so far, and the identifiers of the
last requests that must not be carried out twice.
"""

import os
from typing import Any

from lxml import etree
from pydantic import Field

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


class Task(Model):
    """An operation under way. ``files``: what it makes and what must go if it does not finish."""

    name: str
    owner: Owner
    request_id: str | None = None
    files: tuple[str, ...] = ()
    migration: Migration | None = None


class Record(Model):
    """All that is kept in the metadata of one domain."""

    instance: Instance
    root: str
    """The directory of instances below which its files are."""
    digest: str | None = None
    task: Task | None = None
    requests: tuple[str, ...] = Field((), description="finished requests, oldest first")
    came_by: str | None = None
    """The migration by which the instance came here."""
    evacuated_from: tuple[str, ...] = ()
    """Hosts that had the instance, died, and do not know yet that it is not theirs any more."""

    def with_request(self, request_id: str | None) -> "Record":
        """This record, with one more request remembered as done."""
        if request_id is None or request_id in self.requests:
            return self
        return self.changed(requests=(*self.requests, request_id)[-_REMEMBERED_REQUESTS:])

    def to_element(self, *, bare: bool = False) -> etree._Element:
        """The element that libvirt keeps below ``<metadata>``.

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
        for request_id in self.requests:
            add("request", None, id=request_id)
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
        data: dict[str, Any] = {
            "instance": Instance.model_validate_json(spec),
            "root": text("root"),
            "digest": text("digest"),
            "came_by": text("came_by"),
            "task": Task.model_validate_json(task) if task else None,
            "requests": attributes("request", "id"),
            "evacuated_from": attributes("evacuated_from", "host"),
        }
        return cls.model_validate(data)
