"""What the consoles of a guest leave: the log, and the password of the screen."""

from lxml import etree
from oslo_privsep.daemon import FailedToDropPrivileges
from pydantic import SecretStr

from kvmdriver import exception, privsep
from kvmdriver.model import Consoles
from kvmdriver.model.layout import InstanceLayout


def read_log(layout: InstanceLayout, limit: int) -> bytes:
    """Return the last ``limit`` bytes of an instance's console log.

    virtlogd starts a new file when one is full, and keeps the older ones with numbers.

    :raises kvmdriver.exception.StorageError: the log belongs to root, and we get no root.
    """
    data, number = b"", 0
    path = layout.console_log
    while len(data) < limit:
        try:
            data = privsep.read_tail(path, limit - len(data)) + data
        except FileNotFoundError:
            if number:
                break
        except (PermissionError, FailedToDropPrivileges) as error:
            raise exception.StorageError(
                f"the console log cannot be read: {error}",
                field="path",
                value=path,
                remedy="start kvmdriver-privsep.socket, or let sudo start privsep-helper for this "
                "user, and set [kvm_storage] "
                f"instances_path in {privsep.HOST_CONFIG}",
            ) from None
        path, number = f"{layout.console_log}.{number}", number + 1
    return data


def with_password(definition: etree._Element, consoles: Consoles) -> Consoles:
    """Return consoles with the password of the screen, which only the definition with secrets has."""
    graphics = definition.find("devices/graphics[@passwd]")
    if graphics is None:
        return consoles
    return consoles.changed(vnc_password=SecretStr(graphics.get("passwd", "")))
