"""Agents in processes of their own that take no time to start, and that die when told.

``Nursery`` runs this module as a process that has imported everything and opened nothing. For each
agent it forks: the child is a ``LocalAgent`` on the laboratory's libvirtd, takes calls on its
standard input and answers on its standard output, one line of JSON for each, until it is stopped or
has killed itself with SIGKILL after the change that the caller has chosen (``changes``).
"""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
from typing import Any

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
from kvmdriver import conf as options
from kvmdriver import exception
from tests import namespace
from tests.recovery import judge
from tests.recovery.changes import Changes

HOST = "recovery"
_ANSWER_SECONDS = 120


class Answer:
    """What came of a call: an answer, an error, or the death of the agent."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.value: Any = None
        self.error: dict[str, Any] | None = None
        self.died = False

    def __str__(self) -> str:
        if self.died:
            return "died"
        if self.error is not None:
            return f"{self.error.get('code')}: {self.error.get('message')}"
        return "ok"


class Nursery:
    """Starts agents on a state directory, one at a time.

    Instances are in ``instances`` below it; ``disks`` is where disks may be moved to.
    """

    def __init__(self, state: str):
        self._state = state
        self.log = os.path.join(state, "agents.log")
        self.agent: Agent | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.recovery.victim", state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(f"{self.log}.err", "ab"),
            bufsize=0,
        )

    def start(self, *, die_after: int | None = None) -> "Agent":
        """A new agent, which has looked after what the one before it has left.

        :param die_after: kill it right after that change that it makes in doing so.
        """
        if self.agent is not None:
            self.agent.kill()
        self.agent = Agent(self, die_after)
        return self.agent

    def send(self, **line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise AssertionError(f"an agent does not answer:\n{self.tail()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def mark(self) -> int:
        """Where the log ends now."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def tail(self, mark: int = 0) -> str:
        """The end of what agents have logged since then."""
        with contextlib.suppress(FileNotFoundError), open(self.log) as log:
            log.seek(mark)
            return log.read()[-3000:]
        return ""

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Agent:
    """One agent, in a session of its own."""

    def __init__(self, nursery: Nursery, die_after: int | None = None):
        self._nursery = nursery
        nursery.send(start=True, die=die_after)
        line = nursery.receive()
        while "change" in line:
            line = nursery.receive()
        self.pid: int = line.get("pid", 0)
        self._ended = "ended" in line
        if not self.pid and not (self._ended and die_after):
            if not self._ended:
                nursery.receive()
            raise AssertionError(f"the agent did not start: {line}\n{nursery.tail()}")

    def call(
        self, method: str, *, die_after: int | None = None, count: bool = False, **arguments: Any
    ) -> Answer:
        """Call an RPC method.

        :param die_after: kill the agent right after that change of the call, the first being 1.
        :param count: tell the changes that the call makes, without any killing.
        """
        self._nursery.send(
            call=method, arguments=arguments, count=count or die_after is not None, die=die_after
        )
        answer = Answer()
        while True:
            line = self._nursery.receive()
            if "change" in line:
                answer.changes.append(line["change"])
            elif "ended" in line:
                answer.died = self._ended = True
                self._wait_for_children()
                return answer
            else:
                answer.value, answer.error = line.get("answer"), line.get("error")
                return answer

    def stop(self) -> None:
        """End the agent, unless it is dead."""
        if not self._ended:
            self._nursery.send(stop=True)
            while "ended" not in self._nursery.receive():
                pass
            self._ended = True

    def kill(self) -> None:
        """End the agent in whatever it is doing."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            while "ended" not in self._nursery.receive():
                pass
            self._ended = True

    def _wait_for_children(self) -> None:
        """A qemu-img of a killed agent goes on until it is done."""
        namespace.wait_for(lambda: not judge.processes_of(self.pid), 60, 0.01)


# The other side


def _serve(state: str) -> None:
    """Fork an agent for each request of the parent, until there are no more."""
    # nothing but answers may come out there
    answers = os.dup(1)
    os.dup2(2, 1)
    source = open(0, "rb", buffering=0, closefd=False)

    def tell(**line: Any) -> None:
        os.write(answers, json.dumps(line).encode() + b"\n")

    while line := source.readline():
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                _be_agent(state, json.loads(line)["die"], source, tell)
            except exception.KVMDriverError as error:
                tell(error=error.to_dict())
            except BaseException:
                logging.exception("the agent has failed")
            os._exit(1)  # without looking after threads
        _pid, status = os.waitpid(pid, 0)
        tell(ended=os.waitstatus_to_exitcode(status))


def _be_agent(state: str, die_after: int | None, source: Any, tell: Any) -> None:
    from oslo_config import cfg

    from kvmdriver.agent.local import LocalAgent

    logging.basicConfig(filename=os.path.join(state, "agents.log"), level=logging.INFO)
    changes = Changes((state,), lambda what: tell(change=what))
    changes.install()
    conf = options.register_opts(cfg.ConfigOpts())
    conf([], project="kvmdriver", default_config_files=[])
    for group, name, value in (
        ("kvm", "virt_type", "qemu"),
        ("kvm_storage", "instances_path", os.path.join(state, "instances")),
        ("kvm_storage", "disk_directories", [os.path.join(state, "disks")]),
        ("kvm_storage", "reserved_disk_mib", 16),
        ("kvm_agent", "host", HOST),
    ):
        conf.set_override(name, value, group)
    if die_after is not None:
        changes.count(die_after)
    agent = LocalAgent(conf)
    changes.stop()
    tell(pid=os.getpid())
    while line := source.readline():
        command = json.loads(line)
        if "call" not in command:
            break
        if command["count"]:
            changes.count(command["die"])
        try:
            # not "ask", whose own timeout hides that of a request
            answer = agent.client._call(command["call"], HOST, command["arguments"])
            changes.stop()
            tell(answer=answer)
        except exception.KVMDriverError as error:
            changes.stop()
            tell(error=error.to_dict())
    os._exit(0)


if __name__ == "__main__":
    # what would be loaded by the first agent only
    import kvmdriver.agent.local  # noqa: F401
    import kvmdriver.driver  # noqa: F401

    _serve(sys.argv[1])
