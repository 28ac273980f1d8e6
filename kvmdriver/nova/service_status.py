"""The compute service is disabled while libvirt does not answer, and enabled again afterwards."""

import threading

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from oslo_log import log as logging

from kvmdriver.hypervisor.events import Event

LOG = logging.getLogger(__name__)

# Only what was disabled by a driver is enabled by one; an operator's own decision stays.
_PREFIX = "AUTO: "
_REASON = _PREFIX + "Connection to libvirt lost"


class Watcher:
    """Follows the connection to libvirt."""

    def __init__(self, host: str):
        self._host = host

    def on_event(self, event: Event) -> None:
        """Take an event of the bus; another thread does the work, as the conductor may be slow."""
        if event.kind in ("connected", "disconnected"):
            up = event.kind == "connected"
            threading.Thread(target=self._set, args=(up,), daemon=True).start()

    def _set(self, enabled: bool) -> None:
        context = nova_context.get_admin_context()
        try:
            service = objects.Service.get_by_compute_host(context, self._host)
            ours = (service.disabled_reason or "").startswith(_PREFIX)
            if enabled and service.disabled and ours:
                service.disabled, service.disabled_reason = False, None
            elif not enabled and not service.disabled:
                service.disabled, service.disabled_reason = True, _REASON
            else:
                return
            service.save()
        except nova_exception.ComputeHostNotFound:
            LOG.info("the service of %s is not known yet", self._host)
        except Exception:
            LOG.exception("could not set the status of the service")
