"""Building elements: the one way in which a domain's XML comes to be."""

from lxml import etree

Value = str | int | bool | None


def text_of(value: Value) -> str | None:
    """Return a value as libvirt spells it: yes and no for booleans."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)


def element(tag: str, text: Value = None, /, **attributes: Value) -> etree._Element:
    """Return an element; attributes that are None are left out, a trailing underscore of a name too."""
    node = etree.Element(tag)
    node.text = text_of(text)
    for name, value in attributes.items():
        if value is not None:
            node.set(name.rstrip("_"), text_of(value) or "")
    return node


def add(
    parent: etree._Element, tag: str, text: Value = None, /, **attributes: Value
) -> etree._Element:
    """Like ``element``, put at the end of ``parent``."""
    node = element(tag, text, **attributes)
    parent.append(node)
    return node
