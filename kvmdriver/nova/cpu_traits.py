"""CPU flags and placement's traits (os-traits): what guests get, and what flavors ask for."""

import re

import os_traits
from nova.objects.flavor import Flavor
from nova.objects.image_meta import ImageMeta

from kvmdriver import exception
from kvmdriver.host.cpu import NESTED, CpuChooser
from kvmdriver.model import Cpu
from kvmdriver.nova.flavor import specs_of

_PREFIX = "HW_CPU_X86_"

# Flags whose trait is not simply the flag in capitals.
_SPECIAL = {
    "aes": "AESNI",
    "bmi1": "BMI",
    "fma": "FMA3",
    "gfni": "AVX512GFNI",
    "pclmuldq": "CLMUL",
    "pni": "SSE3",
    "sha-ni": "SHA",
    "spec-ctrl": "STIBP",
    "sse4.1": "SSE41",
    "sse4.2": "SSE42",
    "svm": "AMD_SVM",
    "vaes": "AVX512VAES",
    "vmx": "INTEL_VMX",
    "vpclmulqdq": "AVX512VPCLMULQDQ",
}


def cpu_traits(flags: set[str]) -> dict[str, bool]:
    """Return each trait of an x86 CPU flag, and whether guests get the flag."""
    present = {trait for flag in flags for trait in _traits_of(flag)}
    known = os_traits.get_traits(prefix=_PREFIX)
    return {trait: trait in present for trait in known}


def _traits_of(flag: str) -> tuple[str, ...]:
    plain = re.sub(r"[^A-Z0-9]", "_", flag.upper())
    names = {plain, plain.replace("_", ""), _SPECIAL.get(flag, plain)}
    names |= {f"AMD_{plain.removeprefix('AMD_')}", f"INTEL_{plain}"} if "ssb" in flag else set()
    return tuple(_PREFIX + name for name in names)


def flags(chooser: CpuChooser) -> set[str]:
    """Return the flags of a guest that asks for nothing, and vmx or svm where guests can have it.

    A flag that is switched off is not among them, nor one that the host has and a guest cannot get.
    """
    found = set(chooser.flags(chooser.choose(Cpu())))
    nested = chooser.nested_flag
    if nested and chooser.policy != "off" and chooser.can_nest():
        found.add(nested)
    return found


def ask_for(cpu: Cpu, chooser: CpuChooser, flavor: Flavor, image_meta: ImageMeta) -> Cpu:
    """Return a CPU with the flags that traits of flavor and image require and forbid.

    :raises kvmdriver.exception.Unsupported: guests cannot have a required one here.
    """
    wanted = {
        key.removeprefix("trait:"): value.strip()
        for key, value in specs_of(flavor).items()
        if key.startswith("trait:")
    }
    wanted |= dict.fromkeys(image_meta.properties.get("traits_required") or (), "required")
    names = {_trait: flag for flag in chooser.grantable() for _trait in _traits_of(flag)}
    names |= {_PREFIX + flag.upper(): flag for flag in NESTED.values()}
    required, forbidden = set(), set()
    for trait, verdict in wanted.items():
        if not trait.startswith(_PREFIX):
            continue
        flag = names.get(trait)
        if verdict == "forbidden" and flag:
            forbidden.add(flag)
        elif verdict == "required":
            if flag is None:
                raise exception.CpuIncompatible(
                    "guests of this host cannot have the CPU flag of a required trait",
                    field=f"trait:{trait}",
                    value=verdict,
                    remedy="kvmdriver cpu show lists the flags that can be had",
                )
            required.add(flag)
    return chooser.prefer(cpu, required, forbidden)
