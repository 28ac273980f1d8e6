"""Serial port, graphics and video (https://libvirt.org/formatdomain.html#consoles)."""

from lxml import etree

from kvmdriver.definition.platform import Platform
from kvmdriver.definition.tuning import tuning_of
from kvmdriver.definition.xml import add
from kvmdriver.model import Instance


def build_serial(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    consoles = instance.consoles
    log = platform.layout.console_log if consoles.log else None
    for port, number in enumerate(consoles.tcp_ports):
        for tag in ("serial", "console") if port == 0 else ("serial",):
            _add_tcp(
                devices, tag, port, number, platform.serial_listen, log if port == 0 else None
            )
    if consoles.tcp_ports or consoles.serial != "pty":
        return
    serial = add(devices, "serial", type="pty")
    if log:
        add(serial, "log", file=log, append="on")
    add(serial, "target", port=0)
    console = add(devices, "console", type="pty")
    add(console, "target", type="serial", port=0)


def _add_tcp(
    devices: etree._Element, tag: str, port: int, number: int, listen: str, log: str | None
) -> None:
    serial = add(devices, tag, type="tcp")
    add(serial, "source", mode="bind", host=listen, service=number)
    add(serial, "protocol", type="raw")
    if log:
        add(serial, "log", file=log, append="on")
    add(serial, "target", type="serial" if tag == "console" else None, port=port)


def build_graphics(devices: etree._Element, instance: Instance, platform: Platform) -> None:
    consoles = instance.consoles
    tuning = tuning_of(instance)
    if consoles.graphics == "none":
        add(add(devices, "video"), "model", type="none")
        return
    kinds = [consoles.graphics, *(["spice"] if consoles.also_spice else [])]
    for kind in kinds:
        password = consoles.vnc_password if kind == "vnc" else None
        listen = platform.console_listen if kind == "vnc" else platform.spice_listen
        graphics = add(
            devices,
            "graphics",
            type=kind,
            port=-1,
            autoport=True,
            keymap=consoles.keymap,
            listen=listen,
            passwd=password.get_secret_value() if password else None,
        )
        add(graphics, "listen", type="address", address=listen)
    if "spice" in kinds:
        channel = add(devices, "channel", type="spicevmc")
        add(channel, "target", type="virtio", name="com.redhat.spice.0")
    if tuning.pointer == "tablet":
        # it gives clients a pointer that follows theirs
        add(devices, "input", type="tablet", bus="usb")
    elif tuning.pointer == "mouse":
        add(devices, "input", type="mouse", bus="usb")
    video = add(devices, "video")
    add(video, "model", type=instance.video or "vga", vram=tuning.video_ram_kib)
