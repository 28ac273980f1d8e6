"""From the command line's notation to the model's."""

import os
import re
from typing import Any

from kvmdriver import exception

_SUFFIXES = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


def mebibytes(text: str) -> int:
    """``10G``, ``512M`` or a plain number of MiB."""
    number, factor = text, 1.0
    upper = text.upper().removesuffix("IB").removesuffix("B") or text
    if upper[-1:] in _SUFFIXES:
        number, factor = upper[:-1], _SUFFIXES[upper[-1]]
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", number):
        raise ValueError("give a whole number of MiB, e.g. 512, 512M or 10G")
    value = float(number) * factor
    if value != int(value):
        raise ValueError("give a whole number of MiB, e.g. 512, 512M or 10G")
    return int(value)


def memory(text: str) -> dict[str, int]:
    """``1024``, or ``1024:2048`` for now and at most, in MiB or with a suffix."""
    current, _, maximum = text.partition(":")
    sizes = {"current_mib": mebibytes(current)}
    if maximum:
        sizes["maximum_mib"] = mebibytes(maximum)
    return sizes


def vcpus(text: str) -> dict[str, int]:
    """``1``, or ``1:2`` for now and at most."""
    current, _, maximum = text.partition(":")
    counts = {"current": int(current)}
    if maximum:
        counts["maximum"] = int(maximum)
    return counts


def topology(text: str) -> dict[str, int]:
    """``SOCKETS:CORES:THREADS``."""
    sockets, cores, threads = (int(part) for part in text.split(":"))
    return {"sockets": sockets, "cores": cores, "threads": threads}


_MODES = ("host-model", "host-passthrough", "maximum", "none")


def cpu(text: str) -> dict[str, Any]:
    """``host-model``, or models in order of preference, then features: ``EPYC,qemu64,+svm,-la57``."""
    parts = [part for part in text.split(",") if part]
    features = [
        {"name": part[1:], "policy": "require" if part[0] == "+" else "disable"}
        for part in parts
        if part[0] in "+-"
    ]
    names = [part for part in parts if part[0] not in "+-"]
    if len(names) == 1 and names[0] in _MODES:
        return {"mode": names[0], "features": features}
    if not names:
        return {"features": features}
    return {"mode": "custom", "models": names, "features": features}


def image(text: str) -> dict[str, Any]:
    """Parse a path, or a URL with its checksum: ``https://host/debian.qcow2#sha256:<hex>``."""
    if text.startswith(("http://", "https://")):
        url, _, checksum = text.partition("#")
        if not checksum:
            raise exception.InvalidRequest(
                "an image from a URL needs a checksum",
                field="image",
                value=text,
                remedy="append it: URL#sha256:HEX",
            )
        return {"type": "url", "url": url, "checksum": checksum}
    return {"type": "file", "path": os.path.abspath(text)}


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"{part!r} is not KEY=VALUE")
        pairs[key.strip().replace("-", "_")] = value
    return pairs


_LIMITS = (
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
)
_NUMBERS = ("boot_order", "iothread")


def disk(text: str) -> dict[str, Any]:
    """``size=10G,bus=virtio,cache=none`` or ``image=PATH,device=cdrom``, or just a size."""
    if "=" not in text:
        return {"size_mib": mebibytes(text)}
    pairs = _pairs(text)
    found: dict[str, Any] = {}
    limits = {name: int(pairs.pop(name)) for name in _LIMITS if name in pairs}
    if limits:
        found["limits"] = limits
    if "size" in pairs:
        found["size_mib"] = mebibytes(pairs.pop("size"))
    if "image" in pairs:
        found["image"] = image(pairs.pop("image"))
    if "image_format" in pairs:
        found.setdefault("image", {})["format"] = pairs.pop("image_format")
    if "discard" in pairs:
        found["discard"] = pairs.pop("discard") in ("yes", "true", "on", "unmap")
    numbers = {name: int(pairs.pop(name)) for name in _NUMBERS if name in pairs}
    return {**found, **numbers, **pairs}


def nic(text: str) -> dict[str, Any]:
    """``NETWORK``, ``bridge=br0``, ``user``; then ``,model=e1000,mac=...,mtu=1400``."""
    head, _, rest = text.partition(",")
    found: dict[str, Any] = {}
    kind, separator, source = head.partition("=")
    if head == "user":
        found["type"] = "user"
    elif separator and kind in ("network", "bridge"):
        found |= {"type": kind, "source": source}
    elif separator:
        raise ValueError("start with a network's name, bridge=NAME, or user")
    else:
        found |= {"type": "network", "source": head}
    if rest:
        found |= _pairs(rest)
    if "mtu" in found:
        found["mtu"] = int(found["mtu"])
    return found
