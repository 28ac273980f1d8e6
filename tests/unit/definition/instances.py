"""Instances whose domain XML is kept in golden/: one for each concern."""

from typing import Any

from kvmdriver.model import Instance

UUID = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44"


def disk(name: str, bus: str = "virtio", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "bus": bus,
        "size_mib": 64,
        "format": "qcow2",
        "file": {"path": f"/instances/{UUID}/disk.{name}", "format": "qcow2"},
        **fields,
    }


def instance(**fields: Any) -> Instance:
    data: dict[str, Any] = {
        "uuid": UUID,
        "name": "golden",
        "memory": {"current_mib": 512},
        "virt_type": "qemu",
        "machine": "pc-q35-7.2",
        "boot": {"firmware": "bios"},
        "cpu": {"mode": "none"},
        "video": "vga",
        "clock": "utc",
        "rng": True,
        "disks": [disk("vda")],
        "nics": [
            {
                "type": "network",
                "source": "default",
                "model": "virtio",
                "mac": "52:54:00:00:00:01",
            }
        ],
    }
    return Instance.parse({**data, **fields})


CDROM = {"name": "sda", "bus": "scsi", "device": "cdrom", "file": {"path": "/cd", "format": "raw"}}
KERNEL = {"type": "file", "path": "/boot/vmlinuz"}

INSTANCES: dict[str, Instance] = {
    "plain": instance(),
    "balloon": instance(memory={"current_mib": 512, "maximum_mib": 1024}),
    "hotplug": instance(
        memory={"current_mib": 512, "maximum_mib": 1024, "growth": "hotplug"},
        vcpus={"current": 1, "maximum": 4},
    ),
    "host_model": instance(cpu={"mode": "host-model", "features": [{"name": "svm"}]}),
    "host_passthrough": instance(virt_type="kvm", cpu={"mode": "host-passthrough"}),
    "maximum": instance(cpu={"mode": "maximum"}),
    "custom_cpu": instance(
        vcpus={"current": 2, "maximum": 4},
        cpu={
            "mode": "custom",
            "models": ["EPYC"],
            "features": [{"name": "svm"}, {"name": "la57", "policy": "disable"}],
            "topology": {"sockets": 1, "cores": 2, "threads": 2},
        },
    ),
    "uefi": instance(boot={"firmware": "uefi"}),
    "secure_boot": instance(boot={"firmware": "uefi", "secure_boot": True}),
    "kernel": instance(
        boot={
            "firmware": "bios",
            "kernel": KERNEL,
            "initrd": KERNEL,
            "cmdline": "console=ttyS0 <&>",
        },
        disks=[],
    ),
    "installer": instance(disks=[disk("vda"), CDROM], config_drive={}, config_drive_bus="scsi"),
    "machine_pc": instance(
        machine="pc-i440fx-7.2", disks=[disk("hda", "ide")], config_drive={"hostname": "x"}
    ),
    "disks": instance(
        disks=[
            disk("vda", cache="none", io="native", discard=True, serial="root"),
            disk("sda", "scsi", limits={"total_bytes_sec": 1048576, "read_iops_sec": 100}),
            disk("sdh", "scsi"),
            disk("sdz", "sata"),
            disk("sdy", "usb"),
        ]
    ),
    "nics": instance(
        nics=[
            {"type": "bridge", "source": "br0", "model": "e1000", "mac": "52:54:00:00:00:02"},
            {"type": "user", "model": "virtio", "mac": "52:54:00:00:00:03", "mtu": 1400},
        ]
    ),
    "vnc_password": instance(consoles={"vnc_password": "hush"}),
    "bare": instance(
        nics=[],
        rng=False,
        guest_agent=False,
        consoles={"serial": "none", "graphics": "none"},
        clock="localtime",
    ),
    "watchdog": instance(watchdog={"action": "poweroff"}),
}
