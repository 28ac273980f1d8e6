"""``openstack kvm ...``: commands of kvmdriver in OpenStack's own command line."""
