"""Reading XML that came from libvirt or from a guest's metadata, safely."""

from lxml import etree


def parse(text: str) -> etree._Element:
    """Parse XML without entities, network access or DTDs.

    :raises lxml.etree.XMLSyntaxError: it is not well-formed.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_blank_text=True
    )
    return etree.fromstring(text.encode(), parser)


def to_string(element: etree._Element) -> str:
    """XML for libvirt, indented for people who read it in virsh."""
    return etree.tostring(element, encoding="unicode", pretty_print=True)


def attribute(parent: etree._Element, child: str, name: str) -> str:
    """Return an attribute of the first child of that tag; empty where either is missing."""
    found = parent.find(child)
    return found.get(name, "") if found is not None else ""
