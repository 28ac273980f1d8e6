"""One fault at each state of a migration; ``tests.recovery`` has all of them."""

from tests.recovery import case
from tests.recovery.faults import Fault


class SomeFaultsTest(case.FaultCase):
    """What is left after each."""


case.add_cases(
    SomeFaultsTest,
    (
        Fault("prepare", "agent", "destination"),
        Fault("run", "QEMU", "source"),
        Fault("switch-over", "link", "source"),
        Fault("switch-over", "libvirtd", "destination"),
        Fault("finish", "agent", "source"),
    ),
)
