"""Serial and graphical consoles."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from kvmdriver.model.base import Model, Private, Secret, one_line

# The layouts that QEMU ships (pc-bios/keymaps). QEMU opens what it is given as a path.
Keymap = Literal[
    "ar", "bepo", "cz", "da", "de", "de-ch", "en-gb", "en-us", "es", "et", "fi", "fo", "fr", "fr-be",
    "fr-ca", "fr-ch", "hr", "hu", "is", "it", "ja", "lt", "lv", "mk", "nl", "no", "pl", "pt", "pt-br",
    "ru", "sl", "sv", "th", "tr",
]  # fmt: skip

_VNC_PASSWORD_BYTES = 8


def _vnc_password(value: SecretStr) -> SecretStr:
    password = one_line(value.get_secret_value())  # it goes into the domain's XML
    if len(password.encode()) > _VNC_PASSWORD_BYTES:
        raise ValueError(f"has more than {_VNC_PASSWORD_BYTES} bytes")
    return value


class Consoles(Model):
    """The consoles of an instance.

    ``serial`` pty: a serial port with a log file. ``graphics`` vnc: a VNC server on
    ``[kvm_console] listen``. The VNC protocol uses at most 8 bytes of a password
    (RFC 6143, 7.2.2), so longer ones are refused rather than cut.
    """

    serial: Literal["pty", "none"] = "pty"
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    also_spice: bool = Field(False, description="a second screen for SPICE clients; needs vnc")
    keymap: Keymap | None = Field(None, description="keyboard of clients that send no key codes")
    tcp_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        (), max_length=64, description="serial ports served on TCP instead of a pty"
    )
    log: bool = True
    vnc_password: (
        Annotated[Secret, Field(min_length=1), AfterValidator(_vnc_password), Private()] | None
    ) = None

    @model_validator(mode="after")
    def _password_needs_vnc(self) -> Self:
        if self.vnc_password is not None and self.graphics != "vnc":
            raise ValueError("vnc_password needs graphics vnc")
        return self
