"""``kvmdriver server create``."""

import argparse
import os
import socket
import time
from typing import Any

from kvmdriver import exception
from kvmdriver.cli import parsing
from kvmdriver.cli.base import ProgressBar, ShowBase, argument, instance_rows
from kvmdriver.model import Instance, InstanceView

_LOOK_SECONDS = 0.5


class CreateServer(ShowBase):
    """Create an instance from an image, an installer or a kernel, and start it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME")
        source = parser.add_argument_group("what it boots from")
        source.add_argument(
            "--image",
            metavar="IMAGE",
            help="disk image: a path, or URL#sha256:HEX; the instance gets a disk of its own",
        )
        source.add_argument(
            "--image-format", metavar="FORMAT", help="format that the image must have"
        )
        source.add_argument(
            "--cdrom", metavar="ISO", help="installer; give a --disk to install to"
        )
        source.add_argument("--kernel", metavar="FILE")
        source.add_argument("--initrd", metavar="FILE")
        source.add_argument("--cmdline", metavar="TEXT", help="e.g. console=ttyS0")
        source.add_argument("--firmware", choices=("bios", "uefi"))
        source.add_argument("--secure-boot", action="store_true")
        size = parser.add_argument_group("size")
        size.add_argument(
            "--memory",
            metavar="NOW[:MAX]",
            type=argument(parsing.memory, "a memory size"),
            help="MiB, or with suffix G (default: what the operating system recommends)",
        )
        size.add_argument(
            "--memory-growth",
            choices=("balloon", "hotplug"),
            help="how memory gets from NOW to MAX (default: balloon)",
        )
        size.add_argument(
            "--vcpus", metavar="NOW[:MAX]", type=argument(parsing.vcpus, "a number of vCPUs")
        )
        size.add_argument(
            "--size", metavar="SIZE", type=argument(parsing.mebibytes, "a size"),
            help="size to which the disk of --image is grown",
        )  # fmt: skip
        devices = parser.add_argument_group("devices")
        devices.add_argument(
            "--disk", action="append", default=[], type=argument(parsing.disk, "a disk"),
            metavar="SIZE|KEY=VALUE,...",
            help="further disk; keys: size, image, image_format, device, name, bus, format, cache, "
            "io, discard, serial, total_bytes_sec and other limits",
        )  # fmt: skip
        devices.add_argument(
            "--network", "--nic", action="append", default=[], dest="nic",
            type=argument(parsing.nic, "a network"), metavar="NAME|bridge=NAME|user[,KEY=VALUE...]",
            help="interface on a libvirt network, a bridge or QEMU's own NAT; keys: model, mac, mtu",
        )  # fmt: skip
        devices.add_argument(
            "--cpu", type=argument(parsing.cpu, "a CPU"), metavar="MODE|MODEL,...[,+FLAG,-FLAG]"
        )
        devices.add_argument(
            "--nested", action="store_true", help="the guest may run virtual machines itself"
        )
        devices.add_argument(
            "--topology",
            type=argument(parsing.topology, "SOCKETS:CORES:THREADS"),
            metavar="SOCKETS:CORES:THREADS",
        )
        devices.add_argument("--virt-type", choices=("kvm", "qemu"))
        devices.add_argument("--machine", metavar="TYPE", help="e.g. q35 or pc")
        devices.add_argument("--video", metavar="MODEL")
        devices.add_argument("--graphics", choices=("vnc", "none"), default="vnc")
        devices.add_argument("--vnc-password", metavar="FILE", help="file with the password")
        devices.add_argument("--no-serial", action="store_true")
        devices.add_argument("--no-rng", action="store_true")
        devices.add_argument("--no-guest-agent", action="store_true")
        devices.add_argument(
            "--watchdog", choices=("reset", "shutdown", "poweroff", "pause", "none")
        )
        guest = parser.add_argument_group("the guest")
        guest.add_argument(
            "--os", metavar="ID", dest="os_variant",
            help="operating system by libosinfo's id (kvmdriver os list); chooses fitting hardware",
        )  # fmt: skip
        guest.add_argument(
            "--config-drive", action="store_true", help="with nothing but the name on it"
        )
        guest.add_argument("--hostname", metavar="NAME")
        guest.add_argument("--ssh-key", action="append", default=[], metavar="FILE")
        guest.add_argument("--user-data", metavar="FILE")
        guest.add_argument(
            "--address", metavar="ADDRESS/PREFIX[,GATEWAY]", help="fixed address of the first NIC"
        )
        parser.add_argument("--uuid")
        parser.add_argument("--autostart", action="store_true")
        parser.add_argument("--no-start", action="store_true", help="leave it stopped")
        parser.add_argument(
            "--wait", action="store_true", help="until its address answers on the ssh port"
        )
        parser.add_argument(
            "--wait-timeout", type=float, default=300, metavar="SECONDS", help="(default: 300)"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Any:
        instance = Instance.parse(_request(args))
        with ProgressBar() as bar:
            view = self.client.build_and_run_instance(
                instance, start=not args.no_start, on_progress=bar
            )
        for warning in view.warnings:
            self.say(f"Warning: {warning}")
        if args.wait and not args.no_start:
            view = self._wait(view, args.wait_timeout)
        return instance_rows(view)

    def _wait(self, view: InstanceView, seconds: float) -> InstanceView:
        deadline = time.monotonic() + seconds
        if not any(nic.type in ("network", "bridge") for nic in view.nics):
            self.say("Nothing to wait for: no interface can be reached from here")
            return view
        self.say("Waiting for the guest to answer...")
        while time.monotonic() < deadline:
            view = self.client.get_instance(view.uuid).changed(warnings=view.warnings)
            if view.status != "running":
                raise exception.InvalidState(
                    f"the instance is {view.status} before it answered",
                    instance=view.name,
                    remedy=f"kvmdriver server console log {view.name}",
                )
            if any(_answers(address.ip) for address in view.addresses):
                return view
            time.sleep(_LOOK_SECONDS)
        raise exception.OperationTimeout(
            f"no address of the guest answered within {seconds:g} s",
            instance=view.name,
            remedy=f"it keeps running; see kvmdriver server console log {view.name}",
        )


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """Return the instance that the arguments describe."""
    request: dict[str, Any] = {
        "name": args.name,
        "memory": args.memory,
        "vcpus": args.vcpus,
        "virt_type": args.virt_type,
        "machine": args.machine,
        "video": args.video,
        "os_variant": args.os_variant,
        "uuid": args.uuid,
        "rng": False if args.no_rng else None,
        "guest_agent": not args.no_guest_agent,
        "autostart": args.autostart,
        "disks": _disks(args),
        "nics": args.nic,
        "boot": _boot(args),
        "cpu": {
            **(args.cpu or {}),
            **({"topology": args.topology} if args.topology else {}),
            **({"nested": True} if args.nested else {}),
        },
        "consoles": _consoles(args),
        "watchdog": {"action": args.watchdog} if args.watchdog else None,
        "config_drive": _config_drive(args),
    }
    if args.memory_growth:
        if args.memory is None:
            raise exception.InvalidRequest(
                "--memory-growth needs --memory", field="memory", remedy="give --memory NOW:MAX"
            )
        request["memory"] = {**args.memory, "growth": args.memory_growth}
    return {key: value for key, value in request.items() if value is not None}


def _disks(args: argparse.Namespace) -> list[dict[str, Any]]:
    disks: list[dict[str, Any]] = []
    if args.image:
        image = parsing.image(args.image)
        if args.image_format:
            image["format"] = args.image_format
        disk: dict[str, Any] = {"image": image}
        if args.size is not None:
            disk["size_mib"] = args.size
        disks.append(disk)
    disks += args.disk
    if args.cdrom:
        disks.append({"device": "cdrom", "image": parsing.image(args.cdrom)})
    return disks


def _boot(args: argparse.Namespace) -> dict[str, Any]:
    boot: dict[str, Any] = {"firmware": args.firmware, "cmdline": args.cmdline}
    if args.secure_boot:
        boot |= {"secure_boot": True, "firmware": "uefi"}
    for name in ("kernel", "initrd"):
        path = getattr(args, name)
        if path:
            boot[name] = parsing.image(path)
    return {key: value for key, value in boot.items() if value is not None}


def _consoles(args: argparse.Namespace) -> dict[str, Any]:
    consoles = {"graphics": args.graphics, "serial": "none" if args.no_serial else "pty"}
    if args.vnc_password:
        consoles["vnc_password"] = _read(args.vnc_password, "vnc_password").strip()
    return consoles


def _config_drive(args: argparse.Namespace) -> dict[str, Any] | None:
    drive: dict[str, Any] = {}
    if args.hostname:
        drive["hostname"] = args.hostname
    if args.ssh_key:
        drive["ssh_keys"] = [
            line.strip(" \t")
            for path in args.ssh_key
            for line in _read(path, "ssh_key").replace("\r\n", "\n").split("\n")
            if line.strip(" \t")
        ]
    if args.user_data:
        drive["user_data"] = _read(args.user_data, "user_data")
    if args.address:
        address, _, gateway = args.address.partition(",")
        drive["addresses"] = [{"address": address, **({"gateway": gateway} if gateway else {})}]
    return drive if drive or args.config_drive else None


def _read(path: str, field: str) -> str:
    try:
        with open(os.path.expanduser(path)) as source:
            return source.read()
    except (OSError, UnicodeDecodeError) as error:
        raise exception.InvalidRequest(
            f"cannot read the file: {error}", field=field, value=path, remedy="check the path"
        ) from None
