"""Nested virtualization of the host: KVM's module, its parameters, and switching it on and off.

Facts: Documentation/virt/kvm/x86/running-nested-guests.rst in the kernel, and the parameters of
arch/x86/kvm/vmx/vmx.c and arch/x86/kvm/svm/svm.c.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence

from oslo_concurrency import processutils

from kvmdriver import exception, privsep
from kvmdriver.model import NestedView

CONFIGURATION = "/etc/modprobe.d/kvm-nested.conf"
_HEADER = "# Made by kvmdriver host nested; it writes this file anew each time.\n"
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}
PARAMETERS = {
    "kvm_intel": (
        "nested", "ept", "unrestricted_guest", "enable_shadow_vmcs", "enable_apicv",
        "nested_early_check", "pml",
    ),
    "kvm_amd": ("nested", "npt", "avic", "vgif", "vls", "nrips"),
}  # fmt: skip
_ON = ("Y", "y", "1")


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that is done to the host; ``text`` says it before it is done."""

    text: str
    do: Callable[[], None]
    undo: Callable[[], None] | None = None


class NestedHost:
    """What a host's files say about nested virtualization, and how to change it.

    :param sysroot: where the host's root directory lies; with any other than ``/`` its own
        ``sbin/modprobe`` is run and nothing of this machine is touched.
    """

    def __init__(self, sysroot: str = "/"):
        self._sysroot = sysroot

    def view(self) -> NestedView:
        """Return the state as it is now. Nothing is changed and no process started."""
        flags, vendor = self._cpuinfo()
        module = next((_MODULES[flag] for flag in _MODULES if flag in flags), None)
        loaded = next(
            (m for m in _MODULES.values() if os.path.isdir(self._path(f"/sys/module/{m}"))), None
        )
        parameters = self._parameters(loaded) if loaded else {}
        return NestedView(
            vendor=vendor,
            cpu_flag=module is not None,
            module=module or loaded,
            loaded=loaded is not None,
            nested=parameters["nested"] in _ON if "nested" in parameters else None,
            parameters=parameters,
            configured=self._read(CONFIGURATION),
            kernel=(self._read("/proc/sys/kernel/osrelease") or os.uname().release).strip(),
        )

    def steps(
        self,
        on: bool,
        options: Mapping[str, Mapping[str, str]],
        running: Sequence[str] = (),
    ) -> list[Step]:
        """Return what has to be done to switch nested virtualization on or off; nothing is done yet.

        :param options: parameters by module, as the configuration has them.
        :param running: names of the guests that use KVM now.
        :raises kvmdriver.exception.Unsupported: the CPU has no hardware virtualization.
        :raises kvmdriver.exception.InvalidState: guests run; it names them.
        """
        view = self.view()
        if view.module is None:
            raise exception.Unsupported(
                "the CPU shows no hardware virtualization (vmx or svm)",
                field="/proc/cpuinfo",
                remedy="switch it on in the firmware, or, if this is a virtual machine, nested "
                "virtualization on its host",
            )
        module = view.module
        wanted = {**options.get(module, {}), "nested": "1" if on else "0"}
        self._check_options(module, wanted)
        text = _HEADER + _options_line(module, wanted)
        before = self._read(CONFIGURATION)
        steps = []
        if before != text:
            steps.append(
                Step(
                    f"write {CONFIGURATION}: {_options_line(module, wanted).strip()}",
                    lambda: self._write(text),
                    lambda: self._write(before),
                )
            )
        if view.loaded and self._differs(view, wanted):
            self._require_no_guests(module, running)
            steps.append(
                Step(
                    f"unload the module: modprobe -r {module}",
                    lambda: self._modprobe("-r", module),
                    # as it was before: with the parameters of then
                    lambda: self._load_as(before, module),
                )
            )
        if not view.loaded or self._differs(view, wanted):
            steps.append(
                Step(
                    f"load the module: modprobe {module}",
                    lambda: self._modprobe(module),
                    lambda: self._modprobe("-r", module),
                )
            )
        if steps:
            shown = " ".join(f"{name}={value}" for name, value in sorted(wanted.items()))
            steps.append(
                Step(
                    f"verify /sys/module/{module}/parameters: {shown}",
                    lambda: self._verify(module, wanted),
                )
            )
        return steps

    def apply(self, steps: Sequence[Step], report: Callable[[str], None]) -> None:
        """Carry steps out; when one fails, what was done before is undone.

        :raises kvmdriver.exception.KVMDriverError: the failure.
        """
        done: list[Step] = []
        for step in steps:
            report(step.text)
            try:
                step.do()
            except (
                exception.KVMDriverError,
                OSError,
                processutils.ProcessExecutionError,
            ) as error:
                for earlier in reversed(done):
                    if earlier.undo is not None:
                        report(f"undo: {earlier.text}")
                        with contextlib.suppress(OSError, processutils.ProcessExecutionError):
                            earlier.undo()
                if isinstance(error, exception.KVMDriverError):
                    raise
                raise exception.HostError(
                    f"could not {step.text}: {_reason(error)}",
                    remedy="run as root; the kernel's log (dmesg) says more",
                ) from None
            done.append(step)

    def _differs(self, view: NestedView, wanted: Mapping[str, str]) -> bool:
        return any(
            not _same(view.parameters.get(name, ""), value) for name, value in wanted.items()
        )

    def _check_options(self, module: str, wanted: Mapping[str, str]) -> None:
        for name, value in wanted.items():
            if not (name.replace("_", "").isalnum() and value.replace("_", "").isalnum()):
                raise exception.ConfigurationError(
                    f"{name}={value} is no parameter of a module",
                    field=f"[kvm_nested] {module}_options",
                    value=f"{name}:{value}",
                    remedy="use names and values of letters, digits and underscores",
                )

    def _require_no_guests(self, module: str, running: Sequence[str]) -> None:
        users = (self._read(f"/sys/module/{module}/refcnt") or "0").strip()
        if not running and users == "0":
            return
        named = ", ".join(running) or f"{users} processes that libvirt does not know"
        raise exception.InvalidState(
            f"guests run with KVM, so {module} cannot be loaded anew: {named}",
            field=module,
            value=users,
            remedy="shut them down or migrate them away, then try again",
        )

    def _verify(self, module: str, wanted: Mapping[str, str]) -> None:
        found = self._parameters(module)
        for name, value in wanted.items():
            if not _same(found.get(name, ""), value):
                raise exception.HostError(
                    f"{module} has {name}={found.get(name, 'nothing')} and not {value} after it "
                    "was loaded",
                    field=f"/sys/module/{module}/parameters/{name}",
                    value=found.get(name),
                    remedy="look for another file in /etc/modprobe.d, or the kernel's command line",
                )

    def _cpuinfo(self) -> tuple[set[str], str | None]:
        flags: set[str] = set()
        vendor = None
        for line in (self._read("/proc/cpuinfo") or "").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                flags |= set(value.split())
            elif name.strip() == "vendor_id":
                vendor = _VENDORS.get(value.strip(), value.strip())
        return flags, vendor

    def _parameters(self, module: str) -> dict[str, str]:
        found = {}
        for name in PARAMETERS[module]:
            text = self._read(f"/sys/module/{module}/parameters/{name}")
            if text is not None:
                found[name] = text.strip()
        return found

    def _path(self, path: str) -> str:
        return os.path.join(self._sysroot, path.lstrip("/"))

    def _load_as(self, configuration: str | None, module: str) -> None:
        self._write(configuration)
        self._modprobe(module)

    def _read(self, path: str) -> str | None:
        try:
            with open(self._path(path)) as file:
                return file.read()
        except OSError:
            return None

    def _write(self, text: str | None) -> None:
        path = self._path(CONFIGURATION)
        if self._sysroot == "/":
            privsep.write_module_options(path, text)
        else:
            privsep.replace_file(path, text)

    def _modprobe(self, *arguments: str) -> None:
        if self._sysroot == "/":
            privsep.modprobe(list(arguments))
        else:
            processutils.execute(self._path("/sbin/modprobe"), *arguments)


def _options_line(module: str, wanted: Mapping[str, str]) -> str:
    return f"options {module} " + " ".join(f"{n}={v}" for n, v in sorted(wanted.items())) + "\n"


def _same(shown: str, wanted: str) -> bool:
    """Return whether a parameter has a value: booleans are shown as Y and N, and set as 1 and 0."""
    return shown == wanted or (shown in _ON) == (wanted in _ON) and shown in (*_ON, "N", "n", "0")


def _reason(error: Exception) -> str:
    if isinstance(error, processutils.ProcessExecutionError):
        return (error.stderr or error.stdout or str(error)).strip()
    return str(error)


def may_move(policy: str, vendor: str | None, kernel: str, entered: bool | None) -> bool | None:
    """Whether a guest may be saved or migrated with its own virtual machines; None with a warning.

    On Intel it works since Linux 5.3; on AMD not once the guest has started one, see the kernel's
    running-nested-guests.rst.

    :param policy: [kvm_nested] running_l2.
    :param entered: whether it has started one; None where the kernel does not tell.
    """
    if policy == "allow" or entered is False:
        return True
    if policy == "warn":
        return None
    if policy == "auto" and vendor == "Intel" and _version(kernel) >= (5, 3):
        return True
    # what cannot be seen is no reason to refuse, but to say so
    return None if entered is None else False


def _version(kernel: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", kernel)[:2])
