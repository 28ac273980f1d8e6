"""Two agents on one directory of instances: what is one host's, or nobody's, stays as it is."""

import concurrent.futures
import hashlib
import http.server
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

from kvmdriver import exception, model
from kvmdriver.storage import description as descriptions
from tests.multihost.base import MultihostTest


class SharedDirectoryTest(MultihostTest):
    hosts = 3

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []

    def directory(self, uuid: str) -> pathlib.Path:
        return pathlib.Path(self.laboratory.shared_storage, uuid)

    def files(self, uuid: str) -> dict[str, tuple[int, int, str]]:
        """Inode, mode and content of every file of an instance."""
        return {
            path.name: (
                path.stat().st_ino,
                path.stat().st_mode,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in self.directory(uuid).iterdir()
        }

    def request(self, uuid: str, **fields: Any) -> model.Instance:
        """An instance that boots the test guest, with a UUID that may be another's."""
        data: dict[str, Any] = {
            "name": f"late-{uuid[:8]}",
            "uuid": uuid,
            "memory": {"current_mib": 192},
            "disks": [self.guest_disk()],
        }
        return model.Instance.parse(data | fields)

    def dead_image(self) -> dict[str, Any]:
        """A disk whose image cannot be had; the server notes that it was asked."""
        asked = self.asked

        class Server(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_args: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("10.98.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f"http://10.98.0.1:{server.server_port}/image"
        return {"image": {"type": "url", "url": url, "checksum": "sha256:" + "0" * 64}}

    def refused(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
        """What is said of a UUID that is taken."""
        with self.assertRaises(exception.InstanceExists) as caught:
            call(*arguments, **named)
        self.assertEqual("uuid", caught.exception.field)
        self.assertTrue(caught.exception.remedy)
        return caught.exception.message

    def assert_refused_in_every_way(self, uuid: str, host: str, owner: str) -> None:
        """No create and no clone takes the UUID on a host."""
        build = self.api.build_and_run_instance
        for fields in ({}, {"disks": [self.dead_image()]}, {"disks": [{"size_mib": 8}]}):
            self.assertIn(owner, self.refused(build, self.request(uuid, **fields), host=host))
        other = self.create(
            self.second if host == "kvm2" else self.first, disks=[{"size_mib": 8}], nics=[]
        )
        self.api.stop_instance(other.name, timeout=0, host=host)
        message = self.refused(
            self.api.clone_instance, other.name, f"clone-{uuid[:8]}", uuid=uuid, host=host
        )
        self.assertIn(owner, message)
        self.assertEqual([], self.asked, "an image was asked for")

    def test_a_running_guest_of_another_host(self) -> None:
        with self.agents(shared=True):
            view = self.create()
            guest = self.guest_of(view)
            before = {name: entry[:2] for name, entry in self.files(view.uuid).items()}
            self.assert_refused_in_every_way(view.uuid, "kvm2", "of kvm1")
            after = {name: entry[:2] for name, entry in self.files(view.uuid).items()}
            self.assertEqual(before, after)
            self.assertEqual({"kvm1": "running"}, self.where(view.uuid))
            guest.run("echo alive > /root/proof; sync")
            self.assertEqual((), self.api.terminate_instance(view.uuid, host="kvm2"))
            self.api.stop_instance(view.name, timeout=60)
            self.api.start_instance(view.name)
            self.assertEqual("alive", self.guest_of(view).run("cat /root/proof"))

    def test_a_stopped_instance_of_another_host(self) -> None:
        with self.agents(shared=True):
            view = self.create()
            self.guest_of(view).run("echo kept > /root/kept; sync")
            self.api.stop_instance(view.name, timeout=60)
            before = self.files(view.uuid)
            self.assert_refused_in_every_way(view.uuid, "kvm2", "of kvm1")
            # nor does an agent that starts again take anything away
            self.second.kill_agent()
            self.second.start_agent()
            self.assertEqual([], [i.uuid for i in self.api.list_instances(host="kvm2")
                                  if i.uuid == view.uuid])  # fmt: skip
            self.assertEqual(before, self.files(view.uuid))
            self.api.start_instance(view.name)
            self.assertEqual("kept", self.guest_of(view).run("cat /root/kept"))

    def test_kept_disks(self) -> None:
        with self.agents(shared=True):
            view = self.create(nics=[])
            self.api.terminate_instance(view.uuid, keep_disks=True)
            before = self.files(view.uuid)
            self.assertEqual(["disk"], list(before))
            for host in ("kvm1", "kvm2"):
                self.assert_refused_in_every_way(view.uuid, host, "--keep-disks")
                self.assertEqual(before, self.files(view.uuid))
            self.first.kill_agent()
            self.first.start_agent()
            self.assertEqual(before, self.files(view.uuid))
            os.unlink(self.directory(view.uuid) / "disk")
            # an empty directory is nobody's
            self.made.add(view.uuid)
            again = self.api.build_and_run_instance(self.request(view.uuid))
            self.assertEqual("running", again.status)

    def test_the_same_instance_on_two_hosts_at_the_same_time(self) -> None:
        def build(uuid: str, host: str) -> str:
            try:
                return self.api.build_and_run_instance(self.request(uuid), host=host).status
            except exception.InstanceExists as error:
                return error.message

        with self.agents(shared=True), concurrent.futures.ThreadPoolExecutor() as pool:
            for number in range(5):
                uuid = f"0a1b2c3d-0000-4000-8000-00000000000{number}"
                self.made.add(uuid)
                calls = [pool.submit(build, uuid, host) for host in ("kvm1", "kvm2")]
                outcomes = [call.result(120) for call in calls]
                winner = f"kvm{outcomes.index('running') + 1}"
                loser = outcomes[outcomes[0] == "running"]
                self.assertIn(f"of {winner}", loser)
                self.assertEqual({winner: "running"}, self.where(uuid))
                mark = descriptions.read(str(self.directory(uuid)))
                assert mark is not None
                self.assertEqual((winner, None), (mark.host, mark.building))
                self.api.terminate_instance(uuid, host=winner)
                self.assertFalse(self.directory(uuid).exists())

    def test_evacuation_beside_a_create(self) -> None:
        with self.agents(shared=True), concurrent.futures.ThreadPoolExecutor() as pool:
            view = self.create()
            self.guest_of(view).run("echo kept > /root/kept; sync")
            self.first.crash()
            back = pool.submit(self.api.evacuate, view.name, "kvm1", fenced=True, host="kvm2")
            for _ in range(10):
                message = self.refused(
                    self.api.build_and_run_instance, self.request(view.uuid), host="kvm3"
                )
                self.assertRegex(message, "of kvm[12]")
            self.assertEqual("running", back.result(120).status)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            self.assertEqual("kept", self.guest_of(view).run("cat /root/kept"))
            self.first.boot()
            self.first.start_agent()
            self.wait_for(lambda: view.uuid not in self.first.domains())
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            # the host that has it no more cannot remove it
            self.api.terminate_instance(view.uuid, host="kvm1")
            self.assertEqual("kept", self.guest_of(view).run("cat /root/kept"))

    def test_what_a_dead_host_was_making_is_not_brought_back(self) -> None:
        with self.agents(shared=True):
            view = self.create(nics=[])
            self.api.stop_instance(view.name, timeout=0)
            directory = str(self.directory(view.uuid))
            mark = descriptions.read(directory)
            assert mark is not None
            self.first.crash()
            descriptions.write(directory, mark.changed(building="an-operation"))
            before = self.files(view.uuid)
            self.assertEqual([], self.api.left_instances("kvm1", host="kvm2"))
            for name in (view.name, view.uuid):
                with self.assertRaisesRegex(exception.InvalidState, "was making") as caught:
                    self.api.evacuate(name, "kvm1", fenced=True, host="kvm2")
                self.assertIn(directory, caught.exception.remedy or "")
            message = self.refused(
                self.api.build_and_run_instance, self.request(view.uuid), host="kvm2"
            )
            self.assertIn("of kvm1, which is still making it", message)
            self.assertEqual(before, self.files(view.uuid))
            self.first.boot()
            self.first.start_agent()
            self.api.start_instance(view.name)

    def test_a_backup_does_not_overwrite_what_another_host_has(self) -> None:
        with self.agents(shared=True):
            view = self.create(nics=[])
            mark = descriptions.read(str(self.directory(view.uuid)))
            assert mark is not None
            self.first.crash()
            # the third host has brought it back, and the operator of the second has an old backup
            self.api.evacuate(view.name, "kvm1", fenced=True, host="kvm3")
            self.api.stop_instance(view.name, timeout=0, host="kvm3")
            before = self.files(view.uuid)
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.evacuate(
                    view.name, "kvm1", fenced=True, description=mark, rebuild=True, host="kvm2"
                )
            reasons = caught.exception.reasons
            self.assertIn("of kvm3", " ".join(reason["message"] for reason in reasons))
            self.assertEqual(before, self.files(view.uuid))
            self.first.boot()
            self.first.start_agent()
            self.wait_for(lambda: view.uuid not in self.first.domains())
            self.api.start_instance(view.name, host="kvm3")


class OwnDirectoriesTest(MultihostTest):
    """Hosts that share nothing, and a directory in the way of an instance that arrives."""

    def test_what_is_in_the_way_of_an_instance_that_arrives(self) -> None:
        with self.agents():
            view = self.create(nics=[])
            place = pathlib.Path(self.second.local_storage, view.uuid)
            place.mkdir()
            (place / "disk").write_text("precious")
            with self.assertRaises(exception.MigrationRefused) as caught:
                self.api.live_migration(view.name, "kvm2")
            self.assertEqual(["instance_exists"], [r["code"] for r in caught.exception.reasons])
            self.assertEqual("precious", (place / "disk").read_text())
            (place / "disk").unlink()
            self.assertEqual("completed", self.api.live_migration(view.name, "kvm2").state)
            self.assertEqual({"kvm2": "running"}, self.where(view.uuid))
            modes = {path.name: path.stat().st_mode & 0o027 for path in place.iterdir()}
            self.assertEqual({0}, set(modes.values()), modes)
