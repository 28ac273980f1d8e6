"""What the agent in a real guest does for nova."""

from nova import exception, objects

from tests import namespace
from tests.contract.booted import IMAGE, BootedGuest


class GuestAgentTest(BootedGuest):
    def setUp(self) -> None:
        super().setUp()
        self.instance.system_metadata["image_hw_qemu_guest_agent"] = "yes"
        self.meta = objects.ImageMeta.from_dict(
            {"id": IMAGE, "disk_format": "qcow2", "properties": {"hw_qemu_guest_agent": "yes"}}
        )
        self.spawn()

    def hash_of_root(self) -> str:
        handle = self.agent("guest-file-open", path="/etc/shadow", mode="r")
        try:
            return self.agent("guest-file-read", handle=handle)["buf-b64"]
        finally:
            self.agent("guest-file-close", handle=handle)

    def test_password(self) -> None:
        # asked at once: the driver waits for the agent
        self.driver.set_admin_password(self.instance, "first")
        before = self.hash_of_root()
        self.driver.set_admin_password(self.instance, "second:with colon")
        self.assertNotEqual(before, self.hash_of_root())

    def test_quiesce(self) -> None:
        self.driver.quiesce(self.context, self.instance, self.meta)
        self.assertEqual("frozen", self.agent("guest-fsfreeze-status"))
        self.driver.unquiesce(self.context, self.instance, self.meta)
        self.assertEqual("thawed", self.agent("guest-fsfreeze-status"))
        plain = objects.ImageMeta.from_dict({"id": IMAGE, "disk_format": "qcow2"})
        self.assertRaises(
            exception.QemuGuestAgentNotEnabled,
            self.driver.quiesce,
            self.context,
            self.instance,
            plain,
        )

    def test_crash_dump(self) -> None:
        self.driver.trigger_crash_dump(self.instance)
        namespace.wait_for(lambda: "NMI" in self.console(), 20)
