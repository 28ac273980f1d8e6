"""Flavor extra specs and image properties that ask for what this driver does not have.

A request is carried out or refused by name; it is never ignored.
"""

from nova import exception as nova_exception
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta

_SPECS = (
    "hw:mem_encryption",
    "hw:mem_encryption_model",
    "hw:tpm_model",
    "hw:tpm_version",
    "hw:viommu_model",
    "hw:pmem",
    "hw:ephemeral_encryption",
    "hw:ephemeral_encryption_format",
    "hw:sound_model",
    "hw:redirected_usb_ports",
    "accel:device_profile",
)
_PREFIXES = ("resources:VGPU", "resources:MEM_ENCRYPTION_CONTEXT", "resources:CUSTOM_PMEM")

_PROPERTIES = (
    "hw_mem_encryption",
    "hw_mem_encryption_model",
    "hw_tpm_model",
    "hw_tpm_version",
    "hw_viommu_model",
    "hw_emulation_architecture",
    "hw_ephemeral_encryption",
    "hw_ephemeral_encryption_format",
    "hw_sound_model",
    "hw_redirected_usb_ports",
    "hw_firmware_stateless",
)

_X86_64 = ("x86_64", "amd64", None)


def check(flavor: Flavor, image_meta: ImageMeta) -> None:
    """:raises nova.exception.Invalid: flavor or image ask for what cannot be had."""
    specs = flavor.extra_specs if "extra_specs" in flavor else {}
    for name, value in sorted(specs.items()):
        wanted = name in _SPECS or name.startswith(_PREFIXES)
        if wanted and not _is_off(value):
            raise _refusal("flavor extra spec", name, value)
    properties = image_meta.properties
    for name in _PROPERTIES:
        value = properties.get(name)
        if value is not None and not _is_off(value):
            raise _refusal("image property", name, value)
    architecture = properties.get("hw_architecture")
    if architecture not in _X86_64:
        raise _refusal("image property", "hw_architecture", architecture)
    vm_mode = properties.get("hw_vm_mode")
    if vm_mode not in (None, "hvm"):
        raise _refusal("image property", "hw_vm_mode", vm_mode)


def _is_off(value: object) -> bool:
    return str(value).lower() in ("false", "no", "0", "off", "")


def _refusal(kind: str, name: str, value: object) -> nova_exception.Invalid:
    return nova_exception.Invalid(
        f"kvmdriver does not support the {kind} {name}={value}; remove it, or use a host with "
        f"another driver"
    )
