"""What a guest does while it moves, and what it has to say about it afterwards."""

import re
import subprocess
import threading
import time

from tests.functional.base import Guest

# A file system in the guest's memory.
_MEMORY = "mkdir -p /mem; grep -q ' /mem ' /proc/mounts || mount -t tmpfs -o size=120m mem /mem;"

# Counts on the console and, synced, on the disk; says through the session how long the longest
# pause between two of its own steps was, by the clock of whoever answers. The guest's own clock
# stands still while it is paused.
_SCRIPT = r"""
: > /root/counter
( n=0; while [ ! -e /tmp/stop ]; do n=$((n + 1)); echo "count $n" > /dev/ttyS0; echo $n >> /root/counter
  [ $((n % 5)) = 0 ] && sync; usleep 50000; done; sync; echo $n > /tmp/counted ) &
last=0; longest=0
while [ ! -e /tmp/stop ]; do
  echo tick; read now || break
  [ $last -gt 0 ] && [ $((now - last)) -gt $longest ] && longest=$((now - last))
  last=$now; usleep 5000
done
while [ ! -e /tmp/counted ]; do usleep 50000; done
echo "longest $longest counted $(cat /tmp/counted)"
"""


class Workload:
    """Runs from ``start`` to ``stop`` through one ssh session that must survive."""

    def __init__(self, guest: Guest):
        self.guest = guest
        self.longest_pause = 0
        """Milliseconds, as the guest reports it."""
        self.counted = 0
        self._session: subprocess.Popen[str] | None = None
        self._answer = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.guest.run("rm -f /tmp/stop /tmp/counted; sha256sum /bin/busybox > /root/sum")
        # the memory that is looked at afterwards: a file in it
        self.guest.run(
            f"{_MEMORY} dd if=/dev/urandom of=/mem/kept bs=64k count=128 2>/dev/null;"
            "sha256sum /mem/kept > /root/memory-sum; sync"
        )
        self._session = subprocess.Popen(
            self.guest._command(_SCRIPT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._thread = threading.Thread(target=self._talk, args=(self._session,), daemon=True)
        self._thread.start()

    def _talk(self, session: "subprocess.Popen[str]") -> None:
        assert session.stdin is not None and session.stdout is not None
        for line in session.stdout:
            if not line.startswith("tick"):
                self._answer = line
                continue
            try:
                session.stdin.write(f"{int(time.monotonic() * 1000)}\n")
                session.stdin.flush()
            except BrokenPipeError:
                return

    def stop(self) -> None:
        """End it in good order, and read its report; an AssertionError if it did not survive."""
        assert self._session is not None and self._thread is not None
        if self._session.poll() is not None:
            raise AssertionError("the ssh session broke")
        self.guest.run("touch /tmp/stop")
        self._thread.join(30)
        self._session.wait(30)
        found = re.fullmatch(r"longest (\d+) counted (\d+)\n", self._answer)
        if found is None:
            raise AssertionError(f"the guest's report: {self._answer!r}")
        self.longest_pause, self.counted = int(found[1]), int(found[2])

    def check(self, console: str) -> None:
        """No write to the disk, no line of the console and nothing in memory may be lost."""
        self.guest.run("sha256sum -c /root/memory-sum /root/sum")
        written = self.guest.run("cat /root/counter").split()
        if written != [str(number + 1) for number in range(self.counted)]:
            raise AssertionError(f"lost writes: {len(written)} of {self.counted} are there")
        printed = [int(n) for n in re.findall(r"count (\d+)\r?\n", console)]
        missing = sorted(set(range(1, self.counted + 1)) - set(printed))
        if missing:
            raise AssertionError(
                f"lost console lines: {len(missing)}, {missing[:5]} to {missing[-1]}, of {self.counted}"
            )


class Dirtier:
    """Changes memory all the time, faster than a slow link can send it."""

    def __init__(self, guest: Guest, mib: int = 48):
        self._guest = guest
        self._mib = mib

    def start(self) -> None:
        self._guest.run(
            f"{_MEMORY} dd if=/dev/urandom of=/mem/dirt bs=1M count={self._mib} 2>/dev/null;"
            "(while [ ! -e /tmp/clean ]; do"
            " dd if=/mem/dirt of=/mem/dirt2 bs=1M conv=notrunc 2>/dev/null;"
            " dd if=/mem/dirt2 of=/mem/dirt bs=1M conv=notrunc 2>/dev/null;"
            " done) </dev/null >/dev/null 2>&1 &"
        )

    def stop(self) -> None:
        self._guest.run("touch /tmp/clean")
