"""The command blocks of README and guides, each with what its marker says that it needs."""

import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

TOP = pathlib.Path(__file__).parents[1]
# Words of a marker, ".. needs: WORD", and of one that must give its reason, ".. needs: never: WHY"
KINDS = ("laboratory", "two hosts", "openstack", "never")
_MARKER = re.compile(r"\.\. needs: (.*)")
# A block that begins so is configuration.
_SECTION = re.compile(r"\[[A-Za-z_]+\]")
_SHELL = ("shell", "console", "bash", "sh", "")


@dataclasses.dataclass(frozen=True)
class Block:
    """Commands of a document, which begin at ``line``; ``needs`` is None without a marker."""

    document: str
    line: int
    needs: str | None
    reason: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each line of the block, without comments and joined where it goes on."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def documents() -> list[pathlib.Path]:
    """The texts beside README, and all pages of the documentation."""
    return [*sorted(TOP.glob("*.rst")), *sorted((TOP / "doc" / "source").rglob("*.rst"))]


def blocks(path: pathlib.Path) -> list[Block]:
    """The command blocks of a document: literal blocks, and code blocks in a shell's language."""
    return list(parse(path.read_text(), str(path.relative_to(TOP))))


def needing(what: str) -> dict[str, list[Block]]:
    """The blocks with that marker, by their document; only documents that have some."""
    found = {str(path.relative_to(TOP)): blocks(path) for path in documents()}
    chosen = {name: [b for b in all_ if b.needs == what] for name, all_ in found.items()}
    return {name: some for name, some in chosen.items() if some}


def parse(text: str, document: str) -> Iterator[Block]:
    """The command blocks of reStructuredText that comes from ``document``."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        code = re.match(r"( *)\.\. code-block::\s*(\S*)", line)
        if code:
            if code[2] not in _SHELL:
                continue
        elif not line.endswith("::") or line.lstrip().startswith(".. "):
            continue
        indent = len(line) - len(line.lstrip())
        content = list(_content(lines[number + 1 :], indent))
        first = next((part.strip() for part in content if part), None)
        if first is None or _SECTION.fullmatch(first):
            continue
        kind, _, reason = (_marker(lines, number) or "").partition(": ")
        yield Block(document, number + 1, kind or None, reason, _dedent(content))


def _content(lines: list[str], indent: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return
        if not re.match(r" +:[a-z-]+:", line):
            yield line


def _dedent(lines: list[str]) -> str:
    width = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[width:] for line in lines).strip("\n") + "\n"


def _marker(lines: list[str], number: int) -> str | None:
    """What the marker above a block says; above the paragraph that ends with two colons, too."""
    while number and lines[number - 1].strip() and not _MARKER.match(lines[number].strip()):
        number -= 1
    if not _MARKER.match(lines[number].strip()):
        number -= 2  # a marker, an empty line, the paragraph
    found = _MARKER.match(lines[number].strip()) if number >= 0 else None
    return found[1] if found else None


def carry_out(
    blocks: Sequence[Block], directory: str, environment: Mapping[str, str], seconds: float = 300
) -> str:
    """Run blocks one after the other in one shell; what they print.

    :param directory: the home directory, where they run.
    :raises AssertionError: a command fails, or all of them take too long.
    """
    script = pathlib.Path(directory) / "script"
    # the number of a block's line is in the trace of each of its commands
    parts = [f"PS4='+ {block.place}: '\n{block.text}" for block in blocks]
    script.write_text("set -euxo pipefail\n" + "\n".join(parts))
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", str(script)],
        cwd=directory,
        env={**os.environ, "HOME": directory, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    if process.returncode:
        raise AssertionError(f"status {process.returncode}: {output[-4000:]}")
    return output
