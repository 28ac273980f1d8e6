"""What the operator's terminal gets to see: text, and never a command to the terminal.

Names, messages and logs come from image servers, guests, libvirt and other hosts. A terminal carries
control characters out: they move the cursor, hide lines, set the title, and on some terminals type
text back. Everything that commands print therefore goes through a ``Screen``.
"""

import re
import sys
from typing import Any, TextIO, cast

# Control characters (C0 without newline and tab, DEL, C1), characters that reverse the direction of
# text (UAX #9: a name that reads backwards), Unicode's line breaks, and halves of surrogate pairs,
# which no encoding can write.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Select Graphic Rendition (ECMA-48, 8.3.117), the colours of a boot log. Without 8, which conceals.
_ATTRIBUTE = r"(?:[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3}|10[0-7]|[349]\d|2[1-7]|[0-47])"
_COLOUR = re.compile(rf"\x1b\[(?:{_ATTRIBUTE}(?:;{_ATTRIBUTE}){{0,8}})?m")
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """Return the text with ``\u001b`` and the like in the place of what a terminal would carry out.

    The notation is that of JSON, so that a JSON document means the same afterwards.
    """
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def printable_log(text: str) -> str:
    """Return the same for the log of a serial console: colours stay, lines may end with CR LF."""
    text = text.replace("\r\n", "\n")
    shown, end = [], 0
    for match in _COLOUR.finditer(text):
        shown += [printable(text[end : match.start()]), match[0]]
        end = match.end()
    shown.append(printable(text[end:]))
    return "".join(shown) + (_RESET if end else "")


class Screen:
    """A text stream that shows control characters and does not send them.

    :param keep: further control characters that are sent.
    """

    def __init__(self, stream: TextIO, keep: str = ""):
        self.raw = stream
        self._keep = keep

    def write(self, text: str) -> int:
        parts = re.split(f"([{self._keep}])", text) if self._keep else [text]
        self.raw.write("".join(p if p in self._keep and p else printable(p) for p in parts))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def output() -> TextIO:
    """Return standard output, for results."""
    return cast(TextIO, Screen(sys.stdout))


def messages() -> TextIO:
    """Return standard error, for all that is said to the user."""
    return cast(TextIO, Screen(sys.stderr))


def progress() -> TextIO:
    """Return standard error for a progress bar, which returns to the start of its line."""
    return cast(TextIO, Screen(sys.stderr, keep="\r"))
