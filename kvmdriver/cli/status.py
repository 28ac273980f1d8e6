"""``kvmdriver-status upgrade check``: whether this host is ready for the next release."""

import sys
import warnings

# see kvmdriver/agent/service.py
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

from oslo_config import cfg  # noqa: E402
from oslo_upgradecheck import upgradecheck  # noqa: E402

from kvmdriver import conf as options  # noqa: E402
from kvmdriver.cli.terminal import printable  # noqa: E402
from kvmdriver.driver import KVMDriver  # noqa: E402
from kvmdriver.model import CheckView  # noqa: E402

# These decide whether the driver will start at all; kvmdriver host check looks at the rest.
_DECISIVE = ("libvirt", "QEMU", "virtualization", "CPU model", "instances", "tools", "nova")
_CODES = {
    "pass": upgradecheck.Code.SUCCESS,
    "warn": upgradecheck.Code.WARNING,
    "fail": upgradecheck.Code.FAILURE,
}


class Checks(upgradecheck.UpgradeCommands):
    """One check for each line of the host check that decides."""

    def __init__(self, conf: cfg.ConfigOpts):
        super().__init__()
        self._lines: dict[str, CheckView] | None = None
        self._conf = conf
        self._upgrade_checks = tuple(
            (name, lambda _self, name=name: self._result(name)) for name in _DECISIVE
        )

    def _result(self, name: str) -> upgradecheck.Result:
        if self._lines is None:
            driver = KVMDriver(self._conf)
            try:
                self._lines = {line.name: line for line in driver.check_host()}
            finally:
                driver.close()
        line = self._lines[name]
        details = f"{line.found}: {line.remedy}" if line.remedy else line.found
        return upgradecheck.Result(_CODES[line.result], printable(details))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when all is well, 1 with warnings, 2 with failures."""
    conf = options.register_opts(cfg.ConfigOpts())
    return int(
        upgradecheck.main(conf, "kvmdriver", Checks(conf), sys.argv[1:] if argv is None else argv)
    )


if __name__ == "__main__":
    sys.exit(main())
