"""How a migration that libvirt does not work on any more has ended, and what follows. Pure.

Only one host may have the guest. Who has it follows from what both have of it now, not from what
either remembers: the destination that runs it has it, whatever the source does; the source has it
otherwise, unless it knows that the guest has left.

Source: libvirt's migration protocol, version 3 (https://libvirt.org/migration.html and
src/qemu/qemu_migration.c): the source is paused before the destination starts, and goes on if
the destination is not heard of again, which may be wrong.
"""

from typing import Literal

from kvmdriver.hypervisor.migration import Presence
from kvmdriver.model.migration import DestinationState

Verdict = Literal["finish", "roll-back", "wait"]

# Seconds for which the end of a migration may still be on its way between the two libvirtds.
GRACE = 10.0


def decide(
    here: Presence,
    there: DestinationState | None,
    *,
    moving: bool = False,
    before_switch: bool = False,
    waited: float = GRACE,
) -> Verdict:
    """Return what the source has to do.

    :param there: None when the destination cannot be asked.
    :param moving: libvirt still works on the migration.
    :param before_switch: the guest is known not to have been handed over.
    :param waited: seconds since libvirt has ended.
    """
    if moving:
        return "wait"
    if there is None:
        return "roll-back" if before_switch and here == "on" else "wait"
    if there == "here":
        return "finish"
    if there == "lost":
        # it ran there: what it has written is there, what is in its memory here is old
        return "roll-back" if here == "on" else "finish"
    if here in ("post-copy", "lost"):
        if there == "incoming" and waited < GRACE:
            return "wait"
        return "finish"
    if here == "off-migrated":
        return "wait" if there == "incoming" and waited < GRACE else "finish"
    if here == "handed-over" and there == "incoming" and waited < GRACE:
        return "wait"
    return "roll-back"
