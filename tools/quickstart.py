"""What tools/quickstart shows: an RPC message becomes a virtual machine."""

import os
import shutil
import socket
import sys
import tempfile
import time

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

from oslo_config import cfg  # noqa: E402

from kvmdriver import conf as options  # noqa: E402
from kvmdriver import model  # noqa: E402
from kvmdriver.agent.client import ComputeAPI  # noqa: E402
from kvmdriver.agent.local import LocalAgent  # noqa: E402
from kvmdriver.cli.base import ProgressBar  # noqa: E402
from kvmdriver.cli.terminal import printable_log  # noqa: E402
from kvmdriver.hypervisor import embed  # noqa: E402

NAME = "quickstart"
BOOT_SECONDS = 120
_start = time.monotonic()


def say(text: str) -> None:
    print(f"\033[1m[{time.monotonic() - _start:5.1f} s] {text}\033[0m", flush=True)


def follow_console(compute: ComputeAPI, until: str, shown: int = 0) -> int:
    """Show the serial console as it grows from character ``shown`` on, until ``until`` comes.

    :returns: how much of it has been shown.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        output = compute.get_console_output(NAME)
        lines = [line for line in output[shown:].splitlines() if line.strip()]
        sys.stdout.write("".join(f"    | {printable_log(line)}\n" for line in lines))
        sys.stdout.flush()
        found = until in output[shown:]
        shown = len(output)
        if found:
            return shown
        if time.monotonic() > deadline:
            sys.exit(f"the guest did not say {until!r} within {BOOT_SECONDS} s")
        time.sleep(0.5)


def uptime(compute: ComputeAPI) -> str:
    """Ask the guest itself, on its serial console."""
    host, port, token = compute.get_serial_console(NAME)
    with socket.create_connection((host, port), 10) as console:
        console.settimeout(20)
        console.sendall(token.encode() + b"\n")
        received = b""

        def expect(text: bytes) -> None:
            nonlocal received
            while text not in received:
                data = console.recv(4096)
                if not data:
                    sys.exit(f"the console ended: {received!r}")
                received += data

        console.sendall(b"\n")
        expect(b"login:")
        console.sendall(b"root\n")
        expect(b"assword:")
        console.sendall(b"kvmdriver\n")
        expect(b"# ")
        console.sendall(b"echo UPTIME=$(cut -d' ' -f1 /proc/uptime); exit\n")
        expect(b"UPTIME=$(")
        received = received.rpartition(b"UPTIME=$(")[2]
        expect(b"UPTIME=")
        time.sleep(0.5)
        received += console.recv(4096)
        return received.rpartition(b"UPTIME=")[2].split()[0].decode()


def main(guest: str, what: str) -> None:
    state = tempfile.mkdtemp(prefix="kd-", dir="/tmp")
    os.chmod(state, 0o755)
    conf = options.register_opts(cfg.ConfigOpts())
    conf([], project="kvmdriver", default_config_files=[])
    conf.set_override("instances_path", f"{state}/instances", "kvm_storage")
    # the hypervisor in this process: no daemon, and nobody else's guests in sight
    conf.set_override("uri", embed.prepare(f"{state}/embed"), "kvm")
    say("starting an agent in this process, on a bus in memory and a hypervisor in process")
    agent = LocalAgent(conf)
    compute = agent.client
    try:
        SHOWN[what](compute, guest)
    finally:
        try:
            say("removing the instance")
            compute.terminate_instance(NAME)
        finally:
            agent.close()
            shutil.rmtree(state, ignore_errors=True)
    say("done. Nothing was left behind.")


def show(compute: ComputeAPI, guest: str) -> None:
    say("asking libvirt and QEMU what this host can do (a few seconds the first time)")
    host = compute.get_host()
    print(f"    QEMU {host.hypervisor_version}, libvirt {host.libvirt_version}, {host.cpus} CPUs, "
          f"{host.memory_mib} MiB, virtualization: {', '.join(host.virt_types)}")  # fmt: skip
    request = model.Instance(
        name=NAME,
        memory=model.Memory(current_mib=256),
        vcpus=model.Vcpus(current=1, maximum=2),
        disks=(model.Disk(image=model.FileImage(path=f"{guest}/guest.qcow2")),),
        nics=(model.Nic(type="user"),),
        config_drive=model.ConfigDrive(hostname="quickstart"),
        consoles=model.Consoles(graphics="none"),
    )
    say("RPC build_and_run_instance: image, disk, config drive, domain")
    with ProgressBar() as bar:
        view = compute.build_and_run_instance(request, on_progress=bar)
    print(f"    {view.name} is {view.status}, {view.uuid}")
    say("its serial console")
    shown = follow_console(compute, "GUEST: up")
    before = uptime(compute)
    say(f"it answers: up for {before} s. RPC suspend_instance, resume_instance")
    compute.suspend_instance(NAME)
    print(f"    {compute.get_instance(NAME).status}")
    compute.resume_instance(NAME)
    print(f"    {compute.get_instance(NAME).status}: up for {uptime(compute)} s, it has gone on")
    say("RPC reboot_instance")
    compute.reboot_instance(NAME, timeout=60)
    follow_console(compute, "GUEST: up", shown)
    say("RPC list_instances")
    for row in compute.list_instances():
        print(f"    {'Name':12} {'Status':9} {'Memory MiB':>10} {'vCPUs':>5}  UUID")
        print(f"    {row.name:12} {row.status:9} {row.memory_mib:10} {row.vcpus:5}  {row.uuid}")


# what a guest does at its start to find out whether it can run guests itself
TRY_KVM = """#!/bin/sh
grep -ow -m1 -E 'svm|vmx' /proc/cpuinfo >/dev/console || echo "neither svm nor vmx" >/dev/console
if load-kvm 2>/dev/null && [ -e /dev/kvm ]; then l2 >/dev/console; else echo "no /dev/kvm" >/dev/console; fi
"""


def show_nested(compute: ComputeAPI, guest: str) -> None:
    """A guest that asks for nested virtualization runs a guest of its own; another does not."""
    cpu = compute.get_cpu()
    print(f"    policy {cpu.nested_policy}; the host's kind is {cpu.nested_flag}, which guests can "
          f"{'' if cpu.nested_granted else 'not '}have")  # fmt: skip
    for nested, until in ((True, "L2 runs"), (False, "no /dev/kvm")):
        request = model.Instance(
            name=NAME,
            memory=model.Memory(current_mib=256),
            cpu=model.Cpu(nested=nested),
            disks=(model.Disk(image=model.FileImage(path=f"{guest}/guest.qcow2")),),
            config_drive=model.ConfigDrive(user_data=TRY_KVM),
            consoles=model.Consoles(graphics="none"),
        )
        say(f"RPC build_and_run_instance, nested={nested}; the guest loads KVM and runs a guest")
        compute.build_and_run_instance(request)
        follow_console(compute, until)
        if nested:
            compute.terminate_instance(NAME)


SHOWN = {"job": show, "nested": show_nested}

NEXT = """
What to try next (as root, in this directory; --help tells more):

  . .venv/bin/activate
  export OS_KVM__VIRT_TYPE=qemu            # or leave it out where /dev/kvm works
  {kvmdriver} host show
  {kvmdriver} os list debian
  {kvmdriver} server create web --image {guest}/guest.qcow2 --memory 256:512 --vcpus 1:2 \\
      --network user --hostname web
  {kvmdriver} server console web             # root / kvmdriver, Ctrl-] leaves
  {kvmdriver} server list
  {kvmdriver} server delete web

  tools/run-tests                          # all tests, in namespaces of their own
"""

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    # a host without libvirtd has to say that it wants the hypervisor in process
    command = "kvmdriver" if embed.libvirtd_answers() else "kvmdriver --embedded"
    print(NEXT.format(guest=sys.argv[1], kvmdriver=command))
