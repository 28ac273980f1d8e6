"""A real guest of the driver's, booted from the test image."""

import json
import os
import subprocess
from typing import Any

from nova import objects, test
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import utils as test_utils
from nova.tests.unit.virt import test_virt_drivers as cases
from nova.virt import fake
from oslo_utils import importutils

from tests import namespace
from tests.contract.base import DRIVER, RealHost

IMAGE = "cedef40a-ed67-4d10-800e-17455edce175"
GUEST = os.environ.get("KVMDRIVER_GUEST", "/var/tmp/kvmdriver-guest")


class BootedGuest(RealHost, cases._FakeDriverBackendTestCase, test.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.driver = importutils.import_object(DRIVER, fake.FakeVirtAPI())
        image_service = self.useFixture(nova_fixtures.GlanceFixture(self))
        self.context = test_utils.get_test_admin_context()
        self.start_driver(self.driver, image_service)
        with open(f"{GUEST}/guest.qcow2", "rb") as image:
            image_service._imagedata[IMAGE] = image.read()
        image_service.images[IMAGE]["disk_format"] = "qcow2"
        flavor = test_utils.get_test_flavor(
            options={"memory_mb": 256, "ephemeral_gb": 0, "swap": 0}
        )
        self.instance = test_utils.get_test_instance(flavor=flavor, obj=True)
        self.meta = objects.ImageMeta.from_dict({"id": IMAGE, "disk_format": "qcow2"})
        self.network_info: list[Any] = []

    def spawn(self, block_device_info: Any = None, *, wait: bool = True) -> None:
        """Start the guest, and wait until its system is up."""
        self.driver.spawn(
            self.context,
            self.instance,
            self.meta,
            [],
            "secret",
            {},
            network_info=self.network_info,
            block_device_info=block_device_info,
        )
        if wait:
            self.wait_for_boot()

    def wait_for_boot(self, times: int = 1) -> None:
        namespace.wait_for(lambda: self.console().count("GUEST: up") >= times, 60)

    def agent(self, command: str, **arguments: Any) -> Any:
        """What the guest's agent answers to a command."""
        request = json.dumps({"execute": command, "arguments": arguments})
        done = subprocess.run(
            ["virsh", "qemu-agent-command", self.instance.uuid, request],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)["return"]

    def run_in_guest(self, script: str) -> int:
        """Exit status of a shell script that the guest's agent runs."""
        process = self.agent("guest-exec", path="/bin/sh", arg=["-c", script])["pid"]
        status: dict[str, Any] = {}

        def ended() -> bool:
            status.update(self.agent("guest-exec-status", pid=process))
            return bool(status["exited"])

        namespace.wait_for(ended, 30)
        return int(status["exitcode"])

    def console(self) -> str:
        return self.driver.get_console_output(self.context, self.instance).decode(errors="replace")
