"""The import rule of the design: who may use whom."""

import ast
import pathlib
import unittest

import kvmdriver

ROOT = pathlib.Path(kvmdriver.__file__).parent

# Each layer may import itself, what stands here, and what everybody may import.
ALLOWED = {
    "agent": {"driver", "hypervisor"},
    "cli": {"agent", "driver", "host"},
    "osc": {"cli", "agent"},
    "driver": {"moves", "operations", "guest", "host", "hypervisor", "storage"},
    "moves": {"operations"},
    "nova": {"guest", "definition", "storage", "host", "hypervisor"},
    "operations": {"guest", "definition", "storage", "network", "host", "hypervisor", "privsep"},
    "guest": {"definition", "storage", "host", "hypervisor", "privsep"},
    "definition": set(),
    "storage": set(),
    "network": {"hypervisor"},
    "host": {"hypervisor", "privsep"},
    "hypervisor": {"privsep"},
    "model": set(),
    "conf": set(),
    "exception": set(),
    "progress": set(),
    "plugins": set(),
    "neighbour": set(),
    "acceptor": set(),
    "privsep": set(),
    "shim": set(),
}
EVERYBODY = {"model", "conf", "exception", "progress", "plugins", "neighbour", "acceptor"}
# Pure: no input or output, no clock, no configuration.
IMPURE = {"os", "time", "subprocess", "socket", "random", "datetime", "oslo_config", "libvirt"}


def imports(path: pathlib.Path) -> set[str]:
    """Every module that a file names in an import, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.name != "__init__.py"]


class LayersTest(unittest.TestCase):
    def test_every_layer_is_known(self) -> None:
        self.assertEqual(set(), {layer_of(path) for path in FILES} - set(ALLOWED))

    def test_data_flows_downwards(self) -> None:
        wrong = []
        for path in FILES:
            layer = layer_of(path)
            for name in imports(path):
                parts = name.split(".")
                if parts[0] != "kvmdriver" or len(parts) < 2 or parts[1] == layer:
                    continue
                if parts[1] not in ALLOWED[layer] | EVERYBODY:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual([], wrong)

    def test_only_the_hypervisor_layer_knows_libvirt(self) -> None:
        users = {layer_of(path) for path in FILES if "libvirt" in imports(path)}
        self.assertEqual({"hypervisor"}, users)

    def test_only_the_adapter_knows_nova(self) -> None:
        users = {
            layer_of(path)
            for path in FILES
            if any(name.split(".")[0] == "nova" for name in imports(path))
        }
        self.assertEqual({"nova"}, users)

    def test_the_adapter_has_nothing_of_the_driver_in_tree(self) -> None:
        for path in (ROOT / "nova").glob("*.py"):
            for name in imports(path):
                self.assertFalse(name.startswith(("nova.virt.libvirt", "nova.virt.fake")), path)

    def test_definitions_are_pure(self) -> None:
        for path in (ROOT / "definition").glob("*.py"):
            self.assertEqual(set(), {n.split(".")[0] for n in imports(path)} & IMPURE, path)

    def test_files_are_short(self) -> None:
        long = {p.name for p in FILES if len(p.read_text().splitlines()) > 520}
        self.assertEqual(set(), long)
