"""From libvirt's errors to ours."""

import libvirt

from kvmdriver import exception

# A libvirt call on a connection whose daemon is gone fails with one of these; the domain says
# which layer noticed (https://libvirt.org/html/libvirt-virterror.html).
_LOST_CODES = {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC}
_LOST_DOMAINS = {libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC}

_NOT_FOUND = {
    libvirt.VIR_ERR_NO_DOMAIN: exception.InstanceNotFound,
    libvirt.VIR_ERR_NO_NETWORK: exception.NetworkNotFound,
    libvirt.VIR_ERR_DEVICE_MISSING: exception.DeviceNotFound,
}

_OTHERS = {
    libvirt.VIR_ERR_OPERATION_INVALID: exception.InvalidState,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: exception.Unsupported,
    libvirt.VIR_ERR_NO_SUPPORT: exception.Unsupported,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: exception.Unsupported,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: exception.Unsupported,
    libvirt.VIR_ERR_CPU_INCOMPATIBLE: exception.CpuIncompatible,
    libvirt.VIR_ERR_DOM_EXIST: exception.InstanceExists,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: exception.OperationTimeout,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: exception.OperationTimeout,
    libvirt.VIR_ERR_AGENT_UNSYNCED: exception.OperationTimeout,
    libvirt.VIR_ERR_OPERATION_ABORTED: exception.MigrationAborted,
    libvirt.VIR_ERR_CALL_FAILED: exception.HypervisorUnavailable,
}


def is_connection_lost(error: libvirt.libvirtError) -> bool:
    """Return whether the call failed because the daemon at the other end is gone."""
    return error.get_error_code() in _LOST_CODES and error.get_error_domain() in _LOST_DOMAINS


def translate(
    error: libvirt.libvirtError, instance: str | None = None
) -> exception.KVMDriverError:
    """Return the error of ours that tells the same as libvirt's, with its message kept."""
    message = str(error)
    code = error.get_error_code()
    if is_connection_lost(error):
        return exception.HypervisorUnavailable(f"libvirt does not answer: {message}")
    if code in _NOT_FOUND:
        return _NOT_FOUND[code](message, instance=instance)
    if code == libvirt.VIR_ERR_OPERATION_FAILED and "already exists" in message:
        return exception.InstanceExists(message, instance=instance)
    kind = _OTHERS.get(code, exception.HypervisorError)
    remedy = None
    if kind is exception.HypervisorError:
        remedy = "the instance's log under /var/log/libvirt/qemu and libvirtd's own say more"
    return kind(message, instance=instance, remedy=remedy)
