"""What lies on disk about a running host of the stack, and how to reach into its namespaces."""

import dataclasses
import os

from tests.openstack.paths import FIRST, Paths


@dataclasses.dataclass(frozen=True)
class Control:
    """The files by which commands outside and the supervisor inside of a host speak."""

    paths: Paths
    host: str

    def file(self, name: str) -> str:
        return os.path.join(self.paths.laboratory(self.host), name)

    def begin(self) -> None:
        """Forget what an earlier run has left."""
        os.makedirs(self.paths.laboratory(self.host), exist_ok=True)
        for name in ("pid", "progress", "restart", "processes"):
            if os.path.exists(self.file(name)):
                os.unlink(self.file(name))

    def write(self, name: str, text: str) -> None:
        """Write a file so that nobody reads half of it."""
        with open(self.file(f"{name}.new"), "w") as file:
            file.write(text)
        os.rename(self.file(f"{name}.new"), self.file(name))

    def lines(self, name: str) -> list[str]:
        return _lines(self.file(name))

    def report(self, text: str) -> None:
        """Add a line to the progress that whoever started the host waits for."""
        with open(self.file("progress"), "a") as file:
            file.write(text + "\n")

    def inside(self) -> int | None:
        """Process id, as seen from here, of the first process of the namespaces while it lives."""
        lines = self.lines("pid")
        if not lines:
            return None
        try:
            with open(f"/proc/{lines[0]}/cmdline", "rb") as file:
                if b"tests.namespace" not in file.read():
                    return None
        except FileNotFoundError:
            return None
        pid = lines[0]
        # unshare is the parent of the first process; other hosts are entered by nsenter before
        for _ in range(1 if self.host == FIRST else 2):
            children = _lines(f"/proc/{pid}/task/{pid}/children")
            if not children:
                return None
            pid = children[0].split()[0]
        return int(pid)

    def enter(self) -> list[str]:
        """The command line that runs another one in the namespaces.

        :raises LookupError: the host is down
        """
        inside = self.inside()
        if inside is None:
            raise LookupError(f"{self.host} is not up")
        return [
            "nsenter", "-t", str(inside), "-n", "-m", "-p", "-u", "-i",
            f"--wd={os.getcwd()}", "--",
        ]  # fmt: skip


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
