"""The agent's RPC methods: JSON in, the driver's work, JSON out. Version 1.0."""

import base64
import concurrent.futures
import contextlib
import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import oslo_messaging as messaging
from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.agent import requests
from kvmdriver.agent.notifications import Notifier
from kvmdriver.agent.progress import ProgressTable, Reporter
from kvmdriver.agent.transport import VERSION
from kvmdriver.driver import KVMDriver
from kvmdriver.model import Model, ProgressView

LOG = logging.getLogger(__name__)

_REMEMBERED_REQUESTS = 1024

Method = Callable[..., Any]


class Call:
    """One request being carried out."""

    def __init__(self, request_id: str, progress: Reporter):
        self.request_id = request_id
        self.progress = progress


def reads(request_type: type[requests.Request]) -> Callable[[Method], Method]:
    """An RPC method that changes nothing."""

    def decorate(function: Method) -> Method:
        @functools.wraps(function)
        def method(self: "Endpoint", context: Any, /, **payload: Any) -> Any:
            with _typed_errors(function.__name__):
                return _plain(function(self, request_type.parse(payload)))

        return method

    return decorate


def changes(request_type: type[requests.Request], event: str) -> Callable[[Method], Method]:
    """An RPC method that changes an instance.

    It is announced as ``instance.<event>.start`` and ``.end`` or ``.error``, its progress can be
    followed, and a redelivered request gets the answer of the first one.
    """

    def decorate(function: Method) -> Method:
        @functools.wraps(function)
        def method(self: "Endpoint", context: Any, /, **payload: Any) -> Any:
            with _typed_errors(function.__name__):
                request = request_type.parse(payload)
                request_id = request.request_id or uuidutils.generate_uuid()
                return self._once(
                    f"{function.__name__}:{request_id}",
                    lambda: self._carry_out(event, request, request_id, function),
                )

        return method

    return decorate


@contextlib.contextmanager
def _typed_errors(method: str) -> Iterator[None]:
    """Errors leave as ours, marked as expected so that oslo.messaging does not log them as bugs."""
    try:
        try:
            yield
        except exception.KVMDriverError:
            raise
        except Exception as error:
            LOG.exception("%s failed", method)
            raise exception.KVMDriverError(
                f"{method} failed: {type(error).__name__}",
                remedy="the agent's log has the details",
            ) from None
    except exception.KVMDriverError:
        # takes the error under way with it
        raise messaging.ExpectedException() from None


def _plain(answer: Any) -> Any:
    if isinstance(answer, Model):
        return answer.model_dump(mode="json")
    if isinstance(answer, list | tuple):
        return [_plain(item) for item in answer]
    return answer


class Endpoint:
    """Methods that a client can call. Unknown methods and versions are refused by oslo.messaging."""

    target = messaging.Target(version=VERSION)

    def __init__(self, driver: KVMDriver, notifier: Notifier):
        self._driver = driver
        self._notifier = notifier
        self._progress = ProgressTable()
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, concurrent.futures.Future[Any]] = OrderedDict()

    # What the decorators use; oslo.messaging lets nobody call names with an underscore.

    def _once(self, key: str, work: Callable[[], Any]) -> Any:
        """Do ``work``, or wait for whoever does it already and share the answer."""
        with self._lock:
            known = self._seen.get(key)
            future: concurrent.futures.Future[Any] = known or concurrent.futures.Future()
            if known is None:
                self._seen[key] = future
                while len(self._seen) > _REMEMBERED_REQUESTS:
                    self._seen.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            answer = work()
        except BaseException as error:
            # a failed request may be tried again: conditions change
            with self._lock:
                self._seen.pop(key, None)
            future.set_exception(error)
            raise
        future.set_result(answer)
        return answer

    def _carry_out(
        self, event: str, request: requests.Request, request_id: str, function: Method
    ) -> Any:
        """Run a method, with notifications around it."""
        payload = {"request_id": request_id, "instance": _name_of(request)}

        def notify(view: ProgressView) -> None:
            self._notifier.info(
                f"instance.{event}.progress", {**payload, **view.model_dump(mode="json")}
            )

        reporter = Reporter(self._progress, request_id, notify)
        self._notifier.info(f"instance.{event}.start", payload)
        try:
            answer = _plain(function(self, request, Call(request_id, reporter)))
        except Exception as error:
            known = isinstance(error, exception.KVMDriverError)
            details = error.to_dict() if known else {"code": "internal_error"}  # type: ignore[attr-defined]
            self._notifier.error(f"instance.{event}.error", {**payload, "error": details})
            raise
        finally:
            reporter.finish()
        self._notifier.info(f"instance.{event}.end", payload)
        return answer

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
        return {"kept": self._driver.destroy(request.instance, keep_disks=request.keep_disks)}

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
        self._driver.rename(request.instance, request.name)
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
        self._driver.set_autostart(request.instance, request.autostart)

    # Sizes and devices

    @changes(requests.SetMemory, "set_memory")
    def set_memory(self, request: requests.SetMemory, call: Call) -> Any:
        return self._driver.set_memory(request.instance, request.current_mib, request.maximum_mib)

    @changes(requests.SetVcpus, "set_vcpus")
    def set_vcpus(self, request: requests.SetVcpus, call: Call) -> Any:
        return self._driver.set_vcpus(request.instance, request.current, request.maximum)

    @changes(requests.AttachVolume, "attach_volume")
    def attach_volume(self, request: requests.AttachVolume, call: Call) -> Any:
        return self._driver.attach_disk(
            request.instance, request.disk, request_id=call.request_id, progress=call.progress
        )

    @changes(requests.DetachVolume, "detach_volume")
    def detach_volume(self, request: requests.DetachVolume, call: Call) -> Any:
        path = self._driver.detach_disk(request.instance, request.disk, delete=request.delete)
        return {"kept": path}

    @changes(requests.AttachInterface, "attach_interface")
    def attach_interface(self, request: requests.AttachInterface, call: Call) -> Any:
        return self._driver.attach_interface(
            request.instance, request.nic, request_id=call.request_id
        )

    @changes(requests.DetachInterface, "detach_interface")
    def detach_interface(self, request: requests.DetachInterface, call: Call) -> Any:
        self._driver.detach_interface(request.instance, request.mac)

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


def _name_of(request: requests.Request) -> Any:
    instance = getattr(request, "instance", None)
    return instance if isinstance(instance, str) else getattr(instance, "uuid", None)
