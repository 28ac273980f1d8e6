"""Who gets nested virtualization: every mode, policy, kind of host and request.

The table in doc/source/nested.rst is generated from here; KVMDRIVER_UPDATE_GOLDEN=1 renews it.
"""

import itertools
import os
import pathlib
import unittest

from lxml import etree

from kvmdriver import exception
from kvmdriver.definition.cpu import build_cpu
from kvmdriver.definition.platform import Platform
from kvmdriver.model import Cpu, Instance
from kvmdriver.model.layout import InstanceLayout
from tests.unit.host.cpus import HOSTS, chooser

ROOT = pathlib.Path(__file__).parents[3]
PAGE = ROOT / "doc" / "source" / "nested.rst"
START, END = ".. begin of the generated table\n", ".. end of the generated table\n"

MODES = ("host-model", "host-passthrough", "maximum", "custom", "none")
POLICIES = ("off", "on-request", "on")
REQUESTS = (False, True)
CELLS = list(itertools.product(HOSTS, MODES, POLICIES, REQUESTS))
_MODEL = {"Intel, nested": "Skylake-Client", "Intel": "Skylake-Client", "AMD, nested": "EPYC"}


def outcome(host: str, mode: str, policy: str, asked: bool) -> tuple[str, Cpu | None]:
    """What happens in one cell, in the table's words, and the CPU that is chosen."""
    models = (_MODEL.get(host, "EPYC"),) if mode == "custom" else ()
    some = chooser(host, nested=policy)
    try:
        chosen = some.choose(Cpu(mode=mode, models=models, nested=asked))
    except exception.Unsupported as error:
        return ("refused" if error.field == "cpu.nested" else "impossible"), None
    flag = next((f for f in chosen.features if f.name == some.nested_flag), None)
    if flag is None:
        return "default", chosen
    return f"{flag.name} {'on' if flag.policy == 'require' else 'off'}", chosen


def expected(host: str, mode: str, policy: str, asked: bool) -> str:
    """The same by the rules as they are written down."""
    emulated = host == "emulation"
    flag = "svm" if emulated or host.startswith("AMD") else "vmx"
    can = emulated or host.endswith("nested")
    if emulated and mode == "host-passthrough":
        return "impossible"
    if asked and (policy == "off" or not can):
        return "refused"
    if can and (asked or policy == "on"):
        return f"{flag} on"
    # what KVM runs when it is told nothing has neither flag
    return "default" if mode == "none" and not emulated else f"{flag} off"


def table() -> str:
    rows = [
        [
            "Host",
            "Mode",
            *(f"{p}, {'asked' if a else 'not asked'}" for p in POLICIES for a in REQUESTS),
        ]
    ]
    for host, mode in itertools.product(HOSTS, MODES):
        rows.append(
            [host, mode, *(outcome(host, mode, p, a)[0] for p in POLICIES for a in REQUESTS)]
        )
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for position, cell in enumerate(row):
            lines.append(f"   {'*' if position == 0 else ' '} - {cell}")
    return "\n".join(lines) + "\n"


class MatrixTest(unittest.TestCase):
    def test_every_cell(self) -> None:
        self.assertEqual(5 * 5 * 3 * 2, len(CELLS))
        for cell in CELLS:
            with self.subTest(cell):
                self.assertEqual(expected(*cell), outcome(*cell)[0])

    def test_the_xml_of_every_cell(self) -> None:
        """libvirt gets the flag with policy require or disable, in the mode in use."""
        for cell in CELLS:
            words, cpu = outcome(*cell)
            if cpu is None:
                continue
            instance = Instance.parse({"name": "x"}).changed(cpu=cpu)
            domain = etree.Element("domain")
            build_cpu(
                domain, instance, Platform(InstanceLayout("/i", instance.uuid), "x86_64", "")
            )
            found = domain.find("cpu")
            with self.subTest(cell):
                if words == "default":
                    self.assertIsNone(found)
                    continue
                assert found is not None
                flag, state = words.split()
                policy = "require" if state == "on" else "disable"
                feature = found.find(f"feature[@name='{flag}']")
                assert feature is not None
                self.assertEqual(policy, feature.get("policy"))
                mode = "custom" if cell[1] == "none" else cell[1]
                self.assertEqual(mode, found.get("mode"))

    def test_the_page_is_up_to_date(self) -> None:
        text = PAGE.read_text()
        head, rest = text.split(START)
        tail = rest.split(END)[1]
        wanted = f"{head}{START}\n{table()}\n{END}{tail}"
        if os.environ.get("KVMDRIVER_UPDATE_GOLDEN"):
            PAGE.write_text(wanted)
            return
        self.assertEqual(wanted, text, "renew it with KVMDRIVER_UPDATE_GOLDEN=1")
