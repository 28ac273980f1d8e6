"""Asking a guest to shut down or to reboot, and waiting until it has."""

import time
from collections.abc import Callable

from kvmdriver import exception
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.hypervisor import Hypervisor

# A press of the power button that the firmware gets is lost, so it is pressed again.
_PRESS_AGAIN_SECONDS = 8


def shut_down(
    hypervisor: Hypervisor,
    domain: Domain,
    seconds: float,
    kind: str,
    press: Callable[[], None],
    *,
    again: float = _PRESS_AGAIN_SECONDS,
) -> bool:
    """Press the button until the event comes; return False if it does not come in time.

    :param kind: the event to wait for, ``stopped`` or ``rebooted``.
    :param again: seconds after which the button is pressed once more.
    """
    deadline = time.monotonic() + seconds
    with hypervisor.events.expect(domain.uuid, kind, "stopped", "crashed") as expected:
        while (left := deadline - time.monotonic()) > 0:
            try:
                with hypervisor.connection.within(left):
                    press()
            except exception.InvalidState:
                return not domain.is_active() if kind == "stopped" else False
            except exception.InstanceUnresponsive:
                return False  # a QEMU that does not answer passes no button on
            except exception.HypervisorUnavailable:
                # libvirtd went away: the guest may react nevertheless
                domain = _find_again(hypervisor, domain, deadline)
                press = domain.press_power_button if kind == "stopped" else domain.reboot
                continue
            event = expected.wait(min(left, again))
            if event is not None:
                # a guest that only went off during a reboot still has to be started
                return event.kind == kind
            if kind == "stopped" and not domain.is_active():
                return True
    return False


def _find_again(hypervisor: Hypervisor, domain: Domain, deadline: float) -> Domain:
    while True:
        try:
            return hypervisor.domain(domain.uuid)
        except exception.HypervisorUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
