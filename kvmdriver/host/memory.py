"""The host's memory, from the kernel.

Not from virNodeGetInfo, which adds up NUMA nodes and misses memory that came later.
"""


def total_and_available_mib(path: str = "/proc/meminfo") -> tuple[int, int]:
    """Return all memory, and what could be used without swapping, in MiB (proc(5), MemAvailable)."""
    values = {}
    with open(path) as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0])
    return values["MemTotal"] // 1024, values["MemAvailable"] // 1024
