"""Copy kernel modules with all that they need, and note the order in which to load them.

usage: modules.py LIB-MODULES-VERSION TARGET MODULE...
"""

import pathlib
import re
import shutil
import sys


def wanted_by(module: pathlib.Path) -> list[str]:
    """What a module depends on, from its own information section."""
    data = module.read_bytes()
    names: list[str] = []
    for pattern in (rb"\0depends=([^\0]*)\0", rb"\0softdep=pre: ([^\0]*)\0"):
        for match in re.findall(pattern, data):
            names += [name for name in re.split(r"[ ,]", match.decode()) if name]
    return [name.replace("-", "_") for name in names]


def main(source: str, target: str, *names: str) -> None:
    available = {path.stem.replace("-", "_"): path for path in pathlib.Path(source).rglob("*.ko")}
    order: list[str] = []

    def visit(name: str) -> None:
        # what is not there as a module is built into the kernel
        if name in order or name not in available:
            return
        for needed in wanted_by(available[name]):
            visit(needed)
        order.append(name)

    for name in names:
        visit(name.replace("-", "_"))
    pathlib.Path(target).mkdir(parents=True, exist_ok=True)
    for name in order:
        shutil.copy(available[name], pathlib.Path(target) / f"{name}.ko")
    pathlib.Path(target, "order").write_text("".join(f"{name}\n" for name in order))


if __name__ == "__main__":
    main(*sys.argv[1:])
