"""Serial and graphical consoles."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kvmdriver.model.base import Model, Secret

# The layouts that QEMU ships (pc-bios/keymaps). QEMU opens what it is given as a path.
Keymap = Literal[
    "ar", "bepo", "cz", "da", "de", "de-ch", "en-gb", "en-us", "es", "et", "fi", "fo", "fr", "fr-be",
    "fr-ca", "fr-ch", "hr", "hu", "is", "it", "ja", "lt", "lv", "mk", "nl", "no", "pl", "pt", "pt-br",
    "ru", "sl", "sv", "th", "tr",
]  # fmt: skip


class Consoles(Model):
    """The consoles of an instance.

    ``serial`` pty: a serial port with a log file. ``graphics`` vnc: a VNC server on
    ``[kvm_console] listen``. The VNC protocol uses at most 8 characters of a password
    (RFC 6143, 7.2.2), so longer ones are refused rather than cut.
    """

    serial: Literal["pty", "none"] = "pty"
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    also_spice: bool = Field(False, description="a second screen for SPICE clients; needs vnc")
    keymap: Keymap | None = Field(None, description="keyboard of clients that send no key codes")
    tcp_ports: tuple[int, ...] = Field(
        (), description="serial ports served on TCP instead of a pty"
    )
    log: bool = True
    vnc_password: Annotated[Secret, Field(min_length=1, max_length=8)] | None = None

    @model_validator(mode="after")
    def _password_needs_vnc(self) -> Self:
        if self.vnc_password is not None and self.graphics != "vnc":
            raise ValueError("vnc_password needs graphics vnc")
        return self
