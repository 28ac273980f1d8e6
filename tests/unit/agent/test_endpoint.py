"""The door: requests are parsed, errors typed, redelivered messages carried out once."""

import threading
import unittest
from typing import Any
from unittest import mock

import oslo_messaging as messaging

from kvmdriver import exception, model
from kvmdriver.agent import server
from kvmdriver.agent.endpoint import Endpoint
from kvmdriver.agent.migration import Peer

VIEW = model.InstanceView(
    uuid="6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44",
    name="web",
    status="running",
    memory_mib=1,
    memory_maximum_mib=1,
    vcpus=1,
    vcpus_maximum=1,
)
INSTANCE = {"name": "web", "disks": [{"size_mib": 1}]}


class EndpointTest(unittest.TestCase):
    def setUp(self) -> None:
        # The driver is replaced: what matters here is what reaches it, and how often.
        self.driver = mock.Mock()
        self.notifier = mock.Mock()
        self.endpoint = Endpoint(self.driver, self.notifier, mock.Mock())

    def error_of(self, method: Any, /, **payload: Any) -> exception.KVMDriverError:
        with self.assertRaises(messaging.ExpectedException) as caught:
            method({}, **payload)
        error = caught.exception.exc_info[1]
        self.assertIsInstance(error, exception.KVMDriverError)
        return error

    def events(self) -> list[str]:
        return [c.args[0] for c in self.notifier.mock_calls]

    def test_answers_are_plain(self) -> None:
        self.driver.spawn.return_value = VIEW
        answer = self.endpoint.build_and_run_instance({}, instance=INSTANCE)
        self.assertEqual("running", answer["status"])
        self.assertEqual(["instance.create.start", "instance.create.end"], self.events())

    def test_malformed_payloads_never_reach_the_driver(self) -> None:
        for method, payload, field in (
            (self.endpoint.build_and_run_instance, {}, "instance"),
            (self.endpoint.build_and_run_instance, {"instance": {"name": "<"}}, "instance.name"),
            (self.endpoint.start_instance, {"instance": "../x"}, "instance"),
            (self.endpoint.start_instance, {"instance": {}}, "instance"),
            (self.endpoint.stop_instance, {"instance": "a", "timeout": -1}, "timeout"),
            (self.endpoint.reboot_instance, {"instance": "a", "type": "x"}, "type"),
            (self.endpoint.reboot_instance, {"instance": "a", "self": 1, "ctxt": 2}, "self"),
            (self.endpoint.list_instances, {"surprise": 1}, "surprise"),
            (self.endpoint.prune_image_cache, {"names": ["../disk"]}, "names.0"),
            (self.endpoint.snapshot_instance, {"instance": "a", "path": "x"}, "path"),
        ):
            error = self.error_of(method, **payload)
            self.assertEqual(("invalid_request", field), (error.code, error.field))
        self.assertEqual([], self.driver.mock_calls)

    def test_errors_are_announced(self) -> None:
        self.driver.power_on.side_effect = exception.InvalidState("no", instance="web")
        self.assertEqual(
            "invalid_state", self.error_of(self.endpoint.start_instance, instance="web").code
        )
        self.assertEqual(["instance.start.start", "instance.start.error"], self.events())
        self.assertEqual("invalid_state", self.notifier.error.call_args.args[1]["error"]["code"])

    def test_unexpected_errors_tell_nothing_but_their_name(self) -> None:
        self.driver.power_on.side_effect = ZeroDivisionError("secret detail")
        with self.assertLogs("kvmdriver.agent.methods", "ERROR"):
            error = self.error_of(self.endpoint.start_instance, instance="web")
        self.assertEqual("internal_error", error.code)
        self.assertNotIn("secret", str(error))

    def test_a_redelivered_request_is_carried_out_once(self) -> None:
        for _ in range(3):
            self.endpoint.reboot_instance({}, instance="web", request_id="r1")
        self.assertEqual(1, self.driver.reboot.call_count)
        self.endpoint.reboot_instance({}, instance="web", request_id="r2")
        self.assertEqual(2, self.driver.reboot.call_count)

    def test_an_id_is_bound_to_what_was_asked(self) -> None:
        self.driver.destroy.return_value = ()
        self.endpoint.terminate_instance({}, instance="a", request_id="r1")
        secret = {**INSTANCE, "consoles": {"vnc_password": "a"}}
        self.driver.spawn.return_value = VIEW
        self.endpoint.build_and_run_instance({}, instance=secret, request_id="r2")
        calls = len(self.driver.mock_calls)
        other = {**INSTANCE, "consoles": {"vnc_password": "b"}}
        for method, payload in (
            (self.endpoint.terminate_instance, {"instance": "b", "request_id": "r1"}),
            (self.endpoint.start_instance, {"instance": "a", "request_id": "r1"}),
            (
                self.endpoint.terminate_instance,
                {"instance": "a", "keep_disks": True, "request_id": "r1"},
            ),
            (self.endpoint.build_and_run_instance, {"instance": other, "request_id": "r2"}),
        ):
            error = self.error_of(method, **payload)
            self.assertEqual(("request_conflict", "request_id"), (error.code, error.field))
            self.assertIsInstance(error, exception.InvalidRequest)
        self.assertEqual(calls, len(self.driver.mock_calls))
        # an instance without a UUID of its own is still the same request
        self.endpoint.build_and_run_instance({}, instance=secret, request_id="r2")
        self.assertEqual(calls, len(self.driver.mock_calls))

    def test_what_an_instance_remembers_of_a_request_tells_no_secret(self) -> None:
        self.driver.spawn.return_value = VIEW
        seen = []
        for password in ("a", "b"):
            instance = {**INSTANCE, "consoles": {"vnc_password": password}}
            self.endpoint.build_and_run_instance({}, instance=instance, request_id=f"r{password}")
            seen.append(self.driver.spawn.call_args.kwargs["request_id"].partition(":")[2])
        self.assertEqual(1, len(set(seen)))
        self.assertRegex(seen[0], "^[0-9a-f]{64}$")

    def test_a_request_under_way_is_waited_for(self) -> None:
        under_way, go_on = threading.Event(), threading.Event()

        def slow(*_args: object, **_named: object) -> model.InstanceView:
            under_way.set()
            go_on.wait(5)
            return VIEW

        self.driver.spawn.side_effect = slow
        answers: list[Any] = []
        payload = {"instance": INSTANCE, "request_id": "r1"}
        threads = [
            threading.Thread(
                target=lambda: answers.append(self.endpoint.build_and_run_instance({}, **payload))
            )
            for _ in range(2)
        ]
        threads[0].start()
        under_way.wait(5)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(1, self.driver.spawn.call_count)
        self.assertEqual(answers[0], answers[1])

    def test_a_failed_request_may_be_tried_again(self) -> None:
        self.driver.power_on.side_effect = [exception.InvalidState("no"), None]
        self.error_of(self.endpoint.start_instance, instance="web", request_id="r1")
        self.assertIsNone(self.endpoint.start_instance({}, instance="web", request_id="r1"))

    def test_progress(self) -> None:
        def spawn(*_args: object, progress: Any, **_named: object) -> model.InstanceView:
            progress("download image", 5, 10)
            return VIEW

        self.driver.spawn.side_effect = spawn
        self.endpoint.build_and_run_instance({}, instance=INSTANCE, request_id="r1")
        view = self.endpoint.get_progress({}, of="r1")
        self.assertEqual(
            ("download image", 5, 10, True),
            tuple(view[k] for k in ("stage", "done", "total", "finished")),
        )
        self.assertIn("instance.create.progress", self.events())
        self.assertIsNone(self.endpoint.get_progress({}, of="other"))

    def test_of_many_deliveries_of_one_request_few_wait(self) -> None:
        begun, end = threading.Event(), threading.Event()
        self.addCleanup(end.set)

        def hang(*_arguments: Any, **_named: Any) -> None:
            begun.set()
            end.wait()

        self.driver.power_on.side_effect = hang
        codes: list[str] = []
        answers: list[Any] = []

        def deliver() -> None:
            try:
                answers.append(
                    self.endpoint.start_instance({}, instance="web", request_id="again")
                )
            except messaging.ExpectedException as error:
                codes.append(error.exc_info[1].code)

        threads = [threading.Thread(target=deliver) for _ in range(18)]
        threads[0].start()
        self.assertTrue(begun.wait(5))
        for thread in threads[1:]:
            thread.start()
        while sum(thread.is_alive() for thread in threads) > 3:
            threading.Event().wait(0.01)
        self.assertEqual(["request_under_way"] * 15, codes)
        end.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(3, len(answers))
        self.assertEqual(1, self.driver.power_on.call_count)
        self.assertIsNone(
            self.endpoint.start_instance({}, instance="web", request_id="again"),
            "the answer is remembered for those who ask again",
        )
        self.assertEqual(1, self.driver.power_on.call_count)


class LanesTest(unittest.TestCase):
    def test_every_method_has_a_lane(self) -> None:
        methods = [n for n in dir(Endpoint) if not n.startswith("_") and n != "target"]
        lanes = {name: getattr(getattr(Endpoint, name), "lane", None) for name in methods}
        self.assertEqual({"changes", "reads", "peers"}, set(lanes.values()))
        self.assertEqual("peers", lanes["pre_live_migration"])
        # asked while both hosts may be busy: these ask nobody else
        for name in ("ping", "get_progress", "is_moving", "destination_state", "has_evacuated"):
            self.assertEqual("reads", lanes[name], name)

    def test_each_topic_takes_what_is_meant_for_it(self) -> None:
        endpoint = Endpoint(mock.Mock(), mock.Mock(), mock.Mock())
        allowed = {
            lane: {
                name
                for name in ("list_instances", "start_instance", "pre_live_migration", "_once")
                if policy().is_allowed(endpoint, name)
            }
            for lane, policy in server.POLICIES.items()
        }
        self.assertEqual({"list_instances"}, allowed["reads"])
        self.assertEqual({"pre_live_migration"}, allowed["peers"])
        self.assertEqual({"list_instances", "start_instance"}, allowed["changes"])

    def test_agents_ask_each_other_on_the_topic_that_answers(self) -> None:
        caller = mock.MagicMock()
        peer = Peer(caller, "kvm2")
        caller.ask.return_value = {"moving": True, "state": "none", "here": False}
        peer.destination_state("uuid", "migration")
        peer.is_moving("uuid", "migration")
        peer.has_evacuated("uuid", "kvm1")
        peer.forget_evacuated("uuid", "kvm1")
        peer.finish("uuid", "migration")
        peer.roll_back("uuid", "migration")
        for ask in (peer.check, peer.prepare):
            self.assertRaises(ValueError, ask, mock.Mock())  # the answer is none
        self.assertRaises(ValueError, peer.receiver, "uuid", "migration")
        asked = {c.args[0]: c.kwargs.get("lane", "peers") for c in caller.ask.call_args_list}
        self.assertEqual(9, len(asked))
        declared = {name: getattr(Endpoint, name).lane for name in asked}
        self.assertEqual(declared, asked)
