"""What every operation of the agent works with."""

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.definition.platform import Platform
from kvmdriver.guest.locks import InstanceLocks
from kvmdriver.guest.migration.table import MigrationTable
from kvmdriver.host.osinfo import OsDatabase
from kvmdriver.hypervisor import xml
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.events import EventBus
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.hypervisor.record import RUNNING, Record, Task, TaskName
from kvmdriver.model import Instance, Status
from kvmdriver.model.evacuation import Description
from kvmdriver.operations.cancel import Cancellations
from kvmdriver.operations.migrate.arrivals import Arrivals
from kvmdriver.operations.relays import Relays
from kvmdriver.storage import description as descriptions
from kvmdriver.storage.copy import remove_file, write_error
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore

LOG = logging.getLogger(__name__)

# Finishes or takes back what is left of a task; the last argument says whether the guest is about
# to be switched off. The outcome, in words.
Mender = Callable[["Context", Domain, Record, bool], str]


@dataclasses.dataclass(frozen=True)
class Context:
    """The parts that operations use; one context for the life of a driver."""

    conf: cfg.ConfigOpts
    hypervisor: Hypervisor
    store: InstanceStore
    images: ImageCache
    qemu_img: QemuImg
    systems: OsDatabase
    locks: InstanceLocks
    host: str
    mender: Mender
    migrations: MigrationTable = dataclasses.field(default_factory=MigrationTable)
    arrivals: Arrivals = dataclasses.field(default_factory=Arrivals)
    cancellations: Cancellations = dataclasses.field(default_factory=Cancellations)
    relays: Relays = dataclasses.field(default_factory=Relays)
    evacuated: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    """UUIDs of instances brought back here, each with a host that has not been told yet."""
    unmended: set[str] = dataclasses.field(default_factory=set)
    """UUIDs of instances of which a failed operation has left something that is not mended yet."""
    attention: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Set when the connection was lost, or when there is one more instance to mend."""

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
        """Return the record of a domain of ours: made by kvmdriver, with its files in our directory.

        Drivers with different directories can share a libvirtd; each leaves the others' alone.
        """
        record = self.hypervisor.record(uuid)
        return record if record is not None and record.root == self.store.root else None

    def save(self, domain: Domain, record: Record, *, timeout: float | None = None) -> None:
        """Keep a record with its domain and, for an instance without a task, beside its disks.

        :param timeout: seconds; libvirt waits for a running guest that hangs.
        """
        self.hypervisor.save(domain, record, timeout=timeout)
        if record.task is None:
            self.describe(domain, record)

    def describe(self, domain: Domain, record: Record) -> None:
        """Write what an instance is into its directory, for the case that this host dies.

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
        """Return what another host needs to know to bring an instance back."""
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

    def claim(self, domain: Domain, record: Record) -> None:
        """Make the directory of a new instance, marked as this host's and as unfinished.

        :raises kvmdriver.exception.InstanceExists: it is taken, by another host or by kept disks.
        """
        mark = self.description(domain, record).changed(building=record.building)
        self.store.claim(domain.uuid, mark)

    def remove_files(self, record: Record, keep: tuple[str, ...] = ()) -> bool:
        """Remove an instance's directory if it is this host's (``InstanceStore.remove``).

        Of an instance under construction only the directory that the same operation has made.
        """
        return self.store.remove(
            record.instance.uuid,
            self.host,
            self.hypervisor.host_capabilities().uuid,
            keep=keep,
            building=record.building,
        )

    def remember_evacuated(self, record: Record) -> None:
        """Have hosts told, when they return, that one of their instances is here."""
        if record.evacuated_from:
            self.evacuated.update((record.instance.uuid, h) for h in record.evacuated_from)
            self.migrations.activity.set()

    def question(self) -> contextlib.AbstractContextManager[None]:
        """Limit the time that libvirt has to answer, for a body that changes nothing."""
        return self.hypervisor.connection.within(self.conf.kvm.read_timeout)

    def known(self, name_or_uuid: str) -> tuple[Domain, Record] | None:
        """Return an instance of ours and its record; None if there is none."""
        domain = self.hypervisor.find(name_or_uuid)
        record = self.record(domain.uuid) if domain is not None else None
        return None if domain is None or record is None else (domain, record)

    def find(self, name_or_uuid: str) -> tuple[Domain, Record]:
        """Return an instance of ours and its record.

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
    def exclusively(
        self, name_or_uuid: str, *, to_stop: bool = False
    ) -> Iterator[tuple[Domain, Record]]:
        """Yield an instance of ours, looked up again under its lock.

        :param to_stop: the body switches the guest off, so nothing may start it before.
        """
        uuid = self.find(name_or_uuid)[0].uuid
        with self.locks.hold(uuid):
            yield self.at_rest(uuid, to_stop=to_stop)

    def at_rest(self, uuid: str, *, to_stop: bool = False) -> tuple[Domain, Record]:
        """Return an instance whose lock is held, after mending what a failed operation has left.

        :raises kvmdriver.exception.InstanceBusy: another process or host works on it.
        :raises kvmdriver.exception.InstanceNotFound: the leftover was all there was of it.
        """
        domain, record = self.find(uuid)
        if record.task is not None and record.task.is_dead():
            try:
                self.mend(domain, record, to_stop=to_stop)
            except exception.KVMDriverError as error:
                if not to_stop:
                    raise
                LOG.warning(
                    "%s: %s cannot be mended yet: %s", domain.name, record.task.name, error
                )
            domain, record = self.find(uuid)
        require_idle(domain, record)
        return domain, record

    def mend(self, domain: Domain, record: Record, *, to_stop: bool = False) -> str:
        """Finish or undo the dead task of an instance whose lock is held; return the outcome.

        :raises kvmdriver.exception.KVMDriverError: that is not possible now; the task stays.
        """
        task = record.task
        assert task is not None  # noqa: S101 the caller has looked
        try:
            outcome = self.mender(self, domain, record, to_stop)
        except Exception:
            self._mend_later(domain.uuid)
            raise
        self.unmended.discard(domain.uuid)
        LOG.warning("instance %s: %s was cut off: %s", domain.name, task.name, outcome)
        return outcome

    def _mend_later(self, uuid: str) -> None:
        if uuid not in self.unmended:
            self.unmended.add(uuid)
            self.attention.set()

    @contextlib.contextmanager
    def under_way(self, uuid: str, task: Task) -> Iterator[None]:
        """Work on a task, in the body, of an instance whose lock is held.

        What a failure of the body leaves is mended at once, or as soon as libvirt answers again.
        """
        try:
            with RUNNING.hold(task):
                yield
        except BaseException:
            self._take_back(uuid)
            raise

    def _take_back(self, uuid: str) -> None:
        try:
            domain = self.hypervisor.find(uuid)
            # not from the cache: libvirt may have written what was thought to have failed
            record = domain.record() if domain is not None else None
            if domain is None or record is None or record.root != self.store.root:
                return
            if record.task is not None and record.task.is_dead():
                self.mend(domain, record)
        except Exception as error:
            # the body's own error is on its way to the caller
            LOG.warning("%s: what a failed operation has left is mended later: %s", uuid, error)
            self._mend_later(uuid)

    @contextlib.contextmanager
    def task(
        self,
        domain: Domain,
        record: Record,
        name: TaskName,
        request_id: str | None = None,
        **fields: Any,
    ) -> Iterator[None]:
        """Write down what the body is about to change, and afterwards that it is done.

        :param fields: more fields of the task: ``wanted``, ``files``, ``removes``...
        """
        task = Task.begin(name, request_id, **fields)
        with self.under_way(domain.uuid, task):
            self.save(domain, record.changed(task=task))
            yield
            # libvirtd may have been started again in the meantime
            self.finish(self.hypervisor.domain(domain.uuid), record, task, done=True)

    def finish(self, domain: Domain, record: Record, task: Task, *, done: bool) -> Record:
        """Clear the task of an instance, done or not done; return the record.

        :raises kvmdriver.exception.StorageError: a file that has to go cannot be removed.
        """
        for path in self._unused(domain, task.removes if done else task.files):
            try:
                remove_file(path)
            except OSError as error:
                raise write_error(error, path) from None
        ended = record.changed(task=None)
        if done:
            ended = ended.changed(instance=task.wanted or record.instance)
            ended = ended.with_request(task.request_id, task.answer)
        self.save(domain, ended)
        return ended

    def _unused(self, domain: Domain, files: tuple[str, ...]) -> set[str]:
        """Return those files that the guest uses neither now nor after its next start."""
        used: set[str] = set()
        for inactive in (False, True) if files else ():
            sources = domain.xml(inactive=inactive).iterfind("devices/disk/source")
            used.update(source.get("file", "") for source in sources)
        return set(files) - used


def require_idle(domain: Domain, record: Record) -> None:
    """Require that neither a live process nor a migration works on the instance.

    The caller holds the lock of the instance, which other processes and hosts do not know.

    :raises kvmdriver.exception.InstanceBusy: a live process, or a migration, owns the instance.
    """
    task = record.task
    if task is not None and task.migration is not None:
        # nobody holds a lock while a guest moves, and the other host may work on it alone
        raise exception.InstanceBusy(
            f"the instance is being moved, {task.migration.peer} has a part in it",
            instance=domain.name,
            remedy="wait for its end, or: kvmdriver server migration abort NAME",
        )
    if task is not None and not task.is_dead():
        raise exception.InstanceBusy(
            f"process {task.owner.pid} is busy with {task.name}", instance=domain.name
        )


def require_status(
    domain: Domain, operation: str, *allowed: Status, remedies: dict[str, str]
) -> Status:
    """Return the instance's status, which must be one of ``allowed``.

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
