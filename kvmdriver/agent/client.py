"""The agent's client, for schedulers and for the command line.

.. code-block:: python

    from oslo_config import cfg
    from kvmdriver import conf, model
    from kvmdriver.agent.client import ComputeAPI

    CONF = conf.register_opts(cfg.CONF)
    CONF(["--config-file", "/etc/kvmdriver/kvmdriver.conf"])
    compute = ComputeAPI(CONF)
    web = model.Instance(
        name="web",
        memory=model.Memory(current_mib=1024, maximum_mib=2048),
        disks=(model.Disk(image=model.FileImage(path="/var/lib/kvmdriver/images/debian.qcow2")),),
        nics=(model.Nic(source="default"),),
    )
    print(compute.build_and_run_instance(web, host="compute1").status)
    compute.reboot_instance("web", host="compute1")
"""

import base64
from collections.abc import Sequence

from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.agent.caller import OnProgress
from kvmdriver.agent.migration_calls import MigrationCalls
from kvmdriver.model import (
    CachedImageView,
    CheckView,
    CpuComparison,
    CpuView,
    Diagnostics,
    Disk,
    DiskView,
    GuestCpu,
    HostView,
    Instance,
    InstanceView,
    Memory,
    Nic,
    NicView,
    OsView,
    ProgressView,
    Vcpus,
)


class ComputeAPI(MigrationCalls):
    """Typed calls of the agents' RPC methods; see ``Caller`` for how they are made."""

    # Create and remove

    def build_and_run_instance(
        self,
        instance: Instance,
        *,
        start: bool = True,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> InstanceView:
        """Create an instance and start it, unless ``start`` is False."""
        answer = self._change(
            "build_and_run_instance",
            host,
            on_progress,
            instance=instance.to_wire(),
            start=start,
        )
        return InstanceView.model_validate(answer)

    def terminate_instance(
        self,
        instance: str,
        *,
        keep_disks: bool = False,
        if_exists: bool = True,
        host: str | None = None,
    ) -> tuple[str, ...]:
        """Remove an instance; the paths of kept disks.

        :param if_exists: an instance that does not exist is no error, so that a request may be sent
            again; the agent has nothing to do then.
        :raises kvmdriver.exception.InstanceNotFound: there is none, and ``if_exists`` is False.
        """
        answer = self._change(
            "terminate_instance", host, None, instance=instance, keep_disks=keep_disks
        )
        if not if_exists and not answer.get("found", True):
            raise exception.InstanceNotFound(
                f"there is no instance {instance!r}", field="instance", instance=instance
            )
        return tuple(answer["kept"])

    def clone_instance(
        self,
        instance: str,
        name: str,
        *,
        uuid: str | None = None,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> InstanceView:
        """Copy a stopped instance."""
        answer = self._change(
            "clone_instance",
            host,
            on_progress,
            instance=instance,
            name=name,
            uuid=uuid or uuidutils.generate_uuid(),
        )
        return InstanceView.model_validate(answer)

    def snapshot_instance(
        self,
        instance: str,
        path: str,
        *,
        disk: str | None = None,
        image_format: str = "qcow2",
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Write a disk to a new image file on the agent's host; its path."""
        arguments = {"instance": instance, "path": path, "format": image_format}
        if disk is not None:
            arguments["disk"] = disk
        return str(self._change("snapshot_instance", host, on_progress, **arguments)["path"])

    def rename_instance(
        self, instance: str, name: str, *, host: str | None = None
    ) -> InstanceView:
        """Give a stopped instance another name."""
        answer = self._change("rename_instance", host, None, instance=instance, name=name)
        return InstanceView.model_validate(answer)

    # Power

    def start_instance(self, instance: str, *, host: str | None = None) -> None:
        self._change("start_instance", host, None, instance=instance)

    def stop_instance(
        self, instance: str, *, timeout: float | None = None, host: str | None = None
    ) -> None:
        """Shut down; switch off after ``timeout`` seconds."""
        self._change("stop_instance", host, None, instance=instance, timeout=timeout)

    def reboot_instance(
        self,
        instance: str,
        *,
        hard: bool = False,
        timeout: float | None = None,
        host: str | None = None,
    ) -> None:
        """Reboot; a soft reboot becomes a hard one after ``timeout`` seconds."""
        kind = "hard" if hard else "soft"
        self._change("reboot_instance", host, None, instance=instance, type=kind, timeout=timeout)

    def suspend_instance(self, instance: str, *, host: str | None = None) -> None:
        self._change("suspend_instance", host, None, instance=instance)

    def resume_instance(self, instance: str, *, host: str | None = None) -> None:
        self._change("resume_instance", host, None, instance=instance)

    def pause_instance(self, instance: str, *, host: str | None = None) -> None:
        self._change("pause_instance", host, None, instance=instance)

    def unpause_instance(self, instance: str, *, host: str | None = None) -> None:
        self._change("unpause_instance", host, None, instance=instance)

    def set_autostart(self, instance: str, on: bool, *, host: str | None = None) -> None:
        self._change("set_autostart", host, None, instance=instance, autostart=on)

    # Sizes and devices

    def set_memory(
        self,
        instance: str,
        *,
        current_mib: int | None = None,
        maximum_mib: int | None = None,
        host: str | None = None,
    ) -> Memory:
        answer = self._change(
            "set_memory",
            host,
            None,
            instance=instance,
            current_mib=current_mib,
            maximum_mib=maximum_mib,
        )
        return Memory.model_validate(answer)

    def set_vcpus(
        self,
        instance: str,
        *,
        current: int | None = None,
        maximum: int | None = None,
        host: str | None = None,
    ) -> Vcpus:
        answer = self._change(
            "set_vcpus", host, None, instance=instance, current=current, maximum=maximum
        )
        return Vcpus.model_validate(answer)

    def attach_volume(
        self,
        instance: str,
        disk: Disk,
        *,
        host: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> DiskView:
        answer = self._change(
            "attach_volume", host, on_progress, instance=instance, disk=disk.to_wire()
        )
        return DiskView.model_validate(answer)

    def detach_volume(
        self, instance: str, disk: str, *, delete: bool = False, host: str | None = None
    ) -> str | None:
        """Unplug the disk of that target name; the path of its file when that is kept."""
        answer = self._change(
            "detach_volume", host, None, instance=instance, disk=disk, delete=delete
        )
        kept: str | None = answer["kept"]
        return kept

    def attach_interface(self, instance: str, nic: Nic, *, host: str | None = None) -> NicView:
        answer = self._change("attach_interface", host, None, instance=instance, nic=nic.to_wire())
        return NicView.model_validate(answer)

    def detach_interface(self, instance: str, mac: str, *, host: str | None = None) -> None:
        self._change("detach_interface", host, None, instance=instance, mac=mac)

    # Images

    def list_cached_images(self, *, host: str | None = None) -> list[CachedImageView]:
        """Return the files of a host's image cache, and the instances that use them."""
        rows = self._read("list_cached_images", host)
        return [CachedImageView.model_validate(row) for row in rows]

    def prune_image_cache(
        self, names: Sequence[str] = (), *, unused: bool = False, host: str | None = None
    ) -> tuple[str, ...]:
        """Remove images from the cache, or all that no instance uses; their names."""
        answer = self._change("prune_image_cache", host, None, names=list(names), unused=unused)
        return tuple(answer["removed"])

    # Consoles

    def get_console_output(
        self, instance: str, *, kib: int | None = None, host: str | None = None
    ) -> str:
        """Return the end of the console log, bytes that are no UTF-8 replaced."""
        answer = self._read("get_console_output", host, instance=instance, kib=kib)
        return str(answer["output"])

    def get_vnc_console(self, instance: str, *, host: str | None = None) -> str:
        return str(self._read("get_vnc_console", host, instance=instance)["url"])

    def get_serial_console(
        self, instance: str, *, host: str | None = None
    ) -> tuple[str, int, str]:
        """Address, port and token of a socket to the serial port, good for one connection."""
        answer = self._read("get_serial_console", host, instance=instance)
        return answer["host"], answer["port"], answer["token"]

    def get_screenshot(self, instance: str, *, host: str | None = None) -> bytes:
        """Return the screen as PNG."""
        return base64.b64decode(self._read("get_screenshot", host, instance=instance)["png"])

    # Looking

    def list_instances(self, *, host: str | None = None) -> list[InstanceView]:
        return [InstanceView.model_validate(row) for row in self._read("list_instances", host)]

    def get_instance(self, instance: str, *, host: str | None = None) -> InstanceView:
        return InstanceView.model_validate(self._read("get_instance", host, instance=instance))

    def get_diagnostics(self, instance: str, *, host: str | None = None) -> Diagnostics:
        return Diagnostics.model_validate(self._read("get_diagnostics", host, instance=instance))

    def get_host(self, *, host: str | None = None) -> HostView:
        return HostView.model_validate(self._read("get_host", host))

    def get_cpu(self, *, host: str | None = None) -> CpuView:
        return CpuView.model_validate(self._read("get_cpu", host))

    def baseline_cpu(
        self, cpus: Sequence[str], *, migratable: bool = True, host: str | None = None
    ) -> str:
        return str(self._read("baseline_cpu", host, cpus=list(cpus), migratable=migratable))

    def compare_cpu(
        self,
        cpu: str,
        *,
        virt_type: str | None = None,
        machine: str | None = None,
        host: str | None = None,
    ) -> CpuComparison:
        return CpuComparison.model_validate(
            self._read("compare_cpu", host, cpu=cpu, virt_type=virt_type, machine=machine)
        )

    def get_guest_cpu(self, instance: str, *, host: str | None = None) -> GuestCpu:
        return GuestCpu.model_validate(self._read("get_guest_cpu", host, instance=instance))

    def require_cpu_of(self, instance: str, destination: str, *, host: str | None = None) -> None:
        """Require that another host can give the CPU that a running instance has.

        :raises kvmdriver.exception.CpuIncompatible: it cannot; guest, host and flags are named.
        """
        guest = self.get_guest_cpu(instance, host=host)
        found = self.compare_cpu(
            guest.definition,
            virt_type=guest.virt_type,
            machine=guest.machine,
            host=destination,
        )
        if found.result == "incompatible":
            raise exception.CpuIncompatible(
                f"{guest.instance} cannot run on {found.host}, which cannot give its CPU: "
                f"{', '.join(found.missing)}",
                field="cpu.features",
                value=", ".join(found.missing),
                instance=guest.instance,
                remedy="use a baseline CPU for all hosts: kvmdriver cpu baseline HOST...",
            )

    def check_host(self, *, host: str | None = None) -> list[CheckView]:
        return [CheckView.model_validate(row) for row in self._read("check_host", host)]

    def list_systems(self, text: str = "", *, host: str | None = None) -> list[OsView]:
        return [OsView.model_validate(row) for row in self._read("list_systems", host, text=text)]

    def get_progress(self, request_id: str, *, host: str | None = None) -> ProgressView | None:
        answer = self._read("get_progress", host, of=request_id)
        return None if answer is None else ProgressView.model_validate(answer)
