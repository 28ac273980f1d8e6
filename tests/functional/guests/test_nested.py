"""Nested virtualization, proved inside: a guest of ours runs a guest of its own by its /dev/kvm.

QEMU's emulation knows AMD's kind (svm), so it runs on any machine.
"""

from kvmdriver import exception
from tests.functional.base import FunctionalTest


class NestedTest(FunctionalTest):
    def test_a_guest_of_a_guest(self) -> None:
        for cpu in (
            {"nested": True},
            {"mode": "custom", "models": ["qemu64"], "nested": True},
            {"mode": "none", "nested": True},
        ):
            with self.subTest(**cpu):
                view = self.create(cpu=cpu, memory={"current_mib": 256})
                guest = self.wait_for_ssh(view.name)
                self.assertEqual("svm", guest.run("grep -ow svm /proc/cpuinfo | head -1"))
                guest.run("load-kvm")
                self.assertEqual("Y", guest.run("ls /dev/kvm >/dev/null && echo Y"))
                self.assertEqual("L2 runs", guest.run("l2"))
                self.api.terminate_instance(view.uuid)

    def test_without_the_request_there_is_none(self) -> None:
        for mode in ("host-model", "maximum", "none"):
            with self.subTest(mode):
                view = self.create(cpu={"mode": mode})
                guest = self.wait_for_ssh(view.name)
                self.assertEqual("0", guest.run("grep -c svm /proc/cpuinfo || true"))
                self.assertEqual("refused", guest.run("load-kvm 2>/dev/null || echo refused"))
                self.assertEqual("none", guest.run("ls /dev/kvm 2>/dev/null || echo none"))
                self.api.terminate_instance(view.uuid)

    def test_what_the_host_cannot_grant(self) -> None:
        conf = self.agent._server.driver._context.conf
        error = self.refused(
            exception.Unsupported,
            self.api.build_and_run_instance,
            # libvirt itself lets this pass for emulation
            self.request(cpu={"mode": "host-model", "features": [{"name": "vmx"}]}),
        )
        self.assertIn("vmx", str(error))
        conf.set_override("policy", "off", group="kvm_nested")
        self.addCleanup(conf.clear_override, "policy", group="kvm_nested")
        error = self.refused(
            exception.Unsupported,
            self.api.build_and_run_instance,
            self.request(cpu={"nested": True}),
        )
        self.assertEqual("cpu.nested", error.field)
        self.assert_nothing_left()
