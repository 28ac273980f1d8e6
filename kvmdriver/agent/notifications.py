"""Notifications: what happens to instances, for whoever listens on the bus."""

import concurrent.futures
import logging
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg

from kvmdriver.hypervisor.events import Event
from kvmdriver.model import MigrationView

LOG = logging.getLogger(__name__)

# What the guest or the hypervisor does of its own accord is told, too.
_LIFECYCLE = frozenset(
    {"started", "stopped", "crashed", "suspended", "resumed", "rebooted", "io-error", "watchdog"}
)


class Notifier:
    """Sends in a thread of its own: a slow bus slows nobody down. In order, and never raising."""

    def __init__(self, conf: cfg.ConfigOpts, transport: Any | None = None):
        topic = conf.kvm_agent.notification_topic
        self._host = conf.kvm_agent.host
        self._notifier: messaging.Notifier | None = None
        if topic:
            self._notifier = messaging.Notifier(
                transport or messaging.get_notification_transport(conf),
                publisher_id=f"kvmdriver.{self._host}",
                driver="messagingv2",
                topics=[topic],
                retry=3,
            )
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "notifications")

    def info(self, event_type: str, payload: dict[str, Any]) -> None:
        self._send("info", event_type, payload)

    def error(self, event_type: str, payload: dict[str, Any]) -> None:
        self._send("error", event_type, payload)

    def on_event(self, event: Event) -> None:
        """Tell what happened to a domain; a subscriber of the driver's events."""
        if event.uuid is not None and event.kind in _LIFECYCLE:
            self.info(f"instance.lifecycle.{event.kind}", {"instance": event.uuid})

    def on_migration(self, view: MigrationView) -> None:
        """Tell how far a migration is; a subscriber of the driver's."""
        self.info("instance.migration.progress", view.model_dump(mode="json"))

    def close(self, seconds: float) -> None:
        """Send what is in line, as far as the bus takes it within so many seconds."""
        last = self._pool.submit(lambda: None)
        self._pool.shutdown(wait=False, cancel_futures=False)
        concurrent.futures.wait([last], seconds)

    def _send(self, priority: str, event_type: str, payload: dict[str, Any]) -> None:
        if self._notifier is not None:
            try:
                self._pool.submit(self._deliver, priority, event_type, payload)
            except RuntimeError:
                LOG.debug("%s came after the end", event_type)

    def _deliver(self, priority: str, event_type: str, payload: dict[str, Any]) -> None:
        try:
            getattr(self._notifier, priority)({}, event_type, {"host": self._host, **payload})
        except Exception:
            LOG.exception("could not send the notification %s", event_type)
