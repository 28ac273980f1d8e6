"""nova's virtual interfaces (VIFs) as interfaces of the model, os-vif's objects first.

Facts: nova.network.model (what a VIF holds), os_vif.objects.vif (the plugins' side) and
https://libvirt.org/formatdomain.html#network-interfaces.
"""

from typing import Any

import os_vif.objects.fields
import os_vif.objects.vif
from nova import exception as nova_exception
from nova.network import model as network_model
from nova.network import os_vif_util
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta
from nova.virt import hardware
from nova.virt import osinfo as nova_osinfo
from os_vif.objects import vif as osv
from oslo_config import cfg

from kvmdriver.host import pci
from kvmdriver.model import Nic, NicQos, Plug

MODELS = ("virtio", "ne2k_pci", "pcnet", "rtl8139", "e1000", "e1000e", "igb", "vmxnet3")

# The kernel's limit of a TAP device's queues since Linux 4.0 (drivers/net/tun.c, MAX_TAP_QUEUES).
MAX_TAP_QUEUES = 256


def translate(conf: cfg.ConfigOpts, vif: Any, image_meta: ImageMeta, flavor: Flavor) -> Nic:
    """Return a VIF as the model's NIC.

    :raises nova.exception.NovaException: this kind of VIF is unknown or incomplete.
    """
    vif_type = vif["type"]
    if vif_type is None:
        raise nova_exception.InternalError(f"the port {vif['id']} has no vif_type yet")
    direct = vif["vnic_type"] in network_model.VNIC_TYPES_DIRECT_PASSTHROUGH
    model = None if direct else vif_model(conf, image_meta)
    osvif = os_vif_util.nova_to_osvif_vif(vif)
    plug = _from_os_vif(osvif, vif, conf) if osvif is not None else _from_nova(vif)
    plug = plug.changed(**_tuning(conf, plug, model, image_meta, flavor, direct=direct))
    network = vif.get("network")
    mtu = network.get_meta("mtu") if network else None
    return Nic(mac=vif["address"], model=model, mtu=mtu or None, plug=plug)


def vif_model(conf: cfg.ConfigOpts, image_meta: ImageMeta) -> str:
    """Return the NIC model of an image.

    :raises nova.exception.UnsupportedHardware: hw_vif_model names one that QEMU does not have.
    """
    model = nova_osinfo.HardwareProperties(image_meta).network_model
    if model is None and conf.libvirt.use_virtio_for_bridges:
        model = "virtio"
    model = {"ne2k-pci": "ne2k_pci"}.get(model or "virtio", model or "virtio")
    if model not in MODELS:
        raise nova_exception.UnsupportedHardware(model=model, virt=conf.libvirt.virt_type)
    return str(model)


def _from_os_vif(osvif: Any, vif: Any, conf: cfg.ConfigOpts) -> Plug:
    if isinstance(osvif, osv.VIFGeneric):
        return Plug(type="ethernet", target=osvif.vif_name)
    if isinstance(osvif, osv.VIFBridge):
        return Plug(type="bridge", bridge=osvif.bridge_name, target=osvif.vif_name)
    if isinstance(osvif, osv.VIFOpenVSwitch):
        return _open_vswitch(osvif)
    if isinstance(osvif, osv.VIFVHostUser):
        return Plug(
            type="vhostuser",
            mode=osvif.mode,
            path=osvif.path,
            target=osvif.vif_name,
            rx_queue_size=conf.libvirt.rx_queue_size,
            tx_queue_size=conf.libvirt.tx_queue_size,
        )
    if isinstance(osvif, osv.VIFHostDevice):
        if vif["vnic_type"] == network_model.VNIC_TYPE_VDPA:
            return Plug(
                type="vdpa",
                path=pci.vdpa_path(osvif.dev_address),
                rx_queue_size=conf.libvirt.rx_queue_size,
                tx_queue_size=conf.libvirt.tx_queue_size,
            )
        if osvif.dev_type == os_vif.objects.fields.VIFHostDeviceDevType.ETHERNET:
            return Plug(type="hostdev", device=osvif.dev_address)
    raise nova_exception.InternalError(f"VIFs of type {osvif.obj_name()} are not supported")


def _open_vswitch(osvif: Any) -> Plug:
    profile = osvif.port_profile

    def says(name: str) -> bool:
        return name in profile.fields and name in profile and bool(getattr(profile, name))

    if says("create_tap"):
        return Plug(type="ethernet", target=osvif.vif_name, managed=False)
    if says("create_port"):
        return Plug(type="ethernet", target=osvif.vif_name)
    return Plug(
        type="bridge",
        bridge=osvif.bridge_name,
        target=osvif.vif_name,
        port_profile="openvswitch",
        port_parameters=(("interfaceid", profile.interface_id),),
    )


def _from_nova(vif: Any) -> Plug:
    """Translate VIFs that os-vif has no objects for."""
    details, profile = vif["details"] or {}, vif["profile"] or {}
    kind = vif["type"]
    if kind in (
        network_model.VIF_TYPE_TAP,
        network_model.VIF_TYPE_MIDONET,
        network_model.VIF_TYPE_IOVISOR,
    ):
        managed = False if kind == network_model.VIF_TYPE_TAP else None
        return Plug(type="ethernet", target=device_name(vif), managed=managed)
    if kind == network_model.VIF_TYPE_HW_VEB:
        macvtap = vif["vnic_type"] == network_model.VNIC_TYPE_MACVTAP
        return Plug(
            type="direct" if macvtap else "hostdev",
            device=(pci.interface_of(profile["pci_slot"]) if macvtap else profile["pci_slot"]),
            mode="passthrough" if macvtap else None,
            vlan=None if macvtap else int(details.get("vlan") or 0) or None,
        )
    if kind in (network_model.VIF_TYPE_HOSTDEV, network_model.VIF_TYPE_IB_HOSTDEV):
        return Plug(type="hostdev-pci", device=profile["pci_slot"])
    if kind == network_model.VIF_TYPE_MACVTAP:
        missing = [
            name
            for name in (
                network_model.VIF_DETAILS_MACVTAP_SOURCE,
                network_model.VIF_DETAILS_MACVTAP_MODE,
                network_model.VIF_DETAILS_PHYS_INTERFACE,
            )
            if not details.get(name)
        ]
        if missing:
            raise nova_exception.VifDetailsMissingMacvtapParameters(
                vif_id=vif["id"], missing_params=missing
            )
        return Plug(
            type="direct",
            device=details[network_model.VIF_DETAILS_MACVTAP_SOURCE],
            mode=details[network_model.VIF_DETAILS_MACVTAP_MODE],
        )
    if kind in (network_model.VIF_TYPE_802_QBG, network_model.VIF_TYPE_802_QBH):
        return _virtual_port(vif, kind)
    raise nova_exception.InternalError(f"vif_type={kind} is not supported")


def _virtual_port(vif: Any, kind: str) -> Plug:
    parameters = vif.get("qbg_params" if kind == "802.1qbg" else "qbh_params") or {}
    names = (
        ("managerid", "typeid", "typeidversion", "instanceid")
        if kind == "802.1qbg"
        else ("profileid",)
    )
    return Plug(
        type="direct",
        device=pci.interface_of(vif["profile"]["pci_slot"]),
        mode="vepa" if kind == "802.1qbg" else "passthrough",
        port_profile=kind,
        port_parameters=tuple(
            (name, str(parameters[name])) for name in names if name in parameters
        ),
    )


def device_name(vif: Any) -> str:
    """Return the name of the host's end of an interface."""
    return str(vif.get("devname") or ("nic" + vif["id"])[: network_model.NIC_NAME_LEN])


def _tuning(
    conf: cfg.ConfigOpts,
    plug: Plug,
    model: str | None,
    image_meta: ImageMeta,
    flavor: Flavor,
    *,
    direct: bool,
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if plug.type not in ("vhostuser", "hostdev", "hostdev-pci"):
        fields |= _bandwidth(flavor)
    if direct or model != "virtio" or plug.type in ("hostdev", "hostdev-pci"):
        return fields
    if hardware.get_packed_virtqueue_constraint(flavor, image_meta):
        fields["packed"] = True
    if conf.libvirt.virt_type == "qemu":
        # libvirt would ask for vhost, which exists for KVM only
        driver = "qemu"
    else:
        driver = None
        if hardware.get_vif_multiqueue_constraint(flavor, image_meta):
            driver = "vhost"
            limit = conf.libvirt.max_queues or MAX_TAP_QUEUES
            fields["queues"] = min(flavor.vcpus, limit)
        if conf.libvirt.rx_queue_size:
            driver = "vhost"
            fields["rx_queue_size"] = conf.libvirt.rx_queue_size
    if plug.type != "vhostuser":
        fields["driver"] = driver
    return fields


def _bandwidth(flavor: Flavor) -> dict[str, NicQos]:
    specs = flavor.extra_specs if "extra_specs" in flavor else {}
    found = {}
    for direction in ("inbound", "outbound"):
        values = {
            name: int(specs[f"quota:vif_{direction}_{name}"])
            for name in ("average", "peak", "burst")
            if f"quota:vif_{direction}_{name}" in specs
        }
        if values:
            found[direction] = NicQos(**values)
    return found


def traits_of_models(available: set[str]) -> dict[str, bool]:
    """Return the trait of each NIC model, and whether guests can have it."""
    return {f"COMPUTE_NET_VIF_MODEL_{model.upper()}": model in available for model in MODELS}
