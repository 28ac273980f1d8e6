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
    "cpu_details": instance(
        virt_type="kvm",
        cpu={
            "mode": "host-passthrough",
            "features": [{"name": "vmx"}],
            "nested": True,
            "hyperv": True,
            "address_bits": {"mode": "emulate", "bits": 40},
            "cache": {"mode": "passthrough"},
        },
        tuning={"cpu": {"pins": [[4]]}},
    ),
    "tuning": instance(
        vcpus={"current": 4},
        cpu={"hyperv": True, "hide_hypervisor": True, "pmu": False},
        tuning={
            "cells": [
                {"id": 0, "cpus": [0, 1], "memory_mib": 256, "host_node": 0, "page_kib": 2048},
                {"id": 1, "cpus": [2, 3], "memory_mib": 256, "host_node": 1, "page_kib": 2048},
            ],
            "cpu": {
                "shares": 2048,
                "period": 100000,
                "quota": 50000,
                "pins": [[4], [5], [12], [13]],
                "emulator": [4, 5, 12],
                "realtime": [1, 3],
            },
            "memory": {"hard_limit_kib": 1048576},
            "shared_memory": True,
            "vmcoreinfo": True,
            "system": {
                "manufacturer": "OpenStack Foundation",
                "product": "OpenStack Nova",
                "version": "34.0.0",
                "serial": UUID,
                "uuid": UUID,
            },
            "rng_limit": {"bytes": 1024, "period": 500},
            "video_ram_kib": 16384,
            "memory_stats_seconds": 0,
            "boot_menu": True,
            "iothreads": 1,
        },
    ),
    "cpuset": instance(tuning={"cpuset": [0, 1, 2, 7], "locked_memory": True, "pointer": "none"}),
    "file_backed_memory": instance(
        tuning={"file_backed_memory": True, "discard_memory": True, "block_weight": 500}
    ),
    "plugs": instance(
        nics=[
            {
                "mac": f"fa:16:3e:00:00:{number:02x}",
                "model": None if plug["type"].startswith("hostdev") else "virtio",
                "mtu": 1450,
                "plug": plug,
            }
            for number, plug in enumerate(
                [
                    {"type": "ethernet", "target": "tap1", "managed": False, "driver": "qemu"},
                    {
                        "type": "bridge",
                        "bridge": "br-int",
                        "target": "tap2",
                        "port_profile": "openvswitch",
                        "port_parameters": [["interfaceid", UUID]],
                        "driver": "vhost",
                        "queues": 4,
                        "rx_queue_size": 512,
                        "packed": True,
                        "inbound": {"average": 100, "peak": 200, "burst": 50},
                        "outbound": {"average": 100},
                    },
                    {"type": "vhostuser", "mode": "server", "path": "/run/vhu", "target": "vhu1"},
                    {"type": "direct", "device": "eth5", "mode": "passthrough"},
                    {"type": "hostdev", "device": "0000:81:00.1", "vlan": 100},
                    {"type": "hostdev-pci", "device": "0000:81:00.2"},
                    {"type": "vdpa", "path": "/dev/vhost-vdpa-0"},
                ]
            )
        ]
    ),
    "volumes": instance(
        disks=[
            {
                "name": "vda",
                "bus": "virtio",
                "volume": {"type": "block", "path": "/dev/sdx", "shareable": True},
                "cache": "none",
                "io": "native",
                "serial": UUID,
                "boot_order": 1,
                "iothread": 1,
                "limits": {"total_iops_sec": 100, "total_iops_sec_max": 200},
            },
            {
                "name": "vdb",
                "bus": "virtio",
                "volume": {
                    "type": "network",
                    "protocol": "rbd",
                    "path": "pool/volume",
                    "hosts": [{"name": "192.0.2.1", "port": 6789}, {"name": "192.0.2.2"}],
                    "user": "cinder",
                    "auth_secret": UUID,
                },
            },
            {
                "name": "sda",
                "bus": "scsi",
                "device": "lun",
                "volume": {
                    "type": "block",
                    "path": "/dev/dm-3",
                    "physical_block_size": 4096,
                    "logical_block_size": 512,
                },
            },
            {
                "name": "vdc",
                "bus": "virtio",
                "volume": {"type": "file", "path": "/mnt/volume", "format": "qcow2"},
            },
        ],
        tuning={"iothreads": 1, "scsi_model": "virtio-scsi"},
    ),
    "tcp_serial": instance(consoles={"tcp_ports": [10000, 10001], "graphics": "spice"}),
    "both_screens": instance(consoles={"graphics": "vnc", "also_spice": True, "keymap": "de"}),
}
