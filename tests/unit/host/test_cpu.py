import os
import tempfile
import unittest

from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver import exception
from kvmdriver.host import cpu as host_cpu
from kvmdriver.model import Cpu, CpuDefinition, CpuFeature
from tests.unit.host.cpus import HOSTS, chooser


def policies(cpu: Cpu) -> dict[str, str]:
    return {feature.name: feature.policy for feature in cpu.features}


class ChooseTest(unittest.TestCase):
    def refused(self, host: str, cpu: Cpu, **settings: object) -> exception.KVMDriverError:
        with self.assertRaises(exception.Unsupported) as caught:
            chooser(host, **settings).choose(cpu)
        return caught.exception

    def test_the_first_usable_model(self) -> None:
        cpu = Cpu(mode="custom", models=("EPYC", "Skylake-Client", "Westmere"))
        self.assertEqual(("Skylake-Client",), chooser("Intel").choose(cpu).models)

    def test_why_no_model_can_be_used(self) -> None:
        cpu = Cpu(mode="custom", models=("EPYC", "Pentium-9"))
        error = self.refused("Intel", cpu)
        self.assertEqual("cpu.models", error.field)
        self.assertIn("EPYC lacks sha-ni, svm", error.message)
        self.assertIn("Pentium-9 is unknown", error.message)
        self.assertIn("Westmere", error.remedy or "")

    def test_a_model_without_what_nobody_may_have(self) -> None:
        # KVM does not nest there: EPYC's own svm cannot be had, and would be hidden anyway
        chosen = chooser("AMD").choose(Cpu(mode="custom", models=("EPYC", "Westmere")))
        self.assertEqual(("EPYC",), chosen.models)
        self.assertEqual("disable", policies(chosen)["svm"])

    def test_impossible_mode(self) -> None:
        error = self.refused("emulation", Cpu(mode="host-passthrough"))
        self.assertEqual(("cpu.mode", "host-passthrough"), (error.field, error.value))

    def test_a_flag_that_cannot_be_granted_is_named_in_every_mode(self) -> None:
        for mode in ("host-model", "host-passthrough", "maximum", "custom"):
            models = ("Westmere",) if mode == "custom" else ()
            cpu = Cpu(mode=mode, models=models, features=(CpuFeature(name="avx512f"),))
            with self.subTest(mode):
                error = self.refused("Intel", cpu)
                self.assertIsInstance(error, exception.CpuIncompatible)
                self.assertEqual(("cpu.features", "avx512f"), (error.field, error.value))

    def test_configured_flags(self) -> None:
        features = host_cpu.parse_features(["+avx2", "-pcid", "aes"])
        chosen = chooser("Intel", features=features).choose(Cpu())
        self.assertEqual(
            {"avx2": "require", "pcid": "disable", "aes": "require", "vmx": "disable"},
            policies(chosen),
        )
        own = Cpu(features=(CpuFeature(name="pcid"),))
        self.assertEqual(
            "require", policies(chooser("Intel", features=features).choose(own))["pcid"]
        )

    def test_security_features_of_a_named_model(self) -> None:
        westmere = Cpu(mode="custom", models=("Westmere",))
        self.assertLessEqual(
            {"spec-ctrl", "ssbd"}, set(policies(chooser("Intel").choose(westmere)))
        )
        plain = chooser("Intel", security_features=False).choose(westmere)
        self.assertEqual({"vmx"}, set(policies(plain)))
        epyc = Cpu(mode="custom", models=("EPYC",))
        self.assertIn("ibpb", policies(chooser("AMD, nested").choose(epyc)))

    def test_baseline(self) -> None:
        baseline = CpuDefinition(model="Westmere", features=(CpuFeature(name="avx2"),))
        chosen = chooser("Intel", mode="baseline", baseline=baseline).choose(Cpu())
        self.assertEqual(("custom", ("Westmere",)), (chosen.mode, chosen.models))
        # exactly the same on every host: nothing is added
        self.assertEqual({"avx2": "require", "vmx": "disable"}, policies(chosen))
        self.assertIn("cpu baseline", self.refused("Intel", Cpu(mode="baseline")).remedy or "")

    def test_flags_are_those_that_the_guest_sees(self) -> None:
        some = chooser("AMD, nested", features=host_cpu.parse_features(["-avx2"]))
        seen = some.flags(some.choose(Cpu()))
        self.assertNotIn("avx2", seen)
        self.assertNotIn("svm", seen)
        self.assertIn("ibpb", seen)

    def test_traits_pick_the_model(self) -> None:
        some = chooser("Intel")
        cpu = Cpu(mode="custom", models=("Westmere", "Skylake-Client"))
        self.assertEqual(
            ("Skylake-Client",), some.choose(some.prefer(cpu, {"avx2"}, set())).models
        )
        without = some.choose(some.prefer(cpu, set(), {"aes"}))
        self.assertEqual((("Westmere",), "disable"), (without.models, policies(without)["aes"]))
        added = some.choose(some.prefer(Cpu(mode="custom", models=("Westmere",)), {"avx2"}, set()))
        self.assertEqual("require", policies(added)["avx2"])


class NestedTest(unittest.TestCase):
    def test_refused_before_anything_is_made(self) -> None:
        for host, settings, cpu, field in (
            ("Intel", {}, Cpu(nested=True), "cpu.nested"),
            ("Intel, nested", {"nested": "off"}, Cpu(nested=True), "cpu.nested"),
            # libvirt lets it pass for emulation, where no guest can use it
            ("emulation", {}, Cpu(features=(CpuFeature(name="vmx"),)), "cpu.features"),
            ("AMD, nested", {}, Cpu(features=(CpuFeature(name="vmx"),)), "cpu.features"),
        ):
            with self.subTest(host=host, **settings):
                with self.assertRaises(exception.Unsupported) as caught:
                    chooser(host, **settings).choose(cpu)
                self.assertEqual(field, caught.exception.field)
                self.assertTrue(caught.exception.remedy)

    def test_a_configured_flag_gives_it_to_all(self) -> None:
        some = chooser("Intel, nested", features=host_cpu.parse_features(["vmx"]))
        self.assertEqual({"vmx": "require"}, policies(some.choose(Cpu())))


class SettingsTest(unittest.TestCase):
    def conf(self, **cpu: object) -> cfg.ConfigOpts:
        conf = options.register_opts(cfg.ConfigOpts())
        conf([])
        for name, value in cpu.items():
            conf.set_override(name, value, group="kvm_cpu")
        return conf

    def test_contradiction(self) -> None:
        conf = self.conf(features=["+svm"])
        conf.set_override("policy", "off", group="kvm_nested")
        with self.assertRaises(exception.ConfigurationError):
            host_cpu.settings_of(conf)

    def test_baseline_from_a_file(self) -> None:
        directory = tempfile.mkdtemp()
        path = os.path.join(directory, "cpu.xml")
        for text in (
            "<cpu mode='custom'><model>Westmere</model><feature policy='require' name='aes'/></cpu>",
            "<domainCapabilities><cpu><mode name='host-model' supported='yes'><model>Westmere</model>"
            "<feature policy='require' name='aes'/></mode></cpu></domainCapabilities>",
            "<capabilities><host><cpu><model>Westmere</model><feature name='aes'/></cpu></host>"
            "</capabilities>",
        ):
            with open(path, "w") as file:
                file.write(text)
            found = host_cpu.settings_of(self.conf(baseline_file=path)).baseline
            assert found is not None
            self.assertEqual(("Westmere", {"aes"}), (found.model, found.required))
        for text in ("<cpu/>", "<domain/>", "no", "<!DOCTYPE x [<!ENTITY a 'b'>]><cpu>&a;</cpu>"):
            with open(path, "w") as file:
                file.write(text)
            with self.subTest(text), self.assertRaises(exception.ConfigurationError):
                host_cpu.settings_of(self.conf(baseline_file=path))
        with self.assertRaises(exception.ConfigurationError):
            host_cpu.settings_of(self.conf(baseline_file=directory + "/none"))

    def test_startup_names_what_cannot_be_granted(self) -> None:
        some = chooser("Intel", features=host_cpu.parse_features(["avx512f"]))
        with self.assertRaises(exception.ConfigurationError) as caught:
            some.check_settings()
        self.assertIn("avx512f", str(caught.exception))

    def test_missing_security(self) -> None:
        self.assertIn("md-clear", chooser("Intel").missing_security())
        self.assertNotIn("ssbd", chooser("Intel").missing_security())
        self.assertEqual({"Intel", "AMD"}, {vendor for vendor, _ in HOSTS.values()})
