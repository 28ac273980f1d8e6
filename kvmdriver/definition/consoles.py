"""Serial port, graphics and video (https://libvirt.org/formatdomain.html#consoles)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.xml import add
from kvmdriver.model import Instance


def build_serial(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    if instance.consoles.serial != "pty":
        return
    serial = add(devices, "serial", type="pty")
    add(serial, "log", file=platform.layout.console_log, append="on")
    add(serial, "target", port=0)
    console = add(devices, "console", type="pty")
    add(console, "target", type="serial", port=0)


def build_graphics(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    consoles = instance.consoles
    if consoles.graphics != "vnc":
        add(add(devices, "video"), "model", type="none")
        return
    password = consoles.vnc_password
    graphics = add(
        devices,
        "graphics",
        type="vnc",
        port=-1,
        autoport=True,
        listen=platform.console_listen,
        passwd=password.get_secret_value() if password else None,
    )
    add(graphics, "listen", type="address", address=platform.console_listen)
    # a tablet gives VNC clients a pointer that follows theirs
    add(devices, "input", type="tablet", bus="usb")
    add(add(devices, "video"), "model", type=instance.video or "vga")
