"""Random and mutated payloads: the agent answers each in our words, and lives on."""

import copy
import logging
import random
from typing import Any

import oslo_messaging as messaging
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from kvmdriver import exception
from kvmdriver.agent import transport as bus
from tests.functional.base import FunctionalTest, guest_file

METHODS = [
    "build_and_run_instance", "terminate_instance", "clone_instance", "snapshot_instance",
    "rename_instance", "start_instance", "stop_instance", "reboot_instance", "suspend_instance",
    "resume_instance", "pause_instance", "unpause_instance", "set_autostart", "set_memory",
    "set_vcpus", "attach_volume", "detach_volume", "attach_interface", "detach_interface",
    "get_console_output", "get_vnc_console", "get_serial_console", "get_screenshot",
    "list_instances", "get_instance", "get_diagnostics", "get_host", "list_systems",
    "get_progress", "ping", "_once", "__class__", "no_such_method", "",
]  # fmt: skip


def unexpected(record: logging.LogRecord) -> bool:
    """Whether a log entry is of another error than a method that does not exist."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, messaging.NoSuchMethod)


RUBBISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(["../../etc/passwd", "<domain/>", "&xxe;", "$(reboot)", "a\0b", "x" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)

# Valid requests, to be damaged. What they ask for does not exist, so none makes anything.
VALID: dict[str, dict[str, Any]] = {
    "build_and_run_instance": {
        "start": False,
        "instance": {
            "name": "victim",
            "uuid": "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44",
            "memory": {"current_mib": 64, "maximum_mib": 128},
            "vcpus": {"current": 1, "maximum": 2},
            "cpu": {"mode": "custom", "models": ["qemu64"], "features": [{"name": "svm"}]},
            "disks": [
                {"image": {"type": "file", "path": guest_file("does-not-exist")}, "bus": "virtio"},
                {"size_mib": 5, "limits": {"total_iops_sec": 5}},
            ],
            "nics": [{"type": "network", "source": "default", "mac": "52:54:00:00:00:01"}],
            "config_drive": {"hostname": "x", "user_data": "x"},
            "consoles": {"vnc_password": "x"},
            "os_variant": "debian11",
        },
    },
    "reboot_instance": {"instance": "nobody", "type": "hard", "timeout": 1.0},
    "clone_instance": {
        "instance": "nobody", "name": "copy", "uuid": "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44",
    },
    "attach_volume": {"instance": "nobody", "disk": {"size_mib": 5, "bus": "scsi"}},
    "snapshot_instance": {"instance": "nobody", "path": "/var/tmp/x", "format": "raw"},
    "set_memory": {"instance": "nobody", "current_mib": 64},
}  # fmt: skip


def mutate(data: Any, choice: random.Random, rubbish: Any) -> Any:
    """A copy of ``data`` with one value somewhere in it replaced, removed or added."""
    data = copy.deepcopy(data)
    place = data
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return rubbish
        key = choice.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and choice.random() < 0.8:
            place = inner
            continue
        action = choice.randrange(3)
        if action == 0:
            place[key] = rubbish
        elif action == 1:
            del place[key]
        elif isinstance(place, dict):
            place[str(choice.random())] = rubbish
        else:
            place.append(rubbish)
        return data


class HostilePayloadsTest(FunctionalTest):
    def setUp(self) -> None:
        super().setUp()
        self.made.add("6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44")
        conf = self.api._conf
        self.raw = messaging.get_rpc_client(self.api._transport, bus.target(conf)).prepare(
            server=conf.kvm_agent.host, timeout=60
        )
        # more than a hundred tracebacks that are expected would hide one that is not
        server = logging.getLogger("oslo_messaging.rpc.server")
        server.addFilter(unexpected)
        self.addCleanup(server.removeFilter, unexpected)

    def send(self, method: str, payload: dict[str, Any]) -> None:
        try:
            self.raw.call({}, method, **payload)
        except exception.KVMDriverError as error:
            self.assertNotEqual("internal_error", error.code, f"{method} {payload}: {error}")
        except (messaging.NoSuchMethod, AttributeError) as error:
            self.assertIn(method, str(error))
            self.assertNotIn(method, METHODS[:30])
        self.sent += 1

    def test_two_thousand_of_them(self) -> None:
        self.sent = 0
        common = {
            "database": None,
            "deadline": None,
            "suppress_health_check": list(HealthCheck),
        }

        @seed(20261122)
        @settings(max_examples=1000, **common)
        @given(
            st.sampled_from(METHODS), st.dictionaries(st.text(max_size=12), RUBBISH, max_size=4)
        )
        def random_payloads(method: str, payload: dict[str, Any]) -> None:
            # these two are oslo.messaging's own argument names and never leave the client
            payload = {k: v for k, v in payload.items() if k not in ("ctxt", "method")}
            self.send(method, payload)

        @seed(20261123)
        @settings(max_examples=1000, **common)
        @given(st.sampled_from(sorted(VALID)), st.integers(0, 2**32), RUBBISH)
        def mutated_payloads(method: str, number: int, rubbish: Any) -> None:
            payload = mutate(VALID[method], random.Random(number), rubbish)
            if isinstance(payload, dict):
                self.send(method, payload)

        random_payloads()
        mutated_payloads()
        self.assertGreaterEqual(self.sent, 1950)
        self.assertEqual({"version": "1.0"}, self.raw.call({}, "ping"))
        self.assertEqual([], self.api.list_instances())
        self.assert_nothing_left()
