"""Every error that kvmdriver raises on purpose.

An error says what happened, which field of the request is to blame and its value, which
instance it concerns, and what to do about it. It has a stable ``code`` that programs may rely on.
The same object crosses the message bus: oslo.messaging rebuilds it from ``args`` and ``kwargs``
(see ``oslo_messaging/_drivers/common.py``), so both hold nothing but plain values.
"""

from typing import Any

_MAX_SENTENCE = 2000
_MAX_REASONS = 100


class KVMDriverError(Exception):
    """Base of all errors of this driver.

    All of them are shortened, since parts of them come from image servers, guests and requests.

    :param message: what happened, one sentence; at most 2000 characters, as is the remedy.
    :param field: path of the offending field in the request, e.g. ``disks.0.image.path``.
    :param value: the offending value; at most 200 characters, as are field and instance.
    :param remedy: what the caller can do about it.
    :param instance: name or UUID of the instance concerned.
    """

    code = "internal_error"
    default_remedy: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        value: Any = None,
        remedy: str | None = None,
        instance: str | None = None,
    ):
        message = shorten(message, _MAX_SENTENCE)
        super().__init__(message)
        self.message = message
        self.field = None if field is None else shorten(field)
        self.value = None if value is None else shorten(value)
        self.remedy = shorten(remedy, _MAX_SENTENCE) if remedy else self.default_remedy
        self.instance = None if instance is None else shorten(instance)

    @property
    def kwargs(self) -> dict[str, Any]:
        """What rebuilds this error on the other side of the bus."""
        return {
            key: value
            for key in ("field", "value", "remedy", "instance")
            if (value := getattr(self, key)) is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain values, for notifications and for machine-readable output."""
        return {"code": self.code, "message": self.message, **self.kwargs}

    def describe(self) -> str:
        """Return the error for a person, one fact a line."""
        lines = [_line(self.message)]
        if self.instance:
            lines.append(_line(f"  instance: {self.instance}"))
        if self.field:
            shown = "" if self.value is None else f" = {self.value}"
            lines.append(_line(f"  field: {self.field}{shown}"))
        if self.remedy:
            lines.append(_line(f"  remedy: {self.remedy}"))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe().replace("\n  ", "; ")


def shorten(value: Any, limit: int = 200) -> str:
    """Return a value as text of at most ``limit`` characters, the last one an ellipsis if it was longer."""
    text = value if isinstance(value, str) else repr(value)
    # halves of surrogate pairs can neither be logged nor sent
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _line(text: str) -> str:
    """Return a text on one line, so that no message can pretend to be a remedy."""
    return " ".join(text.splitlines())


class InvalidRequest(KVMDriverError):
    """The request is malformed, or asks for something that is never allowed."""

    code = "invalid_request"


class Unsupported(KVMDriverError):
    """The request is well-formed, but this host, hypervisor or configuration cannot do it."""

    code = "unsupported"


class CpuIncompatible(Unsupported):
    """The host cannot give a guest the CPU that is asked for."""

    code = "cpu_incompatible"


class InstanceNotFound(KVMDriverError):
    """No instance of this driver has that name or UUID."""

    code = "instance_not_found"
    default_remedy = "list what exists with: kvmdriver server list"


class InstanceExists(KVMDriverError):
    """The name or the UUID is taken by another domain."""

    code = "instance_exists"
    default_remedy = "choose another name or UUID, or delete the instance that has it"


class InvalidState(KVMDriverError):
    """The instance is not in a state in which the operation makes sense."""

    code = "invalid_state"


class InstanceBusy(KVMDriverError):
    """Another operation on the instance is under way."""

    code = "instance_busy"
    default_remedy = "wait until the operation under way has ended, then try again"


class ImageNotFound(KVMDriverError):
    """The image is not where the request says, or may not be read from there."""

    code = "image_not_found"


class ImageUnacceptable(KVMDriverError):
    """The image's content is damaged, dangerous, or not what was declared."""

    code = "image_unacceptable"
    default_remedy = "use another image"


class NetworkNotFound(KVMDriverError):
    """The network or bridge does not exist here, or is not active."""

    code = "network_not_found"


class DeviceNotFound(KVMDriverError):
    """The instance has no such disk or interface."""

    code = "device_not_found"


class InsufficientResources(KVMDriverError):
    """The host has too little memory, CPU or disk space for the request."""

    code = "insufficient_resources"


class HypervisorUnavailable(KVMDriverError):
    """libvirt does not answer."""

    code = "hypervisor_unavailable"
    default_remedy = "check that libvirtd runs and that [kvm] uri is right: virsh -c URI version"


class HypervisorTimeout(HypervisorUnavailable):
    """libvirt accepted a call and did not finish it in time."""

    code = "hypervisor_timeout"


class HypervisorError(KVMDriverError):
    """libvirt or QEMU refused or failed an operation."""

    code = "hypervisor_error"


class HostError(KVMDriverError):
    """Something of the host itself could not be changed."""

    code = "host_error"


class OperationTimeout(KVMDriverError):
    """The guest or a device did not do in time what was asked of it."""

    code = "operation_timeout"


class StorageError(KVMDriverError):
    """A file could not be written, copied or converted."""

    code = "storage_error"


class MigrationRefused(KVMDriverError):
    """An instance cannot move to a host; ``reasons`` has all of them, each with its remedy."""

    code = "migration_refused"

    def __init__(self, message: str = "", *, reasons: Any = (), **named: Any):
        super().__init__(message, **named)
        self.reasons = [
            {
                key: shorten(text, _MAX_SENTENCE) if isinstance(text, str) else text
                for key, text in dict(reason).items()
            }
            for reason in list(reasons)[:_MAX_REASONS]
        ]

    @property
    def kwargs(self) -> dict[str, Any]:
        return {**super().kwargs, "reasons": self.reasons}

    def describe(self) -> str:
        lines = [super().describe()]
        for reason in self.reasons:
            lines.append(_line(f"  - {reason.get('message')}"))
            if reason.get("remedy"):
                lines.append(_line(f"    remedy: {reason['remedy']}"))
        return "\n".join(lines)


class MigrationFailed(KVMDriverError):
    """A migration ended without success; the instance is where it was."""

    code = "migration_failed"


class MigrationAborted(MigrationFailed):
    """A migration was given up on purpose; the instance is where it was."""

    code = "migration_aborted"
    default_remedy = "raise what [kvm_migration] permits, or try when the guest is less busy"


class MigrationUnresolved(KVMDriverError):
    """It is not known on which host an instance is, as the other one cannot be asked."""

    code = "migration_unresolved"
    default_remedy = "the agents find out by themselves as soon as they reach each other again"


class AgentUnreachable(KVMDriverError):
    """No agent answered on the message bus."""

    code = "agent_unreachable"
    default_remedy = "check that kvmdriver-agent runs on that host and shares the transport_url"


class ConfigurationError(KVMDriverError):
    """An option of the configuration file is wrong."""

    code = "configuration_error"


class RequestConflict(InvalidRequest):
    """A request has the ID of an earlier one, and asks for something else."""

    code = "request_conflict"
    default_remedy = "give each request an ID of its own, or leave the ID out"

    @classmethod
    def of(cls, request_id: str, instance: str | None = None) -> "RequestConflict":
        return cls(
            "an earlier request with this ID asked for something else; nothing was done",
            field="request_id",
            value=request_id,
            instance=instance,
        )


class InstanceUnresponsive(OperationTimeout):
    """The QEMU of one instance does not answer libvirt; other instances are not concerned."""

    code = "instance_unresponsive"
    default_remedy = (
        "look at its QEMU process and its storage; "
        "a hard reboot or a deletion ends a QEMU that hangs"
    )


class HostBusy(KVMDriverError):
    """The host works on as many such requests as it may; nothing of this one was done."""

    code = "agent_busy"
    default_remedy = "ask again later"


class RequestUnderWay(InstanceBusy):
    """The same request is being carried out, and others wait for its answer already."""

    code = "request_under_way"
    default_remedy = "ask again with the same request_id when it has ended"


class OperationCancelled(KVMDriverError):
    """The operation was ended before it was finished, and has been undone."""

    code = "operation_cancelled"


class ImageInUse(KVMDriverError):
    """An image of the cache cannot go: an instance uses it."""

    code = "image_in_use"
    default_remedy = "delete the instances that use it first"
