"""The agent dies right after each change that an operation makes: nothing lost, nothing left.

The points are found by counting (``changes``): one run that nobody disturbs tells how many changes
an operation makes, and then the same run is repeated for each of them with the agent killed right
after. A new agent looks after what is left. What there is then must be what was before the
operation or what is after it, and sound (``judge``); and the same request again must end as done.

One operation alone, or one point of it::

    python -m tests.namespace python -m testtools.run \\
        tests.recovery.test_kill_points.KillPointTest.test_attach_disk_running
    KVMDRIVER_KILL_POINT=4 python -m tests.namespace python -m testtools.run ...

With ``KVMDRIVER_KILL_AGAIN=N`` the agent that looks after what is left is killed too, right after
its N-th change, and another one has to look after that.
"""

import os
import shutil
import sys
import unittest
from collections.abc import Callable
from typing import Any

from tests import namespace
from tests.recovery import host, judge, operations
from tests.recovery.operations import Operation
from tests.recovery.victim import Nursery

AGAIN = os.environ.get("KVMDRIVER_KILL_AGAIN")
_CANARY = frozenset([host.Canary.uuid])


class KillPointTest(unittest.TestCase):
    """One test for each operation, with a guest beside it that must not notice anything."""

    state: str
    nursery: Nursery
    canary: host.Canary
    instances: str
    cached: set[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if namespace.INSIDE not in os.environ:
            raise AssertionError("these tests need their laboratory: see the module")
        # the same for all, as it is a part of what operations are asked to do
        cls.state = STATE
        os.makedirs(cls.state)
        os.chmod(cls.state, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.state, ignore_errors=True)
        cls.instances = os.path.join(cls.state, "instances")
        host.make_image(f"{cls.state}/image.qcow2")
        cls.nursery = Nursery(cls.state)
        cls.addClassCleanup(cls.nursery.close)
        cls.addClassCleanup(host.wipe, cls.state)
        cls.canary = host.Canary(cls.instances)
        agent = cls.nursery.start()
        answer = agent.call("build_and_run_instance", instance=cls.canary.request())
        agent.stop()
        if answer.error is not None:
            raise AssertionError(f"there is no canary: {answer}")
        cls.canary.wait_for_boot()
        cls.cached = set(os.listdir(f"{cls.instances}/_base"))

    def tearDown(self) -> None:
        super().tearDown()
        host.wipe(self.state, host.Canary.uuid, self.cached)

    def strike_everywhere(self, operation: Operation) -> None:
        """Kill the agent after each change of an operation, and judge each time."""
        content = not operation.boots
        look = judge.Judge(
            self.instances, (f"{self.state}/disks", f"{self.state}/snapshots"), content=content
        )
        before = self._prepare(operation, look)
        agent = self.nursery.start()
        answer = agent.call(operation.method, count=True, **operation.request)
        agent.stop()
        self.assertIsNone(answer.error, f"undisturbed: {answer}")
        after = look.look(_CANARY)
        self.assertEqual([], after.broken, "undisturbed")
        points = answer.changes
        self.assertTrue(points, "the operation changes nothing")
        only = os.environ.get("KVMDRIVER_KILL_POINT")
        failed = []
        chosen = [int(only)] if only else range(1, len(points) + 1)
        for point in chosen:
            self._prepare(operation, look)
            mark = self.nursery.mark()
            wrong = self._strike(operation, point, look, before, after)
            if wrong:
                failed.append(
                    f"point {point} of {len(points)}, after {points[point - 1]}:\n"
                    + "".join(f"    {line}\n" for line in wrong)
                    + _indented(self.nursery.tail(mark))
                )
        sys.stdout.write(f"{operation.name}: {len(chosen)} points, {len(failed)} broken\n")
        if failed:
            self.fail(f"{operation.name}: {len(failed)} points are broken\n" + "\n".join(failed))

    def _prepare(self, operation: Operation, look: judge.Judge) -> judge.Seen:
        """Everything as it is before the operation."""
        # to fill the image cache is a part of creating an instance, and of nothing else here
        cached = self.cached if operation.before == "missing" else None
        host.wipe(self.state, host.Canary.uuid, cached)
        agent = self.nursery.start()
        for method, arguments in operation.preparation(self.state):
            answer = agent.call(method, **arguments)
            self.assertIsNone(answer.error, f"preparing: {answer}")
        agent.stop()
        if operation.boots and operation.before == "running":
            host.wait_for_boot(self.instances, operations.SUBJECT)
        seen = look.look(_CANARY)
        self.assertEqual([], seen.broken, "prepared")
        return seen

    def _strike(
        self,
        operation: Operation,
        point: int,
        look: judge.Judge,
        before: judge.Seen,
        after: judge.Seen,
    ) -> list[str]:
        """Kill the agent at one point; what is broken then."""
        agent = self.nursery.start()
        answer = agent.call(operation.method, die_after=point, **operation.request)
        agent.stop()
        wrong = []
        if not answer.died:
            wrong.append(f"the agent did not come to that point: {answer}, {answer.changes}")
        if AGAIN:
            self.nursery.start(die_after=int(AGAIN)).stop()
        successor = self.nursery.start()
        seen = look.look(_CANARY)
        wrong += [f"after the next start: {line}" for line in seen.broken]
        if seen.state() not in (before.state(), after.state()):
            wrong.append(
                "after the next start the operation is neither done nor not done:"
                f" to done lack {difference(seen, after)}; to not done lack"
                f" {difference(seen, before)}"
            )
        answer = successor.call(operation.method, **operation.request)
        successor.stop()
        if answer.error is not None:
            wrong.append(f"the same request again: {answer}")
        seen = look.look(_CANARY)
        wrong += [f"after the same request: {line}" for line in seen.broken]
        if seen.state() != after.state():
            wrong.append(f"after the same request, to done lack {difference(seen, after)}")
        return wrong + self.canary.broken()


def difference(found: judge.Seen, wanted: judge.Seen) -> str:
    """What is otherwise than wanted, item by item."""
    is_now, should = _flat(found.state()), _flat(wanted.state())
    lines = [
        f"{key}={should.get(key, 'nothing')!r} (is {is_now.get(key, 'nothing')!r})"
        for key in sorted(is_now.keys() | should.keys())
        if is_now.get(key) != should.get(key)
    ]
    return ", ".join(lines) or "nothing"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{path}/{key}".lstrip("/"))
    return found


def _indented(text: str) -> str:
    return "".join(f"      | {line}\n" for line in text.splitlines()[-12:])


def _case(operation: Operation) -> Callable[[KillPointTest], None]:
    def test(self: KillPointTest) -> None:
        self.strike_everywhere(operation)

    test.__doc__ = operation.name
    return test


STATE = os.path.join(os.environ.get(namespace.INSIDE, "/nowhere"), "kill-points")
for found in operations.all_operations(STATE):
    setattr(KillPointTest, f"test_{found.name.replace(' ', '_')}", _case(found))
