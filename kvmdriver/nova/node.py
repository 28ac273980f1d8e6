"""The compute node: what every operation of the adapter works with."""

import dataclasses
import functools
import os
from typing import Any

import nova.privsep.utils
from oslo_config import cfg

from kvmdriver.definition.platform import Platform
from kvmdriver.guest.locks import InstanceLocks
from kvmdriver.guest.migration.table import MigrationTable
from kvmdriver.host import platform as host_platform
from kvmdriver.hypervisor.capabilities import DomainCapabilities
from kvmdriver.hypervisor.connection import Connection
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import options
from kvmdriver.nova.shares import Shares
from kvmdriver.nova.states import PowerStates
from kvmdriver.nova.volume_users import VolumeUsers
from kvmdriver.storage.image_cache import ImageCache
from kvmdriver.storage.qemu_img import QemuImg
from kvmdriver.storage.store import InstanceStore


@dataclasses.dataclass(frozen=True)
class Node:
    """The parts that operations use; one node for the life of a nova-compute."""

    conf: cfg.ConfigOpts
    virtapi: Any
    hypervisor: Hypervisor
    store: InstanceStore
    images: ImageCache
    qemu_img: QemuImg
    states: PowerStates
    locks: InstanceLocks
    image_api: Any
    migrations: MigrationTable = dataclasses.field(default_factory=MigrationTable)
    volume_users: VolumeUsers = dataclasses.field(default_factory=VolumeUsers)
    shares: Shares = dataclasses.field(default_factory=Shares)
    # servers whose live migration to this host could not be prepared
    not_prepared: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def make(cls, conf: cfg.ConfigOpts, virtapi: Any, image_api: Any) -> "Node":
        """Put the parts together. libvirt is not asked yet."""
        options.adopt(conf)
        storage = conf.kvm_storage
        qemu_img = QemuImg(storage.qemu_img_memory_mib, storage.qemu_img_cpu_seconds)
        store = InstanceStore(storage.instances_path, conf.reserved_host_disk_mb)
        hypervisor = Hypervisor(
            Connection(
                conf.kvm.uri,
                call_timeout=conf.kvm.call_timeout,
                keepalive_interval=conf.kvm.keepalive_interval,
                keepalive_count=conf.kvm.keepalive_count,
            )
        )
        cache = os.path.join(store.root, conf.image_cache.subdirectory_name)
        return cls(
            conf=conf,
            virtapi=virtapi,
            hypervisor=hypervisor,
            store=store,
            images=ImageCache(
                cache,
                qemu_img,
                max_bytes=storage.max_image_gib * 1024**3,
                allowed_directories=(),
                reserved_mib=conf.reserved_host_disk_mb,
            ),
            qemu_img=qemu_img,
            states=PowerStates(hypervisor),
            locks=InstanceLocks(),
            image_api=image_api,
        )

    def domain(self, instance: Any) -> Domain:
        """Find the domain of an instance.

        :raises kvmdriver.exception.InstanceNotFound: libvirt does not know the instance.
        """
        return self.hypervisor.domain(instance.uuid)

    def layout(self, instance: Any, suffix: str = "") -> InstanceLayout:
        return dataclasses.replace(self.store.layout(instance.uuid), suffix=suffix)

    def machine(self, image_meta: Any, instance: Any = None) -> str:
        """Return the machine type of an instance: as recorded, or by image, or by configuration."""
        wanted = image_meta.properties.get("hw_machine_type")
        if not wanted and instance is not None:
            wanted = instance.system_metadata.get("image_hw_machine_type")
        return host_platform.choose_machine(self.hypervisor, wanted or self.conf.kvm.machine_type)

    def capabilities(self, machine: str | None = None) -> DomainCapabilities:
        """Return what a guest can have here, on the default machine type unless one is named."""
        if machine is None:
            machine = host_platform.choose_machine(self.hypervisor, self.conf.kvm.machine_type)
        return self.hypervisor.domain_capabilities(self.conf.kvm.virt_type, machine)

    def platform(self, layout: InstanceLayout, emulator: str) -> Platform:
        ports = self.conf.libvirt.num_pcie_ports
        return Platform(
            layout=layout,
            architecture=self.hypervisor.host_capabilities().architecture,
            emulator=emulator,
            console_listen=self.conf.kvm_console.listen,
            serial_listen=self.conf.serial_console.proxyclient_address,
            spice_listen=self.conf.spice.server_listen,
            spare_pcie_ports=ports or self.conf.kvm.spare_pcie_ports,
        )

    def cache_mode(self, source: str) -> str:
        """Return [libvirt] disk_cachemodes for a kind of source, else none if O_DIRECT works."""
        for entry in self.conf.libvirt.disk_cachemodes:
            kind, _, mode = entry.partition("=")
            if kind == source and mode != "default":
                return str(mode)
        return "none" if _direct_io(self.store.root) else "writeback"


@functools.cache
def _direct_io(directory: str) -> bool:
    return bool(nova.privsep.utils.supports_direct_io(directory))
