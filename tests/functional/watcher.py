"""Somebody who listens to the notifications of agents."""

import unittest
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg


class Watcher:
    """Listens to notifications and keeps their types and payloads."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def info(self, _ctxt, _publisher, event_type, payload, _metadata):  # type: ignore[no-untyped-def]
        self.seen.append((event_type, payload))

    error = info

    def types(self, *instances: str) -> list[str]:
        """Types of what was told of an instance, which goes by its name and by its UUID."""
        return [kind for kind, payload in self.seen if payload["instance"] in instances]

    def payloads(self, event_type: str) -> list[dict[str, Any]]:
        """What was told with one type of notification, in order."""
        return [payload for kind, payload in self.seen if kind == event_type]


def watch(test: unittest.TestCase, conf: cfg.ConfigOpts, url: str) -> Watcher:
    """Listen until the end of the test."""
    watcher = Watcher()
    transport = messaging.get_notification_transport(conf, url=url)
    listener = messaging.get_notification_listener(
        transport,
        [messaging.Target(topic="kvmdriver_notifications")],
        [watcher],
        executor="threading",
    )
    listener.start()
    test.addCleanup(transport.cleanup)
    test.addCleanup(listener.wait)
    test.addCleanup(listener.stop)
    return watcher
