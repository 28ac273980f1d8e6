"""Plugging and unplugging interfaces on the host, and waiting for neutron to have wired them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import nova.privsep.linux_net
import os_vif
import os_vif.exception
from nova import exception as nova_exception
from nova.network import model as network_model
from nova.network import os_vif_util
from nova.objects.instance import Instance as NovaInstance
from oslo_log import log as logging

from kvmdriver.host import pci
from kvmdriver.nova import nics
from kvmdriver.nova.node import Node

LOG = logging.getLogger(__name__)


def plug_all(node: Node, instance: NovaInstance, network_info: Any) -> None:
    """Plug every interface; an interface that is plugged already is left as it is.

    :raises nova.exception.VirtualInterfacePlugException: one could not be plugged.
    """
    for vif in network_info or ():
        plug(node, instance, vif)


def replug_all(node: Node, instance: NovaInstance, network_info: Any) -> None:
    """Plug every interface afresh, for a guest whose TAP devices ended with its QEMU.

    A switch that goes on with a port whose device has been replaced by another of the same name
    (Open vSwitch in user space does) would lose every packet.
    """
    unplug_all(node, instance, network_info, ignore_errors=True)
    plug_all(node, instance, network_info)


def unplug_all(
    node: Node, instance: NovaInstance, network_info: Any, *, ignore_errors: bool = False
) -> None:
    for vif in network_info or ():
        try:
            unplug(node, instance, vif)
        except nova_exception.NovaException:
            if not ignore_errors:
                raise
            LOG.warning("could not unplug %s", vif.get("id"), instance=instance)


def plug(node: Node, instance: NovaInstance, vif: Any) -> None:
    osvif = os_vif_util.nova_to_osvif_vif(vif)
    if osvif is not None:
        try:
            os_vif.plug(osvif, os_vif_util.nova_to_osvif_instance(instance))
        except os_vif.exception.ExceptionBase as error:
            LOG.exception("could not plug %s", vif["id"], instance=instance)
            raise nova_exception.VirtualInterfacePlugException(
                f"could not plug the interface {vif['id']}: {error}"
            ) from error
        return
    match vif["type"]:
        case network_model.VIF_TYPE_TAP:
            network = vif.get("network")
            nova.privsep.linux_net.create_tap_dev(
                nics.device_name(vif), vif["address"], multiqueue=_multiqueue(node, instance)
            )
            mtu = network.get_meta("mtu") if network else None
            if mtu:
                nova.privsep.linux_net.set_device_mtu(nics.device_name(vif), mtu)
        case network_model.VIF_TYPE_HW_VEB:
            if vif["vnic_type"] == network_model.VNIC_TYPE_MACVTAP:
                _set_vlan(vif, int(vif["details"].get("vlan") or 0))
        case network_model.VIF_TYPE_MACVTAP:
            details = vif["details"]
            vlan = details.get(network_model.VIF_DETAILS_VLAN)
            interface = details[network_model.VIF_DETAILS_PHYS_INTERFACE]
            if vlan:
                nova.privsep.linux_net.add_vlan(
                    interface, details[network_model.VIF_DETAILS_MACVTAP_SOURCE], vlan
                )
            nova.privsep.linux_net.set_device_enabled(
                details[network_model.VIF_DETAILS_MACVTAP_SOURCE]
            )


def _multiqueue(node: Node, instance: NovaInstance) -> bool:
    return bool(
        node.conf.libvirt.virt_type == "kvm"
        and instance.image_meta.properties.get("hw_vif_multiqueue_enabled")
    )


def _set_vlan(vif: Any, vlan: int) -> None:
    """Set or, with 0, clear the VLAN of a virtual function, on its physical function."""
    slot = vif["profile"]["pci_slot"]
    parent, number = pci.physical_function(slot)
    nova.privsep.linux_net.set_device_macaddr_and_vlan(parent, number, vif["address"], vlan)


def unplug(node: Node, instance: NovaInstance, vif: Any) -> None:
    if vif["type"] in (None, network_model.VIF_TYPE_UNBOUND):
        return
    osvif = os_vif_util.nova_to_osvif_vif(vif)
    if osvif is not None:
        try:
            os_vif.unplug(osvif, os_vif_util.nova_to_osvif_instance(instance))
        except os_vif.exception.ExceptionBase as error:
            raise nova_exception.InternalError(
                f"could not unplug the interface {vif['id']}: {error}"
            ) from error
        return
    match vif["type"]:
        case network_model.VIF_TYPE_TAP:
            nova.privsep.linux_net.delete_net_dev(nics.device_name(vif))
        case network_model.VIF_TYPE_HW_VEB:
            if vif["vnic_type"] == network_model.VNIC_TYPE_MACVTAP:
                _set_vlan(vif, 0)


@contextlib.contextmanager
def wired(
    node: Node, instance: NovaInstance, network_info: Any, *, wait: bool = True
) -> Iterator[bool]:
    """Plug the interfaces in the body; afterwards neutron has said that all of them are wired.

    Yields whether anything is waited for: a guest that is started in the body should be paused
    until then.

    :raises nova.exception.VirtualInterfaceCreateException: neutron did not say so in time, or
        said that it failed, and [DEFAULT] vif_plugging_is_fatal.
    """
    timeout = node.conf.vif_plugging_timeout
    events = [
        ("network-vif-plugged", vif["id"])
        for vif in network_info or ()
        if vif.get("active", True) is False
    ]
    if not (wait and timeout):
        events = []

    def failed(event_name: str, failing: Any) -> None:
        LOG.error("neutron reports failure of %s", event_name, instance=failing)
        if node.conf.vif_plugging_is_fatal:
            raise nova_exception.VirtualInterfaceCreateException()

    try:
        with node.virtapi.wait_for_instance_event(
            instance, events, timeout=timeout, error_callback=failed
        ):
            yield bool(events)
    except nova_exception.InstanceEventTimeout as error:
        if node.conf.vif_plugging_is_fatal:
            raise nova_exception.VirtualInterfaceCreateException() from error
