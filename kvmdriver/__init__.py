"""kvmdriver: virtual machines on KVM/QEMU through libvirt."""
