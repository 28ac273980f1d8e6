"""What operations work with."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.definition.platform import Platform
from kvmdriver.host.osinfo import OsDatabase
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.events import EventBus
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.hypervisor.record import Owner, Record, Task
from kvmdriver.model import Instance, Status
from kvmdriver.model.evacuation import Description
from kvmdriver.operations.cancel import Cancellations
from kvmdriver.operations.locks import InstanceLocks
from kvmdriver.operations.migrate.arrivals import Arrivals
from kvmdriver.operations.migrate.table import MigrationTable
from kvmdriver.storage import description as descriptions
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Context:
    """The parts that an operation puts together; one for the life of a driver."""

    conf: cfg.ConfigOpts
    hypervisor: Hypervisor
    store: InstanceStore
    images: ImageCache
    qemu_img: QemuImg
    systems: OsDatabase
    locks: InstanceLocks
    host: str
    migrations: MigrationTable = dataclasses.field(default_factory=MigrationTable)
    arrivals: Arrivals = dataclasses.field(default_factory=Arrivals)
    cancellations: Cancellations = dataclasses.field(default_factory=Cancellations)
    evacuated: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    """UUIDs of instances brought back here, each with a host that has not been told yet."""

    @property
    def events(self) -> EventBus:
        return self.hypervisor.events

    def platform(self, uuid: str, emulator: str | None = None) -> Platform:
        return Platform(
            layout=self.store.layout(uuid),
            architecture=self.hypervisor.host_capabilities().architecture,
            emulator=emulator,
            console_listen=self.conf.kvm_console.listen,
            spare_pcie_ports=self.conf.kvm.spare_pcie_ports,
        )

    def record(self, uuid: str) -> Record | None:
        """The record of a domain that is ours: made by kvmdriver, with its files in our directory.

        Drivers with different directories can share a libvirtd; each leaves the others' alone.
        """
        record = self.hypervisor.record(uuid)
        return record if record is not None and record.root == self.store.root else None

    def save(self, domain: Domain, record: Record, *, timeout: float | None = None) -> None:
        """Keep a record with its domain; of an instance at rest, beside its disks as well.

        :param timeout: seconds; libvirt waits for a running guest that hangs.
        """
        self.hypervisor.save(domain, record, timeout=timeout)
        if record.task is None:
            self.describe(domain, record)

    def describe(self, domain: Domain, record: Record) -> None:
        """Say in the instance's directory what it is, for the case that this host dies.

        A directory that cannot be written to is no reason to fail: the domain is what counts.
        """
        directory = self.store.layout(domain.uuid).directory
        if not os.path.isdir(directory):
            return
        try:
            described = self.description(domain, record)
            if descriptions.read(directory) != described:
                descriptions.write(directory, described)
        except exception.KVMDriverError as error:
            LOG.warning("%s: what it is cannot be kept beside its disks: %s", domain.name, error)

    def description(self, domain: Domain, record: Record) -> Description:
        """What another host needs to know to bring an instance back."""
        return Description(
            host=self.host,
            host_uuid=self.hypervisor.host_capabilities().uuid,
            # without what is secret, as in the record
            instance=Instance.model_validate_json(record.instance.record_json()),
            digest=record.digest,
            evacuated_from=record.evacuated_from,
            autostart=domain.autostart(),
            definition=xml.to_string(domain.xml(inactive=True, secure=True)),
        )

    def remember_evacuated(self, record: Record) -> None:
        """Have hosts told, when they return, that one of their instances is here."""
        if record.evacuated_from:
            self.evacuated.update((record.instance.uuid, h) for h in record.evacuated_from)
            self.migrations.activity.set()

    def question(self) -> contextlib.AbstractContextManager[None]:
        """For what changes nothing: libvirt answers in the time configured for that, or fails."""
        return self.hypervisor.connection.within(self.conf.kvm.read_timeout)

    def known(self, name_or_uuid: str) -> tuple[Domain, Record] | None:
        """An instance of ours and its record, or None where there is none."""
        domain = self.hypervisor.find(name_or_uuid)
        record = self.record(domain.uuid) if domain is not None else None
        return None if domain is None or record is None else (domain, record)

    def find(self, name_or_uuid: str) -> tuple[Domain, Record]:
        """An instance of ours and its record.

        :raises kvmdriver.exception.InstanceNotFound: there is none of that name or UUID, or the
            domain belongs to somebody else, whom we never touch.
        """
        domain = self.hypervisor.domain(name_or_uuid)
        record = self.record(domain.uuid)
        if record is None:
            raise exception.InstanceNotFound(
                f"the domain {domain.name!r} was not made by kvmdriver with this "
                f"[kvm_storage] instances_path, so it is left alone",
                instance=domain.name,
                remedy="use virsh for it, or the agent that made it",
            )
        return domain, record

    @contextlib.contextmanager
    def exclusively(self, name_or_uuid: str) -> Iterator[tuple[Domain, Record]]:
        """An instance of ours, looked up again once nobody else works on it."""
        uuid = self.find(name_or_uuid)[0].uuid
        with self.locks.hold(uuid):
            domain, record = self.find(uuid)
            require_idle(domain, record)
            yield domain, record

    @contextlib.contextmanager
    def task(
        self,
        domain: Domain,
        record: Record,
        name: str,
        request_id: str | None = None,
        files: tuple[str, ...] = (),
    ) -> Iterator[None]:
        """Note a task in the record while it is worked on, so that a crash can be made good."""
        task = Task(name=name, owner=Owner.current(), request_id=request_id, files=files)
        self.save(domain, record.changed(task=task))
        try:
            yield
        except BaseException:
            with contextlib.suppress(exception.KVMDriverError):
                self.save(domain, record.changed(task=None))
            raise


def require_idle(domain: Domain, record: Record) -> None:
    """Our own lock is held; another process may be at work all the same, or another host.

    :raises kvmdriver.exception.InstanceBusy: it is, and it lives.
    """
    task = record.task
    if task is not None and task.migration is not None:
        # nobody holds a lock while a guest moves, and the other host may be at it even if we are not
        raise exception.InstanceBusy(
            f"the instance is being moved, {task.migration.peer} has a part in it",
            instance=domain.name,
            remedy="wait for its end, or: kvmdriver server migration abort NAME",
        )
    if task is not None and task.owner != Owner.current() and task.owner.is_alive():
        raise exception.InstanceBusy(
            f"process {task.owner.pid} is busy with {task.name}", instance=domain.name
        )


def require_status(
    domain: Domain, operation: str, *allowed: Status, remedies: dict[str, str]
) -> Status:
    """The instance's status, which must be one of ``allowed``.

    :param remedies: what to do, by status.
    :raises kvmdriver.exception.InvalidState: it is another one.
    """
    status = domain.status()
    if status not in allowed:
        raise exception.InvalidState(
            f"{operation} is not possible while the instance is {status}",
            field="status",
            value=status,
            instance=domain.name,
            remedy=remedies.get(status, f"possible while it is: {', '.join(allowed)}"),
        )
    return status
