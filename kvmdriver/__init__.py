"""kvmdriver: virtual machines on KVM/QEMU through libvirt, for OpenStack Nova and for a host without it."""
