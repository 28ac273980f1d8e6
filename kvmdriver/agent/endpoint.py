"""The agent's RPC methods, version 1.0. Those that move instances are in ``migration``."""

import base64
from typing import Any

import oslo_messaging as messaging

from kvmdriver.agent import requests
from kvmdriver.agent.methods import Call, changes, reads
from kvmdriver.agent.migration import MigrationMethods
from kvmdriver.agent.transport import VERSION


class Endpoint(MigrationMethods):
    """Methods that a client can call. Unknown methods and versions are refused by oslo.messaging."""

    target = messaging.Target(version=VERSION)

    # Create and remove

    @changes(requests.BuildAndRunInstance, "create")
    def build_and_run_instance(self, request: requests.BuildAndRunInstance, call: Call) -> Any:
        return self._driver.spawn(
            request.instance,
            request_id=call.request_id,
            start=request.start,
            progress=call.progress,
        )

    @changes(requests.TerminateInstance, "delete")
    def terminate_instance(self, request: requests.TerminateInstance, call: Call) -> Any:
        kept = self._driver.destroy(request.instance, keep_disks=request.keep_disks)
        return {"found": kept is not None, "kept": kept or ()}

    @changes(requests.CloneInstance, "clone")
    def clone_instance(self, request: requests.CloneInstance, call: Call) -> Any:
        return self._driver.clone(
            request.instance,
            name=request.name,
            uuid=request.uuid,
            request_id=call.request_id,
            progress=call.progress,
        )

    @changes(requests.SnapshotInstance, "snapshot")
    def snapshot_instance(self, request: requests.SnapshotInstance, call: Call) -> Any:
        path = self._driver.snapshot(
            request.instance,
            request.path,
            disk=request.disk,
            image_format=request.format,
            request_id=call.request_id,
            progress=call.progress,
        )
        return {"path": path}

    @changes(requests.RenameInstance, "rename")
    def rename_instance(self, request: requests.RenameInstance, call: Call) -> Any:
        self._driver.rename(request.instance, request.name, request_id=call.request_id)
        return self._driver.get_instance(request.name)

    # Power

    @changes(requests.InstanceRequest, "start")
    def start_instance(self, request: requests.InstanceRequest, call: Call) -> Any:
        self._driver.power_on(request.instance)

    @changes(requests.StopInstance, "stop")
    def stop_instance(self, request: requests.StopInstance, call: Call) -> Any:
        self._driver.power_off(request.instance, timeout=request.timeout)

    @changes(requests.RebootInstance, "reboot")
    def reboot_instance(self, request: requests.RebootInstance, call: Call) -> Any:
        self._driver.reboot(
            request.instance,
            hard=request.type == "hard",
            timeout=request.timeout,
            request_id=call.request_id,
        )

    @changes(requests.InstanceRequest, "suspend")
    def suspend_instance(self, request: requests.InstanceRequest, call: Call) -> Any:
        self._driver.suspend(request.instance)

    @changes(requests.InstanceRequest, "resume")
    def resume_instance(self, request: requests.InstanceRequest, call: Call) -> Any:
        self._driver.resume(request.instance)

    @changes(requests.InstanceRequest, "pause")
    def pause_instance(self, request: requests.InstanceRequest, call: Call) -> Any:
        self._driver.pause(request.instance)

    @changes(requests.InstanceRequest, "unpause")
    def unpause_instance(self, request: requests.InstanceRequest, call: Call) -> Any:
        self._driver.unpause(request.instance)

    @changes(requests.SetAutostart, "autostart")
    def set_autostart(self, request: requests.SetAutostart, call: Call) -> Any:
        self._driver.set_autostart(request.instance, request.autostart, request_id=call.request_id)

    # Sizes and devices

    @changes(requests.SetMemory, "set_memory")
    def set_memory(self, request: requests.SetMemory, call: Call) -> Any:
        return self._driver.set_memory(
            request.instance,
            request.current_mib,
            request.maximum_mib,
            request_id=call.request_id,
        )

    @changes(requests.SetVcpus, "set_vcpus")
    def set_vcpus(self, request: requests.SetVcpus, call: Call) -> Any:
        return self._driver.set_vcpus(
            request.instance, request.current, request.maximum, request_id=call.request_id
        )

    @changes(requests.AttachVolume, "attach_volume")
    def attach_volume(self, request: requests.AttachVolume, call: Call) -> Any:
        return self._driver.attach_disk(
            request.instance, request.disk, request_id=call.request_id, progress=call.progress
        )

    @changes(requests.DetachVolume, "detach_volume")
    def detach_volume(self, request: requests.DetachVolume, call: Call) -> Any:
        path = self._driver.detach_disk(
            request.instance, request.disk, delete=request.delete, request_id=call.request_id
        )
        return {"kept": path}

    @changes(requests.AttachInterface, "attach_interface")
    def attach_interface(self, request: requests.AttachInterface, call: Call) -> Any:
        return self._driver.attach_interface(
            request.instance, request.nic, request_id=call.request_id
        )

    @changes(requests.DetachInterface, "detach_interface")
    def detach_interface(self, request: requests.DetachInterface, call: Call) -> Any:
        self._driver.detach_interface(request.instance, request.mac, request_id=call.request_id)

    # Images

    @reads(requests.Empty)
    def list_cached_images(self, request: requests.Empty) -> Any:
        return self._driver.list_cached_images()

    @changes(requests.PruneImageCache, "prune_image_cache")
    def prune_image_cache(self, request: requests.PruneImageCache, call: Call) -> Any:
        return {"removed": self._driver.prune_image_cache(request.names, unused=request.unused)}

    # Consoles

    @reads(requests.GetConsoleOutput)
    def get_console_output(self, request: requests.GetConsoleOutput) -> Any:
        output = self._driver.get_console_output(request.instance, request.kib)
        return {"output": output.decode("utf-8", errors="replace")}

    @reads(requests.InstanceRequest)
    def get_vnc_console(self, request: requests.InstanceRequest) -> Any:
        return {"url": self._driver.get_vnc_console(request.instance)}

    @reads(requests.InstanceRequest)
    def get_serial_console(self, request: requests.InstanceRequest) -> Any:
        host, port, token = self._driver.get_serial_console(request.instance)
        return {"host": host, "port": port, "token": token}

    @reads(requests.InstanceRequest)
    def get_screenshot(self, request: requests.InstanceRequest) -> Any:
        return {"png": base64.b64encode(self._driver.get_screenshot(request.instance)).decode()}

    # Looking

    @reads(requests.Empty)
    def list_instances(self, request: requests.Empty) -> Any:
        return self._driver.list_instances()

    @reads(requests.InstanceRequest)
    def get_instance(self, request: requests.InstanceRequest) -> Any:
        return self._driver.get_instance(request.instance)

    @reads(requests.InstanceRequest)
    def get_diagnostics(self, request: requests.InstanceRequest) -> Any:
        return self._driver.get_diagnostics(request.instance)

    @reads(requests.Empty)
    def get_host(self, request: requests.Empty) -> Any:
        return self._driver.get_host()

    @reads(requests.Empty)
    def get_cpu(self, request: requests.Empty) -> Any:
        return self._driver.get_cpu()

    @reads(requests.BaselineCpu)
    def baseline_cpu(self, request: requests.BaselineCpu) -> Any:
        return self._driver.baseline_cpu(request.cpus, migratable=request.migratable)

    @reads(requests.CompareCpu)
    def compare_cpu(self, request: requests.CompareCpu) -> Any:
        return self._driver.compare_cpu(
            request.cpu, virt_type=request.virt_type, machine=request.machine
        )

    @reads(requests.InstanceRequest)
    def get_guest_cpu(self, request: requests.InstanceRequest) -> Any:
        return self._driver.get_guest_cpu(request.instance)

    @reads(requests.Empty)
    def check_host(self, request: requests.Empty) -> Any:
        return self._driver.check_host()

    @reads(requests.ListSystems)
    def list_systems(self, request: requests.ListSystems) -> Any:
        return self._driver.list_systems(request.text)

    @reads(requests.GetProgress)
    def get_progress(self, request: requests.GetProgress) -> Any:
        return self._progress.get(request.of)

    @reads(requests.Empty)
    def ping(self, request: requests.Empty) -> Any:
        return {"version": VERSION}
