"""Put an EFI system partition and a root file system on one bootable MBR disk.

usage: partition.py DISK MBR-CODE ESP ROOT
"""

import pathlib
import struct
import sys

SECTOR = 512
FIRST = 2048


def entry(active: bool, kind: int, start: int, count: int) -> bytes:
    # cylinders, heads and sectors are set to the highest: all software uses the sector numbers
    chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", 0x80 if active else 0, chs, kind, chs, start, count)


def main(disk: str, code: str, esp: str, root: str) -> None:
    esp_data, root_data = pathlib.Path(esp).read_bytes(), pathlib.Path(root).read_bytes()
    esp_sectors, root_sectors = len(esp_data) // SECTOR, len(root_data) // SECTOR
    table = entry(True, 0xEF, FIRST, esp_sectors)
    table += entry(False, 0x83, FIRST + esp_sectors, root_sectors)
    boot = pathlib.Path(code).read_bytes()[:440].ljust(440, b"\0")
    with open(disk, "wb") as out:
        out.write(boot + struct.pack("<IH", 0x4B564D44, 0) + table + b"\0" * 32 + b"\x55\xaa")
        out.seek(FIRST * SECTOR)
        out.write(esp_data)
        out.write(root_data)


if __name__ == "__main__":
    main(*sys.argv[1:])
