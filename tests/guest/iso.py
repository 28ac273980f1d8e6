"""Make a bootable CD of a kernel and an initramfs, for tests of installers.

usage: iso.py ISO ISOLINUX.BIN LDLINUX.C32 KERNEL INITRD COMMANDLINE
"""

import sys

import pycdlib


def main(
    target: str, loader: str, module: str, kernel: str, initrd: str, commandline: str
) -> None:
    config = f"SERIAL 0 115200\nDEFAULT l\nLABEL l\n KERNEL /vmlinuz\n INITRD /initrd.img\n APPEND {commandline}\n"
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident="INSTALLER")
    iso.add_directory("/ISOLINUX", rr_name="isolinux")
    iso.add_file(loader, "/ISOLINUX/ISOLINUX.BIN;1", rr_name="isolinux.bin")
    iso.add_file(module, "/ISOLINUX/LDLINUX.C32;1", rr_name="ldlinux.c32")
    with open(target + ".cfg", "w") as out:
        out.write(config)
    iso.add_file(target + ".cfg", "/ISOLINUX/ISOLINUX.CFG;1", rr_name="isolinux.cfg")
    iso.add_file(kernel, "/VMLINUZ.;1", rr_name="vmlinuz")
    iso.add_file(initrd, "/INITRD.IMG;1", rr_name="initrd.img")
    iso.add_eltorito(
        "/ISOLINUX/ISOLINUX.BIN;1",
        "/ISOLINUX/BOOT.CAT;1",
        rr_bootcatname="boot.cat",
        boot_load_size=4,
        boot_info_table=True,
    )
    iso.write(target)
    iso.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
