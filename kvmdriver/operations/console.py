"""Consoles: the log, the screen, VNC, and the serial port as a socket."""

import io

from PIL import Image as Picture

from kvmdriver import exception
from kvmdriver.guest import console as guest_console
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.operations.context import Context


def console_log(context: Context, name_or_uuid: str, kib: int | None = None) -> bytes:
    """Return the end of an instance's console log, at most ``kib`` KiB or what is configured."""
    domain, record = context.find(name_or_uuid)
    if record.instance.consoles.serial != "pty":
        raise exception.Unsupported(
            "the instance has no serial console",
            instance=domain.name,
            remedy="create it with consoles.serial = pty",
        )
    limit = 1024 * min(kib or context.conf.kvm_console.log_kib, context.conf.kvm_console.log_kib)
    return guest_console.read_log(context.store.layout(domain.uuid), limit)


def vnc_url(context: Context, name_or_uuid: str) -> str:
    """Return the address of the instance's screen, e.g. ``vnc://127.0.0.1:5900``."""
    domain, _record = context.find(name_or_uuid)
    _require_running(domain, "a VNC console")
    graphics = domain.xml().find("devices/graphics[@type='vnc']")
    if graphics is None:
        raise exception.Unsupported(
            "the instance has no VNC console",
            instance=domain.name,
            remedy="create it with consoles.graphics = vnc",
        )
    return f"vnc://{graphics.get('listen', '127.0.0.1')}:{graphics.get('port')}"


def screenshot(context: Context, name_or_uuid: str) -> bytes:
    """Return the instance's screen as a PNG image."""
    domain, _record = context.find(name_or_uuid)
    _require_running(domain, "a screenshot")
    data = domain.screenshot()
    try:
        # QEMU gives PPM, newer ones PNG; nothing else is read
        with Picture.open(io.BytesIO(data), formats=("PPM", "PNG")) as picture:
            out = io.BytesIO()
            picture.save(out, "PNG", optimize=False)
            return out.getvalue()
    except (OSError, ValueError) as error:
        raise exception.HypervisorError(
            f"the hypervisor gave no picture: {error}", instance=domain.name
        ) from None


def _require_running(domain: Domain, what: str) -> None:
    if not domain.is_active():
        raise exception.InvalidState(
            f"{what} needs a running instance",
            field="status",
            value=domain.status(),
            instance=domain.name,
            remedy="start it: kvmdriver server start NAME",
        )


def serial_console(context: Context, name_or_uuid: str) -> tuple[str, int, str]:
    """Open the instance's serial port as a socket for one client.

    The client connects in time, sends the token and a newline, and then talks to the guest. Its
    session ends when it disconnects, when the guest goes off, or when another client takes over.

    :returns: host, port and token.
    :raises kvmdriver.exception.InstanceBusy: a client that asked before has not connected yet.
    :raises kvmdriver.exception.InsufficientResources: as many are open as [kvm_console]
        max_consoles allows.
    """
    domain, record = context.find(name_or_uuid)
    _require_running(domain, "a serial console")
    if record.instance.consoles.serial != "pty":
        raise exception.Unsupported("the instance has no serial console", instance=domain.name)
    conf = context.conf.kvm_console
    port, token = context.relays.open(
        domain, conf.listen, seconds=conf.relay_timeout, most=conf.max_consoles
    )
    return conf.listen, port, token
