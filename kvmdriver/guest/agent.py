"""The QEMU guest agent, as the host sees it."""

from lxml import etree


def agent_connected(root: etree._Element) -> bool:
    """Return whether the guest agent has opened its channel, from a running domain's XML."""
    return bool(
        root.xpath("devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']")
    )
