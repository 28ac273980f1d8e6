"""nova's objects and a compute node without libvirt, for tests of the adapter."""

import os
from types import SimpleNamespace
from typing import Any
from unittest import mock

from nova import conf as nova_conf
from nova import objects
from nova.network import model as network_model
from oslo_config import cfg

from kvmdriver.hypervisor.capabilities import (
    DomainCapabilities,
    HostCapabilities,
    HostCpu,
    HostNumaNode,
    HostThread,
)
from kvmdriver.model.layout import InstanceLayout
from kvmdriver.nova import options
from kvmdriver.nova.node import Node
from tests.unit.host.cpus import HOSTS

objects.register_all()

UUID = "6a1b4f0e-93c5-4f0c-9d0a-0b7f3c1b2a44"
IMAGE = "1b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44"

HOST = HostCapabilities(
    architecture="x86_64",
    cpu_model="EPYC",
    uuid="0b7f3c1b-93c5-4f0c-9d0a-0b7f3c1b2a44",
    virt_types=("qemu", "kvm"),
    machines={"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2", "pc-i440fx-7.2": "pc-i440fx-7.2"},
    cpu=HostCpu("x86_64", "EPYC", "AMD", 1, 4, 1, ("svm", "aes")),
    numa=(
        HostNumaNode(
            id=0,
            memory_kib=8 << 20,
            cpus=tuple(HostThread(n, 0, n, frozenset([n])) for n in range(4)),
            pages={4: 1 << 20, 2048: 16},
            distances={0: 10},
        ),
    ),
)


def capabilities(machine: str = "pc-i440fx-7.2") -> DomainCapabilities:
    return DomainCapabilities(
        emulator="/usr/bin/qemu-system-x86_64",
        machine=machine,
        virt_type="qemu",
        max_vcpus=255,
        firmwares=frozenset(["bios", "efi"]),
        secure_boot="q35" in machine,
        cpu_modes=frozenset(["custom", "host-model", "maximum"]),
        cpu_models={"EPYC": True, "Skylake-Server": False},
        video_models=frozenset(["virtio", "vga", "cirrus"]),
        rng=True,
        disk_buses=frozenset(["virtio", "scsi", "sata", "ide", "fdc"]),
    )


def configuration(**libvirt: Any) -> cfg.ConfigOpts:
    """nova's configuration with values in [libvirt], as a file would give them."""
    conf = nova_conf.CONF
    conf.reset()
    conf(["--config-file", os.devnull], project="nova")
    for name, value in {"virt_type": "qemu", "cpu_mode": "none", **libvirt}.items():
        conf.set_override(name, value, group="libvirt")
    options.adopt(conf)
    return conf


def node(**libvirt: Any) -> Node:
    hypervisor = mock.Mock()
    hypervisor.host_capabilities.return_value = HOST
    hypervisor.domain_capabilities.side_effect = lambda _kind, machine: capabilities(machine)
    hypervisor.find.return_value = None
    hypervisor.disk_files.return_value = {}
    hypervisor.version_numbers.return_value = (7002000, 9000000)
    hypervisor.cpu.return_value = HOSTS["emulation"][1]
    conf = configuration(**libvirt)
    return Node(
        conf=conf,
        virtapi=mock.Mock(),
        hypervisor=hypervisor,
        store=SimpleNamespace(root="/instances", layout=lambda u: InstanceLayout("/instances", u)),
        images=mock.Mock(),
        qemu_img=mock.Mock(),
        states=mock.Mock(),
        locks=mock.Mock(),
        image_api=mock.Mock(),
    )


def flavor(extra_specs: dict[str, str] | None = None, **fields: Any) -> objects.Flavor:
    return objects.Flavor(
        **{
            "name": "small",
            "flavorid": "1",
            "memory_mb": 512,
            "vcpus": 2,
            "root_gb": 1,
            "ephemeral_gb": 0,
            "swap": 0,
            "extra_specs": extra_specs or {},
            **fields,
        }
    )


def image_meta(**properties: Any) -> objects.ImageMeta:
    return objects.ImageMeta.from_dict(
        {"id": IMAGE, "disk_format": "qcow2", "properties": properties}
    )


def instance(
    instance_flavor: objects.Flavor | None = None, image: Any = None, **fields: Any
) -> objects.Instance:
    image_fields = {
        f"image_{name}": str(value)
        for name, value in (image.properties.to_dict() if image else {}).items()
    }
    return objects.Instance(
        **{
            "id": 1,
            "uuid": UUID,
            "display_name": "web",
            "image_ref": IMAGE,
            "kernel_id": "",
            "ramdisk_id": "",
            "root_device_name": "/dev/vda",
            "user_id": "user",
            "project_id": "project",
            "host": "bench",
            "config_drive": "",
            "os_type": None,
            "numa_topology": None,
            "flavor": instance_flavor or flavor(),
            "system_metadata": image_fields,
            "metadata": {},
            **fields,
        }
    )


def vif(**fields: Any) -> network_model.VIF:
    network = network_model.Network(
        id="2b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44", bridge="br-int", label="private", subnets=[],
        mtu=1450,
    )  # fmt: skip
    return network_model.VIF(
        **{
            "id": "3b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44",
            "address": "fa:16:3e:00:00:01",
            "network": network,
            "type": "ovs",
            "devname": "tap3b4f0e6a-93",
            "ovs_interfaceid": "3b4f0e6a-93c5-4f0c-9d0a-0b7f3c1b2a44",
            "details": {},
            "profile": {},
            "vnic_type": "normal",
            "active": False,
            **fields,
        }
    )
