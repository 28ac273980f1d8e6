"""Settings of nova.conf as defaults of ours, so that an existing file keeps its meaning."""

from typing import Any

from oslo_config import cfg

from kvmdriver import conf as our_conf
from kvmdriver import exception

IMAGE_TYPES = ("default", "qcow2", "raw", "flat")


def adopt(conf: cfg.ConfigOpts) -> None:
    """Register our options with nova's configuration; what [libvirt] says becomes their default.

    An option of ours that is set in the file stays as it is set.

    :raises kvmdriver.exception.ConfigurationError: a setting has no meaning with this driver.
    """
    our_conf.register_opts(conf)
    libvirt = conf.libvirt
    if libvirt.virt_type not in ("kvm", "qemu"):
        raise _unsupported("libvirt.virt_type", libvirt.virt_type, "use kvm or qemu")
    if libvirt.images_type not in IMAGE_TYPES:
        raise _unsupported(
            "libvirt.images_type", libvirt.images_type, f"use one of: {', '.join(IMAGE_TYPES)}"
        )
    for group, name, value in _defaults(conf):
        if value is not None:
            conf.set_default(name, value, group=group)


def _defaults(conf: cfg.ConfigOpts) -> list[tuple[str, str, Any]]:
    libvirt = conf.libvirt
    mode = libvirt.cpu_mode or ("host-model" if libvirt.virt_type == "kvm" else "none")
    return [
        ("kvm", "uri", libvirt.connection_uri or None),
        ("kvm", "virt_type", libvirt.virt_type),
        ("kvm", "machine_type", default_machine(conf) or None),
        ("kvm", "reserved_host_memory_mib", conf.reserved_host_memory_mb),
        ("kvm_agent", "host", conf.host),
        ("kvm_storage", "instances_path", conf.instances_path),
        ("kvm_storage", "disk_format", disk_format(conf)),
        ("kvm_cpu", "mode", mode),
        ("kvm_cpu", "models", libvirt.cpu_models or None),
        ("kvm_cpu", "features", libvirt.cpu_model_extra_flags or None),
        ("kvm_console", "listen", conf.vnc.server_listen),
        *(("kvm_migration", name, value) for name, value in _migration(conf).items()),
    ]


def _migration(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """Return what [libvirt] live_migration_* says."""
    libvirt = conf.libvirt
    action = {
        "force_complete": "post-copy" if libvirt.live_migration_permit_post_copy else "pause"
    }
    return {
        # nova's own driver takes the host's name from nova, which the service knows the host by
        "inbound_address": libvirt.live_migration_inbound_addr or conf.my_ip,
        "transport": libvirt.live_migration_scheme or "tcp",
        "native_tls": libvirt.live_migration_with_native_tls,
        "tunnelled": libvirt.live_migration_tunnelled,
        "parallel_connections": libvirt.live_migration_parallel_connections,
        "bandwidth": libvirt.live_migration_bandwidth,
        "max_downtime": libvirt.live_migration_downtime,
        "downtime_steps": libvirt.live_migration_downtime_steps,
        "auto_converge": libvirt.live_migration_permit_auto_converge,
        "post_copy": libvirt.live_migration_permit_post_copy,
        "completion_timeout": libvirt.live_migration_completion_timeout,
        "timeout_action": action.get(libvirt.live_migration_timeout_action, "abort"),
    }


def disk_format(conf: cfg.ConfigOpts) -> str:
    """Return qcow2 or raw, from [libvirt] images_type and use_cow_images."""
    kind = conf.libvirt.images_type
    if kind == "default":
        kind = "qcow2" if conf.use_cow_images else "raw"
    return "qcow2" if kind == "qcow2" else "raw"


def default_machine(conf: cfg.ConfigOpts) -> str | None:
    """Return the machine type of x86_64 in [libvirt] hw_machine_type (``x86_64=q35,...``)."""
    for entry in conf.libvirt.hw_machine_type or []:
        architecture, _, machine = entry.partition("=")
        if architecture == "x86_64" and machine:
            return str(machine)
    # what nova's own driver takes
    return "pc"


def _unsupported(field: str, value: Any, remedy: str) -> exception.ConfigurationError:
    return exception.ConfigurationError(
        f"[{field.replace('.', '] ')} = {value} is not supported by kvmdriver",
        field=field,
        value=value,
        remedy=remedy,
    )
