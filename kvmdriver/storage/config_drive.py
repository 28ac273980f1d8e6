"""The config drive: an ISO 9660 image with OpenStack metadata, as cloud-init reads it.

Layout and file names: https://docs.openstack.org/nova/latest/user/metadata.html
"""

import io
import ipaddress
import json
import os
import stat
from typing import Any, BinaryIO

import pycdlib

from kvmdriver import exception
from kvmdriver.model import Instance
from kvmdriver.model.config_drive import hostname_from
from kvmdriver.storage.copy import create_empty, remove_file, write_error

VOLUME = "config-2"


def content(instance: Instance) -> dict[str, bytes]:
    """Return the files of an instance's config drive by path. Pure."""
    drive = instance.config_drive
    if drive is None:
        return {}
    hostname = drive.hostname or hostname_from(instance.name)
    metadata: dict[str, Any] = {
        "uuid": instance.uuid,
        "name": instance.name,
        "hostname": hostname,
        "launch_index": 0,
    }
    if drive.ssh_keys:
        metadata["public_keys"] = {f"key{i}": key for i, key in enumerate(drive.ssh_keys)}
        metadata["keys"] = [
            {"type": "ssh", "name": f"key{i}", "data": key} for i, key in enumerate(drive.ssh_keys)
        ]
    if drive.admin_password is not None:
        metadata["admin_pass"] = drive.admin_password.get_secret_value()
    files = {
        "openstack/latest/meta_data.json": json.dumps(metadata).encode(),
        "openstack/latest/network_data.json": json.dumps(_network(instance)).encode(),
    }
    if drive.user_data is not None:
        files["openstack/latest/user_data"] = drive.user_data.encode()
    return files


def _network(instance: Instance) -> dict[str, Any]:
    drive = instance.config_drive
    static = {address.nic: address for address in drive.addresses} if drive else {}
    links, networks, services = [], [], []
    for position, nic in enumerate(instance.nics):
        link = f"nic{position}"
        links.append({"id": link, "type": "phy", "ethernet_mac_address": nic.mac, "mtu": nic.mtu})
        network: dict[str, Any] = {"id": f"network{position}", "link": link, "type": "ipv4_dhcp"}
        address = static.get(position)
        if address is not None:
            interface = ipaddress.ip_interface(address.address)
            network["type"] = f"ipv{interface.version}"
            network["ip_address"] = str(interface.ip)
            network["netmask"] = str(interface.netmask)
            default = "0.0.0.0" if interface.version == 4 else "::"  # noqa: S104 the default route
            network["routes"] = (
                [{"network": default, "netmask": default, "gateway": address.gateway}]
                if address.gateway
                else []
            )
            services += [{"type": "dns", "address": server} for server in address.dns]
        networks.append(network)
    return {"links": links, "networks": networks, "services": services}


def write(instance: Instance, path: str) -> None:
    """Write the config drive of an instance to the new file ``path``.

    :raises kvmdriver.exception.KVMDriverError: the file could not be written; nothing of it is left.
    """
    _write_files(content(instance), path)


def write_copy(source: str, instance: Instance, path: str) -> None:
    """Write the config drive of a clone: its own identity, the user data of the original.

    The driver keeps no user data or password besides the drive itself, so they come from there.
    """
    files = content(instance)
    old = _read_files(source)
    metadata_path = "openstack/latest/meta_data.json"
    metadata = json.loads(files[metadata_path])
    password = json.loads(old.get(metadata_path, b"{}")).get("admin_pass")
    if password is not None:
        metadata["admin_pass"] = password
        files[metadata_path] = json.dumps(metadata).encode()
    user_data = old.get("openstack/latest/user_data")
    if user_data is not None:
        files["openstack/latest/user_data"] = user_data
    _write_files(files, path)


def _read_files(path: str) -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    files: dict[str, bytes] = {}
    try:
        iso.open(path)
        for directory, _directories, names in iso.walk(joliet_path="/"):
            for name in names:
                data = io.BytesIO()
                full = f"{directory.rstrip('/')}/{name}"
                iso.get_file_from_iso_fp(data, joliet_path=full)
                files[full.lstrip("/")] = data.getvalue()
        iso.close()
    except (OSError, pycdlib.pycdlibexception.PyCdlibException) as error:
        raise exception.StorageError(f"cannot read the config drive {path}: {error}") from None
    return files


def _write_files(files: dict[str, bytes], path: str) -> None:
    descriptor = create_empty(path)
    try:
        with os.fdopen(descriptor, "wb") as target:
            _write_iso(files, target)
    except OSError as error:
        remove_file(path)
        raise write_error(error, path) from None
    except pycdlib.pycdlibexception.PyCdlibException as error:
        remove_file(path)
        raise exception.StorageError(f"could not build the config drive: {error}") from None


def _write_iso(files: dict[str, bytes], target: BinaryIO) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME)
    try:
        made: set[str] = set()
        for number, (name, data) in enumerate(files.items()):
            parents = name.split("/")[:-1]
            for depth in range(1, len(parents) + 1):
                directory = "/" + "/".join(parents[:depth])
                if directory not in made:
                    iso.add_directory(
                        directory.upper(),
                        rr_name=parents[depth - 1],
                        joliet_path=directory,
                        file_mode=stat.S_IFDIR | 0o555,
                    )
                    made.add(directory)
            directory = "/" + "/".join(parents)
            iso.add_fp(
                io.BytesIO(data),
                len(data),
                f"{directory.upper()}/F{number}.;1",
                rr_name=name.rpartition("/")[2],
                joliet_path=f"/{name}",
                file_mode=stat.S_IFREG | 0o444,
            )
        iso.write_fp(target)
    finally:
        iso.close()
