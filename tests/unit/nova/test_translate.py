"""Flavors and images as the model's instance."""

import unittest
from typing import Any

from nova import exception as nova_exception
from nova import objects

from kvmdriver import exception
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import placement, translate
from tests.unit.nova import objects as made

LAYOUT = InstanceLayout("/instances", made.UUID)


class TranslateTest(unittest.TestCase):
    def model(
        self,
        specs: dict[str, str] | None = None,
        properties: dict[str, Any] | None = None,
        libvirt: dict[str, Any] | None = None,
        flavor: dict[str, Any] | None = None,
        direct_boot: bool = False,
        **fields: Any,
    ) -> Any:
        image = made.image_meta(**(properties or {}))
        instance = made.instance(made.flavor(specs, **(flavor or {})), image, **fields)
        return translate.translate(
            made.node(**(libvirt or {})),
            instance,
            image,
            disks=[],
            nics=[],
            layout=LAYOUT,
            direct_boot=direct_boot,
            has_ramdisk=direct_boot,
        )

    def test_plain(self) -> None:
        model = self.model()
        self.assertEqual(made.UUID, model.uuid)
        self.assertEqual("instance-00000001", model.name)
        self.assertEqual((512, 2), (model.memory.current_mib, model.vcpus.current))
        self.assertEqual(
            ("qemu", "pc-i440fx-7.2", "bios"),
            (model.virt_type, model.machine, model.boot.firmware),
        )
        self.assertEqual(
            (2, 1, 1),
            (model.cpu.topology.sockets, model.cpu.topology.cores, model.cpu.topology.threads),
        )
        self.assertEqual(made.UUID, model.tuning.system.uuid)
        self.assertFalse(model.guest_agent)
        self.assertIsNone(model.watchdog)

    def test_topology(self) -> None:
        model = self.model({"hw:cpu_sockets": "1", "hw:cpu_cores": "2"})
        self.assertEqual((1, 2), (model.cpu.topology.sockets, model.cpu.topology.cores))

    def test_machine_of_image_and_of_birth(self) -> None:
        self.assertEqual("pc-q35-7.2", self.model(properties={"hw_machine_type": "q35"}).machine)
        born = {"image_hw_machine_type": "pc-q35-7.2"}
        with self.assertRaises(exception.Unsupported):  # a version that this QEMU has no longer
            self.model(system_metadata={"image_hw_machine_type": "pc-q35-2.0"})
        self.assertIn("q35", born["image_hw_machine_type"])

    def test_firmware(self) -> None:
        self.assertEqual("uefi", self.model(properties={"hw_firmware_type": "uefi"}).boot.firmware)
        with self.assertRaises(exception.Unsupported) as caught:
            self.model({"os:secure_boot": "required"}, {"hw_firmware_type": "uefi"})
        self.assertEqual("os:secure_boot", caught.exception.field)
        model = self.model(
            {"os:secure_boot": "required"},
            {"hw_firmware_type": "uefi", "hw_machine_type": "q35"},
        )
        self.assertTrue(model.boot.secure_boot)

    def test_small_devices(self) -> None:
        model = self.model(
            {"hw_rng:allowed": "false", "hw:watchdog_action": "poweroff", "hw:boot_menu": "true"},
            {"hw_qemu_guest_agent": "yes", "img_hide_hypervisor_id": "true"},
        )
        self.assertFalse(model.rng)
        self.assertEqual("poweroff", model.watchdog.action)
        self.assertTrue(model.guest_agent)
        self.assertTrue(model.cpu.hide_hypervisor)
        self.assertTrue(model.tuning.boot_menu)
        limited = self.model({"hw_rng:rate_bytes": "100", "hw_rng:rate_period": "10"})
        self.assertEqual(
            (100, 10), (limited.tuning.rng_limit.bytes, limited.tuning.rng_limit.period)
        )

    def test_video(self) -> None:
        self.assertEqual("cirrus", self.model(properties={"hw_video_model": "cirrus"}).video)
        self.assertEqual(
            "none", self.model(properties={"hw_video_model": "none"}).consoles.graphics
        )
        self.assertRaises(
            nova_exception.InvalidVideoMode, self.model, properties={"hw_video_model": "qxl"}
        )
        self.assertRaises(
            nova_exception.RequestedVRamTooHigh, self.model, properties={"hw_video_ram": 64}
        )
        model = self.model({"hw_video:ram_max_mb": "64"}, {"hw_video_ram": 64})
        self.assertEqual(65536, model.tuning.video_ram_kib)

    def test_direct_boot(self) -> None:
        model = self.model(properties={"os_command_line": "quiet"}, direct_boot=True)
        self.assertEqual(("quiet", LAYOUT.kernel), (model.boot.cmdline, model.boot.kernel.path))
        self.assertIn("root=/dev/vda", self.model(direct_boot=True).boot.cmdline)

    def test_cpu_of_the_configuration(self) -> None:
        libvirt = {
            "cpu_mode": "custom",
            "cpu_models": ["Skylake-Server", "EPYC"],
            "cpu_model_extra_flags": ["+svm", "-la57"],
        }
        cpu = self.model(libvirt=libvirt).cpu
        self.assertEqual(("custom", ("EPYC",)), (cpu.mode, cpu.models))
        self.assertEqual({"svm": "require", "la57": "disable"}, _policies(cpu))

    def test_size_of_addresses(self) -> None:
        specs = {"hw:maxphysaddr_mode": "emulate", "hw:maxphysaddr_bits": "42"}
        bits = self.model(specs).cpu.address_bits
        self.assertEqual(("emulate", 42), (bits.mode, bits.bits))
        for wrong in (
            {"hw:maxphysaddr_mode": "passthrough", "hw:maxphysaddr_bits": "42"},
            {"hw:maxphysaddr_mode": "emulate", "hw:maxphysaddr_bits": "9"},
        ):
            with self.subTest(wrong), self.assertRaises(exception.InvalidRequest):
                self.model(wrong)

    def test_cpu_that_traits_ask_for(self) -> None:
        libvirt = {"cpu_mode": "custom", "cpu_models": ["Westmere", "EPYC"]}
        plain = self.model(libvirt=libvirt).cpu
        self.assertEqual((("Westmere",), False), (plain.models, plain.nested))
        cpu = self.model({"trait:HW_CPU_X86_AVX2": "required"}, libvirt=libvirt).cpu
        self.assertEqual(("EPYC",), cpu.models)
        cpu = self.model({"trait:HW_CPU_X86_AESNI": "forbidden"}, libvirt=libvirt).cpu
        self.assertEqual("disable", _policies(cpu)["aes"])
        for mode in ("custom", "host-model", "none"):
            with self.subTest(mode):
                nested = self.model(
                    {"trait:HW_CPU_X86_SVM": "required"}, libvirt={**libvirt, "cpu_mode": mode}
                ).cpu
                self.assertEqual((True, "require"), (nested.nested, _policies(nested)["svm"]))
        by_image = self.model(properties={"trait:HW_CPU_X86_SVM": "required"}, libvirt=libvirt)
        self.assertTrue(by_image.cpu.nested)
        for trait in ("HW_CPU_X86_VMX", "HW_CPU_X86_AVX512F"):
            with self.subTest(trait), self.assertRaises(exception.Unsupported):
                self.model({f"trait:{trait}": "required"}, libvirt=libvirt)

    def test_numa_and_pins(self) -> None:
        topology = objects.InstanceNUMATopology(
            cells=[
                objects.InstanceNUMACell(
                    id=0, cpuset=set(), pcpuset={0, 1}, memory=512, pagesize=2048,
                    cpu_pinning_raw={"0": 2, "1": 3}, cpu_policy="dedicated",
                )
            ]
        )  # fmt: skip
        tuning = self.model({"hw:cpu_policy": "dedicated"}, numa_topology=topology).tuning
        self.assertEqual(((2,), (3,)), tuning.cpu.pins)
        self.assertEqual((2, 3), tuning.cpu.emulator)
        cell = tuning.cells[0]
        self.assertEqual(
            (0, (0, 1), 512, 2048), (cell.host_node, cell.cpus, cell.memory_mib, cell.page_kib)
        )
        self.assertTrue(tuning.shared_memory)

    def test_quotas(self) -> None:
        tuning = self.model(
            {"quota:cpu_shares": "512", "quota:cpu_quota": "20000", "quota:memory_limit": "600"}
        ).tuning
        self.assertEqual(
            (512, 20000, None), (tuning.cpu.shares, tuning.cpu.quota, tuning.cpu.period)
        )
        self.assertEqual(600 * 1024, tuning.memory.hard_limit_kib)
        limits = placement.disk_limits(made.flavor({"quota:disk_read_iops_sec": "50"}))
        self.assertEqual(50, limits.read_iops_sec)
        with self.assertRaises(nova_exception.Invalid):
            placement.disk_limits(
                made.flavor({"quota:disk_read_bytes_sec": "1", "quota:disk_total_bytes_sec": "1"})
            )


def _policies(cpu: Any) -> dict[str, str]:
    return {feature.name: feature.policy for feature in cpu.features}
