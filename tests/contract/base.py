"""The driver as nova-compute has it, with nova's own test fixtures and real libvirt and QEMU.

What nova replaces with fakes for its in-tree driver stays real here. Replaced are Glance (nova's
fixture), and os-vif, since a test has no Open vSwitch.
"""

import os
import stat
import subprocess
from typing import Any

import fixtures
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import utils as test_utils

from kvmdriver.model import Plug

_make_flavor = test_utils.get_test_flavor

DRIVER = "nova.virt.kvmdriver.KVMDriver"


class _Zeros(dict):
    """Image data: what was uploaded, and 1 MiB of zeros for every image that was not."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key, bytes(1 << 20))


class RealHost:
    """In the place of nova's fake libvirt: nothing is faked but what a test's host cannot have."""

    REQUIRES_LOCKING = True

    def _setup_fakelibvirt(self) -> None:
        self.saved_libvirt = None
        self.root = self.useFixture(fixtures.TempDir(rootdir="/var/tmp")).path
        os.chmod(self.root, 0o755)
        self.flags(
            connection_uri="qemu:///system",
            virt_type="qemu",
            cpu_mode="none",
            wait_soft_reboot_seconds=1,
            snapshots_directory=os.path.join(self.root, "snapshots"),
            group="libvirt",
        )
        instances = os.path.join(self.root, "instances")
        os.mkdir(instances)
        self.flags(instances_path=instances)
        self.flags(default_ephemeral_format="ext4", vif_plugging_timeout=0)
        self.useFixture(nova_fixtures.OSBrickFixture())
        for name in ("plug", "unplug"):
            self.stub_out(f"os_vif.{name}", lambda *_args, **_kwargs: None)
        self.stub_out("nova.tests.unit.utils.get_test_flavor", small_flavor)
        self.stub_out("nova.network.os_vif_util.nova_to_osvif_vif", lambda _vif: None)
        self.stub_out("kvmdriver.nova.nics._from_nova", _tap)

    def _teardown_fakelibvirt(self) -> None:
        """Nothing was faked."""

    def start_driver(self, driver: Any, image_service: Any) -> None:
        """What nova-compute does with a driver first."""
        # nova's images are empty, which no disk can be made from
        image_service._imagedata = _Zeros()
        _open_up(driver.node.store.root)
        driver.init_host("contract")
        self.addCleanup(driver.cleanup_host, "contract")
        self.addCleanup(_remove_domains)


def small_flavor(context: Any = None, options: Any = None) -> Any:
    """The flavor of nova's cases has 40 GiB; the file systems alone would take minutes."""
    small = {"memory_mb": 64, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 1, "swap": 16}
    return _make_flavor(context, {**small, **(options or {})})


def _open_up(directory: str) -> None:
    """Let QEMU's user pass through the temporary directories of nova's fixtures."""
    while directory != "/":
        mode = stat.S_IMODE(os.stat(directory).st_mode)
        if not mode & stat.S_IXOTH:
            os.chmod(directory, mode | stat.S_IXOTH)
        directory = os.path.dirname(directory)


def _tap(vif: Any) -> Plug:
    return Plug(type="ethernet", target=f"tap{vif['id'][:8]}")


def _remove_domains() -> None:
    for uuid in subprocess.run(
        ["virsh", "-q", "list", "--all", "--uuid"], capture_output=True, text=True, check=True
    ).stdout.split():
        subprocess.run(["virsh", "-q", "destroy", uuid], capture_output=True, check=False)
        subprocess.run(["virsh", "-q", "undefine", uuid, "--managed-save"], check=False)
