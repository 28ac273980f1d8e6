"""What the agent depends on hangs: libvirtd, image servers, one request many times over."""

import os
import signal
import socket
import time
from typing import Any

from kvmdriver import exception, model
from tests import namespace
from tests.functional.guests.service import AgentTest
from tests.functional.hanging import DrippingServer, InBackground, hang, in_time

# The grace that requests have here, the time to undo them, and what comes before and after.
END_SECONDS = 15


class HungServicesTest(AgentTest):
    """An agent of its own on a broker, since its threads and its end are what is looked at."""

    def _config(self) -> str:
        config = super()._config().replace("[kvm_agent]\n", "[kvm_agent]\nshutdown_grace = 3\n")
        # else a server that sends next to nothing is left after half a minute
        return config.replace("[kvm_storage]\n", "[kvm_storage]\ndownload_min_rate = 0\n")

    def dripping(self) -> DrippingServer:
        server = DrippingServer()
        self.addCleanup(server.close)
        return server

    def create_from(self, image: dict[str, str]) -> tuple[model.Instance, InBackground]:
        request = self.request(disks=[{"image": image}], nics=[], config_drive=None)
        self.made.add(request.uuid)
        return request, InBackground(self.remote.build_and_run_instance, request)

    def tiny(self, *, start: bool = True) -> model.InstanceView:
        """An instance that has nothing to boot."""
        request = self.request(
            memory={"current_mib": 32}, disks=[{"size_mib": 1}], nics=[], config_drive=None
        )
        self.made.add(request.uuid)
        return self.remote.build_and_run_instance(request, start=start)

    def end_in_time(self) -> None:
        began = time.monotonic()
        self.assertEqual(0, self.service.stop(), self.service.tail())
        self.assertLess(time.monotonic() - began, END_SECONDS)

    def everything_else_goes_on(self) -> None:
        self.assertTrue(in_time(self, self.remote.answers, self.conf.kvm_agent.host))
        in_time(self, self.remote.list_instances)
        view = in_time(self, self.tiny)
        in_time(self, self.remote.get_instance, view.name)
        in_time(self, self.remote.stop_instance, view.name, timeout=0)
        in_time(self, self.remote.start_instance, view.name)
        in_time(self, self.remote.terminate_instance, view.name)

    def refused_in_time(self) -> None:
        for question, arguments in (
            (self.remote.list_instances, ()),
            (self.remote.get_instance, ("web",)),
            (self.remote.get_host, ()),
        ):
            with self.assertRaises(exception.HypervisorUnavailable):
                in_time(self, question, *arguments)


class SlowImagesTest(HungServicesTest):
    def test_more_downloads_than_the_agent_takes(self) -> None:
        server = self.dripping()
        creates = [self.create_from(server.image(f"image-{number}")) for number in range(24)]
        for _ in range(4):
            self.assertTrue(server.asked.acquire(timeout=30))
        namespace.wait_for(lambda: sum(create.ended for _r, create in creates) == 4, 30)
        self.assertEqual(
            ["agent_busy"] * 4, [create.code for _r, create in creates if create.ended]
        )
        self.assertFalse(server.asked.acquire(blocking=False), "a fifth download was begun")
        self.everything_else_goes_on()
        waiting = [(request, create) for request, create in creates if not create.ended]
        self.assertEqual(
            {"building"}, {view.status for view in in_time(self, self.remote.list_instances)}
        )
        for request, create in waiting[:3]:
            in_time(self, self.remote.terminate_instance, request.uuid)
            self.assertTrue(create.wait(5))
            self.assertEqual("operation_cancelled", create.code)
        self.assertEqual(17, len(self.remote.list_instances()))
        self.end_in_time()
        self.restart_agent()
        self.assertEqual([], self.remote.list_instances())
        self.assert_nothing_left()

    def test_one_image_for_many(self) -> None:
        server = self.dripping()
        creates = [self.create_from(server.image("image")) for _ in range(16)]
        self.assertTrue(server.asked.acquire(timeout=30))
        self.everything_else_goes_on()
        self.assertFalse(server.asked.acquire(blocking=False), "it is downloaded twice")
        for request, _create in creates:
            in_time(self, self.remote.terminate_instance, request.uuid)
        for _request, create in creates:
            self.assertTrue(create.wait(5))
            self.assertEqual("operation_cancelled", create.code)
        self.assert_nothing_left()

    def test_one_request_many_times(self) -> None:
        server = self.dripping()
        request = self.request(
            disks=[{"image": server.image("image")}], nics=[], config_drive=None
        )
        self.made.add(request.uuid)

        def deliver() -> Any:
            return self.remote._call(
                "build_and_run_instance",
                self.conf.kvm_agent.host,
                {"instance": request.to_wire(), "request_id": "the-same"},
                "changes",
            )

        deliveries = [InBackground(deliver) for _ in range(18)]
        self.assertTrue(server.asked.acquire(timeout=30))
        namespace.wait_for(lambda: sum(d.ended for d in deliveries) == 15, 30)
        self.assertEqual({"request_under_way"}, {d.code for d in deliveries if d.ended})
        namespace.wait_for(lambda: self._stage("the-same") == "download image", 10)
        self.everything_else_goes_on()
        in_time(self, self.remote.terminate_instance, request.uuid)
        for delivery in deliveries:
            self.assertTrue(delivery.wait(5))
        self.assert_nothing_left()

    def _stage(self, request_id: str) -> str | None:
        progress = in_time(self, self.remote.get_progress, request_id)
        return None if progress is None else progress.stage

    def test_the_agent_ends_while_a_guest_hangs(self) -> None:
        view = self.tiny()
        hang(self, view.name)
        pausing = InBackground(self.remote.pause_instance, view.name)
        namespace.wait_for(
            lambda: in_time(self, self.remote.get_instance, view.name).unresponsive, 20
        )
        self.end_in_time()
        self.assertTrue(pausing.wait(30))
        self.restart_agent()
        self.assertEqual("running", in_time(self, self.remote.get_instance, view.name).status)
        self.remote.terminate_instance(view.name)
        self.assert_nothing_left()


class HungLibvirtdTest(HungServicesTest):
    def libvirtd(self) -> int:
        with open(namespace.PIDFILE) as pidfile:
            return int(pidfile.read())

    def test_libvirtd_is_stopped(self) -> None:
        view = self.tiny()
        pid = self.libvirtd()
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        began = time.monotonic()
        questions = [InBackground(self.remote.list_instances) for _ in range(31)]
        self.assertTrue(in_time(self, self.remote.answers, self.conf.kvm_agent.host))
        for question in questions:
            self.assertTrue(question.wait(max(0, began + 6 - time.monotonic())))
            self.assertIsInstance(question.error, exception.HypervisorUnavailable)
        self.refused_in_time()
        self.assertTrue(in_time(self, self.remote.answers, self.conf.kvm_agent.host))
        with self.assertRaises(exception.HypervisorUnavailable):
            self.remote.pause_instance(view.name)
        os.kill(pid, signal.SIGCONT)
        namespace.wait_for(self._answers, 30)
        self.assertEqual([view.name], [v.name for v in self.remote.list_instances()])
        os.kill(pid, signal.SIGSTOP)
        hanging = InBackground(self.remote.pause_instance, view.name)
        self.assertFalse(hanging.wait(1))
        self.end_in_time()
        os.kill(pid, signal.SIGCONT)
        self.restart_agent()
        self.assertEqual([view.name], [v.name for v in self.remote.list_instances()])

    def _answers(self) -> bool:
        try:
            self.remote.list_instances()
        except exception.HypervisorUnavailable:
            return False
        return True


class MuteLibvirtdTest(HungServicesTest):
    """A socket that takes connections, and nothing behind it that answers."""

    def _config(self) -> str:
        path = os.path.join(self.state, "mute")
        mute = self.enterContext(socket.socket(socket.AF_UNIX))
        mute.bind(path)
        mute.listen()
        uri = f"qemu+unix:///system?socket={path}"
        return super()._config().replace("[kvm]\n", f"[kvm]\nuri = {uri}\n")

    def test_it_is_told_in_time(self) -> None:
        for _ in range(3):
            self.refused_in_time()
            self.assertTrue(in_time(self, self.remote.answers, self.conf.kvm_agent.host))
        self.end_in_time()
