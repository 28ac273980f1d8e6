"""Devices of a guest, running or off: what attaching and detaching need in either case."""

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.disks import scsi_controller, scsi_controller_element
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor
from kvmdriver.model import Disk

# How long a guest has to release a device, and how often it is asked.
_DETACH_SECONDS = 10
_DETACH_ATTEMPTS = 3


def ensure_scsi_controller(domain: Domain, disk: Disk, live: bool) -> None:
    """Plug in the controller of a SCSI disk where it is missing; libvirt would take another model."""
    index = scsi_controller(disk)
    path = f"devices/controller[@type='scsi'][@index='{index}']"
    if index is not None and _find(domain.xml(), path) is None:
        domain.attach(scsi_controller_element(index), live=live, config=True)


def detach_device(
    hypervisor: Hypervisor,
    domain: Domain,
    path: str,
    what: str,
    *,
    attempts: int = _DETACH_ATTEMPTS,
    seconds: float = _DETACH_SECONDS,
) -> None:
    """Remove a device from the running and from the persistent definition, each on its own.

    :param path: where it is in the domain's XML.
    :raises kvmdriver.exception.OperationTimeout: the guest keeps it, ``attempts`` times asked and
        given ``seconds`` each time.
    """
    if domain.is_active():
        for _attempt in range(attempts):
            if ask_to_release(hypervisor, domain, path, seconds):
                break
        else:
            raise exception.OperationTimeout(
                f"the guest does not release {what}",
                instance=domain.name,
                remedy="unmount it inside the guest and try again, or stop the instance first",
            )
    persistent = _find(domain.xml(inactive=True), path)
    if persistent is not None:
        domain.detach(persistent, live=False, config=True)


def ask_to_release(
    hypervisor: Hypervisor, domain: Domain, path: str, seconds: float = _DETACH_SECONDS
) -> bool:
    """Ask a running guest once to release a device; False if the guest keeps it for ``seconds``.

    :param path: where the device is in the domain's XML.
    """
    node = _find(domain.xml(), path)
    if node is None:
        return True
    alias = _alias(node)
    kinds = ("device-removed", "device-removal-failed")
    with hypervisor.events.expect(domain.uuid, *kinds, detail=alias) as gone:
        try:
            domain.detach_alias(alias)
        except exception.DeviceNotFound:
            return True
        event = gone.wait(seconds)
    if event is not None:
        return event.kind == "device-removed"
    return _find(domain.xml(), path) is None


def _find(root: etree._Element, path: str) -> etree._Element | None:
    """Return the first match of an XPath expression (lxml's ``find`` knows no nested predicates)."""
    found = root.xpath(path)
    return found[0] if isinstance(found, list) and found else None  # type: ignore[return-value]


def _alias(node: etree._Element) -> str:
    alias = node.find("alias")
    return alias.get("name", "") if alias is not None else ""
