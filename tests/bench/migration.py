"""Live migration by the agents beside ``virsh migrate`` with the same flags, in turn.

    KVMDRIVER_LABORATORY_ADDRESS=10.98.0.1 python -m tests.namespace \\
        python -m tests.bench.migration [ROUNDS] [MIB_PER_SECOND]

One guest goes back and forth between two hosts ROUNDS (6) times with each, on shared storage and
with its local disk. Prints the time of the whole call, from the client's side, and the downtime
that libvirt reports; medians, and their ratios. Both send at most MIB_PER_SECOND (40).
"""

import os
import statistics
import subprocess
import sys
import time
import uuid
from typing import Any

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
from kvmdriver import model
from tests import namespace
from tests.multihost.base import MultihostTest
from tests.multihost.laboratory import Host

Times = list[tuple[float, float]]


class Bench(MultihostTest):
    """Not a test: it uses what the tests have for hosts and guests."""

    rounds = 6
    bandwidth = 40

    def runTest(self) -> None:
        for shared in (True, False):
            with self.agents(shared=shared, dirty_rate_seconds=0, bandwidth=self.bandwidth):
                view = self.create(name=f"bench-{uuid.uuid4().hex[:8]}")
                self.guest_of(view)
                ours: Times = []
                theirs: Times = []
                for number in range(self.rounds):
                    print(f"\rround {number + 1}/{self.rounds}", end="", file=sys.stderr)
                    for source, target in ((self.first, self.second), (self.second, self.first)):
                        ours.append(self._by_agents(view, source, target))
                    for source, target in ((self.first, self.second), (self.second, self.first)):
                        theirs.append(self._by_virsh(view, source, target, shared=shared))
                print(file=sys.stderr)
                report("shared storage" if shared else "local disk", ours, theirs)

    def _by_agents(
        self, view: model.InstanceView, source: Host, target: Host
    ) -> tuple[float, float]:
        start = time.perf_counter()
        moved = self.api.live_migration(view.name, target.name, host=source.name)
        return time.perf_counter() - start, float(moved.downtime or 0)

    def _by_virsh(
        self, view: model.InstanceView, source: Host, target: Host, *, shared: bool
    ) -> tuple[float, float]:
        options = ["--live", "--p2p", "--bandwidth", str(self.bandwidth)]
        options += ["--persistent", "--undefinesource"]
        if not shared:
            options += self._prepare_disk(view, source, target)
        start = time.perf_counter()
        source.run(
            "virsh", "-q", "migrate", *options, view.uuid,
            f"qemu+tcp://{target.address}/system", "--migrateuri", f"tcp://{target.address}",
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if not shared:
            subprocess.run(["rm", "-rf", self._directory(source, view)], check=True)
        # libvirt forgets the statistics of a domain that it undefines; the destination has them
        stats = target.libvirt().lookupByUUIDString(view.uuid).jobStats(1)
        return seconds, float(stats.get("downtime_net", stats.get("downtime", 0)))

    @staticmethod
    def _directory(host: Host, view: model.InstanceView) -> str:
        return os.path.join(host.local_storage, view.uuid)

    def _prepare_disk(self, view: model.InstanceView, source: Host, target: Host) -> list[str]:
        """What a careful administrator does before: files there, and a definition that names them."""
        there = self._directory(target, view)
        os.makedirs(there)
        base = next(n for n in os.listdir(f"{target.local_storage}/_base") if len(n) == 40)
        here = self._directory(source, view)
        subprocess.run(["cp", f"{here}/disk.config", there], check=True)
        size = source.libvirt().lookupByUUIDString(view.uuid).blockInfo("vda")[0]
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
             f"{target.local_storage}/_base/{base}", f"{there}/disk", str(size)],
            check=True,
        )  # fmt: skip
        files = []
        for name, flag in (("live", "--migratable"), ("persistent", "--inactive")):
            text = source.run("virsh", "dumpxml", flag, "--security-info", view.uuid)
            path = os.path.join(target.state, f"{name}.xml")
            with open(path, "w") as file:
                file.write(text.replace(source.local_storage, target.local_storage))
            files.append(path)
        return [
            "--copy-storage-inc", "--migrate-disks", "vda",
            "--xml", files[0], "--persistent-xml", files[1],
        ]  # fmt: skip


def report(what: str, ours: Times, theirs: Times) -> None:
    def median(rows: Times, column: int) -> float:
        return statistics.median(row[column] for row in rows)

    for name, column, unit, digits in (("total time", 0, "s", 2), ("downtime", 1, "ms", 0)):
        mine, other = median(ours, column), median(theirs, column)
        print(
            f"{what}: {name}: agents {mine:.{digits}f} {unit}, virsh {other:.{digits}f} {unit}, "
            f"ratio {mine / other if other else float('nan'):.2f}"
        )


def main(arguments: list[str]) -> int:
    numbers: list[Any] = [int(argument) for argument in arguments]
    Bench.rounds, Bench.bandwidth = (*numbers, *(6, 40)[len(numbers) :])
    Bench.setUpClass()
    bench = Bench()
    try:
        bench.setUp()
        bench.runTest()
        return 0
    finally:
        bench.doCleanups()
        Bench.doClassCleanups()


if __name__ == "__main__":
    if namespace.INSIDE not in os.environ:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
