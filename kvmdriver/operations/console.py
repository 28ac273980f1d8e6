"""Consoles: the log, the screen, VNC, and the serial port as a socket."""

import contextlib
import hmac
import io
import logging
import secrets
import selectors
import socket
import threading

from lxml import etree
from PIL import Image as Picture
from pydantic import SecretStr

from kvmdriver import exception, privsep
from kvmdriver.hypervisor.console import ConsoleStream
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.model import Consoles
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.operations.context import Context

LOG = logging.getLogger(__name__)

_CHUNK = 16384
_TOKEN_BYTES = 32


def console_log(context: Context, name_or_uuid: str, kib: int | None = None) -> bytes:
    """The end of an instance's console log, at most ``kib`` KiB or what is configured."""
    domain, record = context.find(name_or_uuid)
    if record.instance.consoles.serial != "pty":
        raise exception.Unsupported(
            "the instance has no serial console",
            instance=domain.name,
            remedy="create it with consoles.serial = pty",
        )
    limit = 1024 * min(kib or context.conf.kvm_console.log_kib, context.conf.kvm_console.log_kib)
    return read_log(context.store.layout(domain.uuid), limit)


def read_log(layout: InstanceLayout, limit: int) -> bytes:
    """The last ``limit`` bytes of an instance's console log.

    virtlogd starts a new file when one is full, and keeps the older ones with numbers.
    """
    data, number = b"", 0
    path = layout.console_log
    while len(data) < limit:
        try:
            data = privsep.read_tail(path, limit - len(data)) + data
        except FileNotFoundError:
            if number:
                break
        path, number = f"{layout.console_log}.{number}", number + 1
    return data


def with_password(definition: etree._Element, consoles: Consoles) -> Consoles:
    """Consoles with the password of the screen, which only the definition with secrets has."""
    graphics = definition.find("devices/graphics[@passwd]")
    if graphics is None:
        return consoles
    return consoles.changed(vnc_password=SecretStr(graphics.get("passwd", "")))


def vnc_url(context: Context, name_or_uuid: str) -> str:
    """Where the instance's screen is, e.g. ``vnc://127.0.0.1:5900``."""
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
    """The instance's screen as a PNG image."""
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
    """
    domain, record = context.find(name_or_uuid)
    _require_running(domain, "a serial console")
    if record.instance.consoles.serial != "pty":
        raise exception.Unsupported("the instance has no serial console", instance=domain.name)
    token = secrets.token_hex(_TOKEN_BYTES)
    listen = context.conf.kvm_console.listen
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    server = socket.create_server((listen, 0), family=family, backlog=1)
    server.settimeout(context.conf.kvm_console.relay_timeout)
    threading.Thread(
        target=_serve, args=(server, domain, token), name=f"console-{domain.name}", daemon=True
    ).start()
    return listen, server.getsockname()[1], token


def _serve(server: socket.socket, domain: Domain, token: str) -> None:
    try:
        with server:
            client = server.accept()[0]
        with client:
            client.settimeout(10)
            if not _knows_token(client, token):
                LOG.warning("a client of the console of %s did not know its token", domain.name)
                return
            client.setblocking(False)
            with contextlib.closing(ConsoleStream(domain)) as stream:
                _relay(client, stream)
    except (OSError, exception.KVMDriverError) as error:
        LOG.info("the console of %s has ended: %s", domain.name, error)


def _knows_token(client: socket.socket, token: str) -> bool:
    received = b""
    while not received.endswith(b"\n") and len(received) < 2 * _TOKEN_BYTES + 2:
        data = client.recv(1)
        if not data:
            return False
        received += data
    return hmac.compare_digest(received.strip(), token.encode())


def _relay(client: socket.socket, stream: ConsoleStream) -> None:
    """Pass bytes both ways until one side ends."""
    to_client = b""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        selector.register(stream.wakeup, selectors.EVENT_READ)
        while True:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if to_client else 0)
            selector.modify(client, wanted)
            ready = {key.fileobj: mask for key, mask in selector.select()}
            if ready.get(client, 0) & selectors.EVENT_READ:
                data = client.recv(_CHUNK)
                if not data:
                    return
                stream.send(data)
            if stream.wakeup in ready or not to_client:
                received = stream.receive(_CHUNK)
                if received is None:
                    return
                to_client += received
            if to_client:
                with contextlib.suppress(BlockingIOError):
                    to_client = to_client[client.send(to_client) :]
