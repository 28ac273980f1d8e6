"""CPU modes as guests see them, and one CPU for a cluster of different hosts."""

import os
import tempfile

from kvmdriver import exception
from kvmdriver.hypervisor.capabilities import parse_definition
from tests.functional.base import FunctionalTest, run

# Flags with their names in Linux; each of them is seen or not seen by any program of a guest.
FLAGS = {
    "aes": "aes",
    "avx2": "avx2",
    "bmi1": "bmi1",
    "bmi2": "bmi2",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "svm": "svm",
    "rdrand": "rdrand",
    "smep": "smep",
    "smap": "smap",
    "adx": "adx",
    "movbe": "movbe",
    "popcnt": "popcnt",
    "abm": "abm",
    "3dnow": "3dnow",
}

# What hosts of three kinds would say of their host-model, in short.
ROME = """<domainCapabilities><cpu><mode name='host-model' supported='yes'>
<model fallback='forbid'>EPYC-Rome</model><vendor>AMD</vendor>
<feature policy='require' name='amd-ssbd'/><feature policy='require' name='npt'/>
<feature policy='disable' name='rdpid'/></mode></cpu></domainCapabilities>"""
OPTERON = """<capabilities><host><cpu><arch>x86_64</arch><model>Opteron_G4</model>
<vendor>AMD</vendor><feature name='ht'/><feature name='movbe'/></cpu></host></capabilities>"""
SKYLAKE = """<cpu><model>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ssbd'/></cpu>"""


class CpuTest(FunctionalTest):
    def in_the_guest(self, name: str) -> set[str]:
        seen = set(self.wait_for_ssh(name).run("grep -m1 ^flags /proc/cpuinfo").split())
        return {flag for flag, linux in FLAGS.items() if linux in seen}

    def test_a_guest_sees_what_was_asked_for(self) -> None:
        granted = set(self.api.get_cpu().flags)
        for cpu, has, lacks in (
            ({"mode": "host-model"}, granted & set(FLAGS) - {"svm"}, {"svm"}),
            (
                {"mode": "host-model", "features": [{"name": "avx2", "policy": "disable"}]},
                {"aes"},
                {"avx2", "svm"},
            ),
            ({"mode": "maximum"}, {"aes", "avx2"}, {"svm"}),
            (
                {
                    "mode": "custom",
                    "models": ["Skylake-Server", "Westmere"],
                    "features": [
                        {"name": "movbe"},
                        {"name": "aes", "policy": "disable"},
                    ],
                },
                {"sse4.2", "popcnt", "movbe"},
                {"aes", "avx2", "bmi1", "svm"},
            ),
            ({"mode": "none"}, set(), {"svm", "avx2"}),
        ):
            with self.subTest(**cpu):
                view = self.create(cpu=cpu)
                seen = self.in_the_guest(view.name)
                self.assertLessEqual(has, seen)
                self.assertEqual(set(), lacks & seen)
                self.api.terminate_instance(view.uuid)

    def test_what_cannot_be_had_is_named(self) -> None:
        for cpu, words in (
            ({"mode": "host-model", "features": [{"name": "avx512f"}]}, ("avx512f",)),
            ({"mode": "custom", "models": ["Skylake-Server"]}, ("Skylake-Server", "avx512f")),
            ({"mode": "maximum", "features": [{"name": "no-such-flag"}]}, ("no-such-flag",)),
        ):
            with self.subTest(**cpu):
                error = self.refused(
                    exception.KVMDriverError,
                    self.api.build_and_run_instance,
                    self.request(cpu=cpu),
                )
                for word in words:
                    self.assertIn(word, str(error))
        self.assert_nothing_left()
        westmere = [m for m in self.api.get_cpu().models if m.name == "Skylake-Server"]
        self.assertIn("avx512f", westmere[0].missing)

    def test_the_cpu_of_a_guest_before_it_moves(self) -> None:
        here = self.agent._server.driver._context.host
        for cpu in ({"mode": "host-model"}, {"mode": "maximum"}, {"mode": "none"}):
            with self.subTest(**cpu):
                view = self.create(cpu=cpu, nics=[], config_drive=None)
                self.api.require_cpu_of(view.name, here)
                self.api.terminate_instance(view.uuid)
        view = self.create(nics=[], config_drive=None)
        # another host that cannot give it what it has
        original = self.api.compare_cpu
        more = "<feature policy='require' name='avx512f'/></cpu>"
        self.api.compare_cpu = lambda cpu, **kind: original(  # type: ignore[method-assign]
            cpu.replace("</cpu>", more), **kind
        )
        error = self.refused(exception.CpuIncompatible, self.api.require_cpu_of, view.name, here)
        self.assertEqual((view.name, "avx512f"), (error.instance, error.value))
        self.assertIn(here, error.message)
        self.api.stop_instance(view.name, timeout=0)
        self.refused(exception.InvalidState, self.api.require_cpu_of, view.name, here)

    def test_one_cpu_for_three_hosts(self) -> None:
        own = self.api.get_cpu().definition or ""
        hosts = [own, ROME, OPTERON]
        found = self.api.baseline_cpu(hosts)
        # libvirt says of each host that it has all of it: nothing is lost in common with it
        context = self.agent._server.driver._context
        asked = context.hypervisor.cpu(
            context.hypervisor.domain_capabilities("qemu", "pc-q35-7.2")
        )
        wanted = asked.features(parse_definition(found))
        self.assertIn("sse4.1", wanted)
        for host in hosts:
            common = parse_definition(self.api.baseline_cpu([found, host]))
            self.assertEqual(wanted, asked.features(common))
        self.assertNotEqual("incompatible", self.api.compare_cpu(found).result)
        self.assertEqual("incompatible", self.api.compare_cpu(ROME).result)
        error = self.refused(exception.CpuIncompatible, self.api.baseline_cpu, [own, SKYLAKE])
        self.assertEqual("AMD, Intel", error.value)
        # and a guest has it
        path = os.path.join(tempfile.mkdtemp(dir=self.state), "cpu.xml")
        with open(path, "w") as file:
            file.write(found)
        for name, value in (("mode", "baseline"), ("baseline_file", path)):
            context.conf.set_override(name, value, group="kvm_cpu")
            self.addCleanup(context.conf.clear_override, name, group="kvm_cpu")
        view = self.create()
        seen = self.in_the_guest(view.name)
        self.assertEqual(wanted & set(FLAGS) - {"svm"}, seen)
        model = run("virsh", "-q", "dumpxml", view.uuid)
        self.assertIn(parse_definition(found).model, model)
