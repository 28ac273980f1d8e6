"""Kill anything at any time during a migration: one guest is left, and nothing else.

What was seen goes into a table, ``doc/source/migration-faults.rst``, with KVMDRIVER_UPDATE_GOLDEN=1.
"""

import os
import pathlib

from tests.recovery import case, faults
from tests.recovery.faults import Fault

TABLE = pathlib.Path(__file__).parents[2] / "doc" / "source" / "migration-faults.rst"


class FaultTest(case.FaultCase):
    """Every fault in every state."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.addClassCleanup(cls._write_table)

    @classmethod
    def _write_table(cls) -> None:
        """What was seen, where all of it was."""
        if len(cls.seen) == len(faults.all_faults()) and os.environ.get("KVMDRIVER_UPDATE_GOLDEN"):
            TABLE.write_text(table(cls.seen))


case.add_cases(FaultTest, faults.all_faults())


def table(seen: dict[Fault, tuple[str, str]]) -> str:
    """What was seen, as a page of the manual."""
    rows = [
        f"   * - {fault.state}\n     - {fault.victim}"
        f"{'' if fault.victim == 'link' else ' of the ' + fault.side}\n"
        f"     - {side}\n     - {state}\n"
        for fault, (side, state) in seen.items()
    ]
    return f"""Migrations that are cut off
===========================

Each line is a case that the tests carry out on real hosts (``tests/recovery/test_faults.py``): one
thing is killed, or the cable is cut for twelve seconds, in one state of a migration; what was
killed is started again; a while later the instance is on one host, and nothing of it is left on
the other. A guest runs on unless its own QEMU was killed.

.. list-table::
   :header-rows: 1

   * - state
     - killed
     - guest is on
     - and is
{"".join(rows)}"""
