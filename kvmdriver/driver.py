"""KVMDriver: everything that this driver does, one line for each operation.

The agent and the command line use it. Arguments and answers are models; an
instance is named by its name or its UUID. Every method raises errors of ``kvmdriver.exception``.
"""

import contextlib
import functools
import threading
from collections.abc import Sequence

from oslo_config import cfg

from kvmdriver import exception
from kvmdriver.guest.locks import InstanceLocks
from kvmdriver.host import check
from kvmdriver.host import cpu as host_cpu
from kvmdriver.host import platform as host_platform
from kvmdriver.host.osinfo import OsDatabase
from kvmdriver.hypervisor.connection import Connection
from kvmdriver.hypervisor.cpu import to_xml
from kvmdriver.hypervisor.events import EventBus
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import (
    CachedImageView,
    CheckView,
    CpuComparison,
    CpuView,
    Diagnostics,
    Disk,
    DiskView,
    GuestCpu,
    HostView,
    Instance,
    InstanceView,
    Memory,
    Nic,
    NicView,
    OsView,
    Vcpus,
)
from kvmdriver.model.base import check_new_name
from kvmdriver.moves import Moves
from kvmdriver.operations import (
    attach,
    clone,
    console,
    cpu,
    destroy,
    images,
    mending,
    power,
    reconcile,
    resize,
    snapshot,
    spawn,
    storage_move,
    view,
)
from kvmdriver.operations.context import Context
from kvmdriver.progress import Progress, ignore
from kvmdriver.storage import fetch
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore
from kvmdriver.storage.turns import Turns


class KVMDriver(Moves):
    """Virtual machines on KVM/QEMU through libvirt.

    :param conf: options, registered with ``kvmdriver.conf.register_opts``.
    """

    def __init__(self, conf: cfg.ConfigOpts):
        storage = conf.kvm_storage
        qemu_img = QemuImg(storage.qemu_img_memory_mib, storage.qemu_img_cpu_seconds)
        store = InstanceStore(storage.instances_path, storage.reserved_disk_mib)
        self._context = Context(
            conf=conf,
            hypervisor=_hypervisor_at(conf, conf.kvm.uri),
            store=store,
            images=ImageCache(
                store.cache_directory,
                qemu_img,
                max_bytes=storage.max_image_gib * 1024**3,
                allowed_directories=tuple(storage.image_directories),
                downloads=fetch.Rules.configured(storage),
                download_turns=Turns(conf.kvm_agent.downloads, conf.kvm_agent.waiting_downloads),
                reserved_mib=storage.reserved_disk_mib,
            ),
            qemu_img=qemu_img,
            systems=OsDatabase(),
            # half of the workers, so that one instance does not keep them all
            locks=InstanceLocks(waiting=max(1, conf.kvm_agent.workers // 2)),
            host=conf.kvm_agent.host,
            mender=mending.mend,
        )
        self._context.images.on_new = functools.partial(images.evict, self._context)

    @property
    def events(self) -> EventBus:
        """What happens to domains, as it happens."""
        return self._context.events

    def init_host(self) -> list[tuple[str, str, str]]:
        """Connect, and mend what killed agents and failed operations left; what was mended."""
        self._context.store.prepare()
        check.require_versions(self._context.conf, self._context.hypervisor)
        cpu.check_settings(self._context)
        reconcile.tighten(self._context)
        mended = reconcile.reconcile(self._context)
        images.evict(self._context)
        return mended

    @property
    def attention(self) -> threading.Event:
        """Set when ``init_host`` has something to do: libvirt was lost, or work is half-done."""
        return self._context.attention

    def has_unmended(self) -> bool:
        """Return whether operations have left something that ``init_host`` could not mend yet."""
        return bool(self._context.unmended)

    def close(self) -> None:
        """Let go of libvirt. Guests keep running."""
        self._context.hypervisor.close()

    def cancel(self, reason: str) -> None:
        """Have every operation end that can be ended; each undoes what it has done."""
        self._context.cancellations.cancel_all(reason)

    def _watched(
        self, instance: str, progress: Progress, *, goes_with_instance: bool = False
    ) -> contextlib.AbstractContextManager[Progress]:
        domain = self._context.find(instance)[0]
        return self._context.cancellations.watch(
            domain.uuid, domain.name, progress, goes_with_instance=goes_with_instance
        )

    def is_alive(self) -> bool:
        """Return whether libvirt answers now."""
        return self._context.hypervisor.is_alive()

    # Create and remove

    def spawn(
        self,
        instance: Instance,
        *,
        request_id: str | None = None,
        start: bool = True,
        progress: Progress = ignore,
    ) -> InstanceView:
        """Make an instance and start it."""
        check_new_name(instance.name)
        with self._context.cancellations.watch(instance.uuid, instance.name, progress) as told:
            return spawn.spawn(
                self._context, instance, request_id=request_id, start=start, progress=told
            )

    def destroy(self, instance: str, *, keep_disks: bool = False) -> tuple[str, ...] | None:
        """Remove an instance; the paths of kept disks, None when there was no such instance."""
        return destroy.terminate(self._context, instance, keep_disks=keep_disks)

    def clone(
        self,
        instance: str,
        *,
        name: str,
        uuid: str,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> InstanceView:
        """Copy a stopped instance, disks included."""
        check_new_name(name)
        with self._context.cancellations.watch(uuid, name, progress) as told:
            return clone.clone(
                self._context, instance, name=name, uuid=uuid, request_id=request_id, progress=told
            )

    def snapshot(
        self,
        instance: str,
        path: str,
        *,
        disk: str | None = None,
        image_format: str = "qcow2",
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> str:
        """Write a disk to a new image file; its path."""
        with self._watched(instance, progress) as told:
            return snapshot.snapshot(
                self._context,
                instance,
                path,
                disk_name=disk,
                image_format=image_format,
                request_id=request_id,
                progress=told,
            )

    def move_disk(
        self,
        instance: str,
        disk: str,
        *,
        directory: str | None = None,
        disk_format: str | None = None,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> DiskView:
        """Move a disk to another directory or format, while its guest runs."""
        with self._watched(instance, progress) as told:
            return storage_move.move_disk(
                self._context,
                instance,
                disk,
                directory=directory,
                disk_format=disk_format,
                request_id=request_id,
                progress=told,
            )

    def rename(self, instance: str, name: str, *, request_id: str | None = None) -> None:
        """Give a stopped instance another name."""
        check_new_name(name)
        clone.rename(self._context, instance, name, request_id=request_id)

    # Power

    def power_on(self, instance: str) -> None:
        """Start a stopped instance."""
        power.start(self._context, instance)

    def power_off(self, instance: str, *, timeout: float | None = None) -> None:
        """Shut an instance down, and switch it off after ``timeout`` seconds."""
        power.stop(self._context, instance, timeout=timeout)

    def reboot(
        self,
        instance: str,
        *,
        hard: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Reboot an instance, softly or hard."""
        power.reboot(self._context, instance, hard=hard, timeout=timeout, request_id=request_id)

    def suspend(self, instance: str) -> None:
        """Save an instance's memory to disk and switch it off."""
        power.suspend(self._context, instance)

    def resume(self, instance: str) -> None:
        """Bring a suspended instance back."""
        power.resume(self._context, instance)

    def pause(self, instance: str) -> None:
        """Stop an instance's CPUs."""
        power.pause(self._context, instance)

    def unpause(self, instance: str) -> None:
        """Let an instance's CPUs run again."""
        power.unpause(self._context, instance)

    def set_autostart(self, instance: str, on: bool, *, request_id: str | None = None) -> None:
        """Whether an instance starts with the host."""
        power.set_autostart(self._context, instance, on, request_id=request_id)

    # Sizes and devices

    def set_memory(
        self,
        instance: str,
        current_mib: int | None = None,
        maximum_mib: int | None = None,
        *,
        request_id: str | None = None,
    ) -> Memory:
        """Change an instance's memory."""
        return resize.set_memory(
            self._context, instance, current_mib, maximum_mib, request_id=request_id
        )

    def set_vcpus(
        self,
        instance: str,
        current: int | None = None,
        maximum: int | None = None,
        *,
        request_id: str | None = None,
    ) -> Vcpus:
        """Change an instance's number of vCPUs."""
        return resize.set_vcpus(self._context, instance, current, maximum, request_id=request_id)

    def attach_disk(
        self,
        instance: str,
        disk: Disk,
        *,
        request_id: str | None = None,
        progress: Progress = ignore,
    ) -> DiskView:
        """Make a disk and plug it into an instance."""
        with self._watched(instance, progress, goes_with_instance=True) as told:
            return attach.attach_disk(
                self._context, instance, disk, request_id=request_id, progress=told
            )

    def detach_disk(
        self, instance: str, name: str, *, delete: bool = False, request_id: str | None = None
    ) -> str | None:
        """Unplug a disk; the path of its file when that is kept."""
        return attach.detach_disk(
            self._context, instance, name, delete=delete, request_id=request_id
        )

    def attach_interface(
        self, instance: str, nic: Nic, *, request_id: str | None = None
    ) -> NicView:
        """Plug an interface into an instance."""
        return attach.attach_nic(self._context, instance, nic, request_id=request_id)

    def detach_interface(self, instance: str, mac: str, *, request_id: str | None = None) -> None:
        """Unplug an interface from an instance."""
        attach.detach_nic(self._context, instance, mac, request_id=request_id)

    # Images

    def list_cached_images(self) -> list[CachedImageView]:
        """Return the files of the image cache, and who uses them."""
        return images.list_images(self._context)

    def prune_image_cache(
        self, names: tuple[str, ...] = (), *, unused: bool = False
    ) -> tuple[str, ...]:
        """Remove images from the cache; the names of what was removed."""
        return images.prune(self._context, names, unused=unused)

    # Consoles

    def get_console_output(self, instance: str, kib: int | None = None) -> bytes:
        """Return the end of an instance's console log."""
        with self._context.question():
            return console.console_log(self._context, instance, kib)

    def get_vnc_console(self, instance: str) -> str:
        """Return the URL of an instance's screen."""
        with self._context.question():
            return console.vnc_url(self._context, instance)

    def get_serial_console(self, instance: str) -> tuple[str, int, str]:
        """Host, port and token of a socket to an instance's serial port."""
        with self._context.question():
            return console.serial_console(self._context, instance)

    def get_screenshot(self, instance: str) -> bytes:
        """Return an instance's screen as PNG."""
        with self._context.question():
            return console.screenshot(self._context, instance)

    # Looking

    def list_instances(self) -> list[InstanceView]:
        """Return all instances."""
        with self._context.question():
            return view.list_instances(self._context)

    def get_instance(self, instance: str) -> InstanceView:
        """One instance."""
        with self._context.question():
            return view.show(self._context, instance)

    def get_diagnostics(self, instance: str) -> Diagnostics:
        """Counters of a running instance."""
        with self._context.question():
            return view.diagnostics(self._context, instance)

    def get_host(self) -> HostView:
        """Return the host."""
        # libvirt asks QEMU what it can do, which takes long the first time, and not again
        self._context.hypervisor.host_capabilities()
        with self._context.question():
            return view.host(self._context)

    def get_cpu(self) -> CpuView:
        """Return what guests can have as their CPU."""
        return cpu.show(self._context)

    def baseline_cpu(self, cpus: Sequence[str], *, migratable: bool = True) -> str:
        """Return the best CPU that several have in common; all of them as XML."""
        return cpu.baseline(self._context, cpus, migratable=migratable)

    def compare_cpu(
        self, definition: str, *, virt_type: str | None = None, machine: str | None = None
    ) -> CpuComparison:
        """Return whether guests with a CPU, given as XML, could run here."""
        return cpu.compare(self._context, definition, virt_type=virt_type, machine=machine)

    def get_guest_cpu(self, instance: str) -> GuestCpu:
        """Return the CPU that a running instance has."""
        with self._context.question():
            return cpu.of_guest(self._context, instance)

    def check_host(self) -> list[CheckView]:
        """Everything that a host of virtual machines needs, with the command that mends it."""
        return check.run(self._context.conf, self._context.hypervisor)

    def list_systems(self, text: str = "") -> list[OsView]:
        """Operating systems whose id or name contains ``text``."""
        return self._context.systems.search(text)


def cpu_of_file(path: str) -> str:
    """Return the CPU in a file, as XML.

    :raises kvmdriver.exception.KVMDriverError: there is none.
    """
    return to_xml(host_cpu.read_definition(path))


def cpu_of_uri(conf: cfg.ConfigOpts, uri: str) -> str:
    """Return what mode host-model gives at a libvirt URI, as XML."""
    hypervisor = _hypervisor_at(conf, uri)
    try:
        found = host_platform.guest_capabilities(
            hypervisor,
            conf.kvm.virt_type,
            conf.kvm.machine_type,
            fallback=conf.kvm.fallback_to_qemu,
        ).host_model
    finally:
        hypervisor.close()
    if found is None:
        raise exception.Unsupported("libvirt there knows no host-model", field="HOST", value=uri)
    return to_xml(found)


def guests_with_kvm(conf: cfg.ConfigOpts) -> tuple[str, ...]:
    """Names of all running domains that use KVM, whoever made them; none where no libvirt is."""
    hypervisor = _hypervisor_at(conf, conf.kvm.uri)
    try:
        running = [entry for entry in hypervisor.summaries() if entry.status != "stopped"]
        return tuple(
            entry.name
            for entry in running
            if hypervisor.domain(entry.uuid).xml().get("type") == "kvm"
        )
    except exception.HypervisorUnavailable:
        return ()
    finally:
        hypervisor.close()


def _hypervisor_at(conf: cfg.ConfigOpts, uri: str) -> Hypervisor:
    return Hypervisor(
        Connection(
            uri,
            call_timeout=conf.kvm.call_timeout,
            keepalive_interval=conf.kvm.keepalive_interval,
            keepalive_count=conf.kvm.keepalive_count,
        )
    )
