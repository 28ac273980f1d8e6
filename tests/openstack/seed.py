"""What a fresh cloud needs before its first server: users, endpoints, flavors, images, networks."""

import os

import openstack
from openstack.connection import Connection

from tests.openstack.paths import PASSWORD, PUBLIC_CIDR, PUBLIC_GATEWAY, Paths, url

SERVICES = {
    "glance": ("image", url("glance")),
    "placement": ("placement", url("placement")),
    "neutron": ("network", url("neutron")),
    "nova": ("compute", url("nova", "/v2.1")),
    "cinder": ("block-storage", url("cinder", "/v3")),
}

FLAVORS = (
    # name, id, MiB, vCPUs, GiB, ephemeral GiB, swap MiB
    ("small", "1", 256, 1, 1, 0, 0),
    ("medium", "2", 320, 1, 2, 0, 0),
    ("large", "3", 384, 2, 2, 0, 0),
    ("extra", "4", 256, 1, 1, 1, 64),
)
IMAGES = ("guest", "guest-alternative")


def connect() -> Connection:
    """As the administrator."""
    return openstack.connect(
        auth_url=url("keystone", "/v3"),
        username="admin",
        password=PASSWORD,
        project_name="admin",
        user_domain_name="Default",
        project_domain_name="Default",
        region_name="RegionOne",
    )


def catalog() -> None:
    """Users, roles and endpoints of the services."""
    cloud = connect()
    identity = cloud.identity
    project = identity.find_project("service") or identity.create_project(
        name="service", domain_id="default"
    )
    roles = {role.name: role for role in identity.roles()}
    for name in ("service", "admin", "member", "reader"):
        roles[name] = roles.get(name) or identity.create_role(name=name)
    known = {service.name for service in identity.services()}
    for name, (kind, address) in SERVICES.items():
        user = identity.find_user(name) or identity.create_user(
            name=name, password=PASSWORD, domain_id="default", default_project_id=project.id
        )
        for role in ("admin", "service"):
            identity.assign_project_role_to_user(project.id, user.id, roles[role].id)
        if name in known:
            continue
        service = identity.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=address, region_id="RegionOne"
            )


def content(paths: Paths) -> None:
    """Flavors, images, networks and a key for the administrator."""
    cloud = connect()
    for name, number, memory, vcpus, disk, ephemeral, swap in FLAVORS:
        if cloud.compute.find_flavor(name) is None:
            cloud.compute.create_flavor(
                name=name, id=number, ram=memory, vcpus=vcpus, disk=disk,
                ephemeral=ephemeral, swap=swap,
            )  # fmt: skip
    guest = os.environ.get("KVMDRIVER_GUEST", "/var/tmp/kvmdriver-guest")
    for name in IMAGES:
        if cloud.image.find_image(name) is None:
            cloud.create_image(
                name,
                filename=f"{guest}/guest.qcow2",
                disk_format="qcow2",
                container_format="bare",
                visibility="public",
                allow_duplicates=True,
                wait=True,
                hw_rng_model="virtio",
                hw_qemu_guest_agent="yes",
                # the guest has no driver for IDE or SATA
                hw_cdrom_bus="scsi",
                hw_scsi_model="virtio-scsi",
            )
    if cloud.compute.find_keypair("default") is None:
        with open(f"{guest}/id_ed25519.pub") as key:
            cloud.compute.create_keypair(name="default", public_key=key.read())
    _networks(cloud)


def _networks(cloud: Connection) -> None:
    network = cloud.network
    public = network.find_network("public")
    if public is None:
        public = network.create_network(
            name="public",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network="public",
        )
        network.create_subnet(
            network_id=public.id,
            name="public",
            ip_version=4,
            cidr=PUBLIC_CIDR,
            gateway_ip=PUBLIC_GATEWAY,
            is_dhcp_enabled=False,
            allocation_pools=[{"start": "172.29.9.50", "end": "172.29.9.250"}],
        )
    private = network.find_network("private")
    if private is None:
        private = network.create_network(name="private", is_shared=True)
        subnet = network.create_subnet(
            network_id=private.id, name="private", ip_version=4, cidr="10.77.0.0/24"
        )
        router = network.create_router(
            name="router", external_gateway_info={"network_id": public.id}
        )
        network.add_interface_to_router(router, subnet_id=subnet.id)
    project = cloud.current_project_id
    for group in network.security_groups(project_id=project, name="default"):
        if not any(rule.protocol == "tcp" for rule in network.security_group_rules()):
            for protocol in ("tcp", "icmp"):
                network.create_security_group_rule(
                    security_group_id=group.id, direction="ingress", protocol=protocol
                )


def compute_is_up(host: str) -> bool:
    """Whether nova has heard of a host's compute service lately."""
    return any(
        service.binary == "nova-compute" and service.state == "up" and service.host == host
        for service in connect().compute.services()
    )


def enable_compute(host: str) -> None:
    """Let nova place servers on a host again that an earlier test has closed."""
    compute = connect().compute
    for service in compute.services():
        if service.binary == "nova-compute" and service.host == host:
            compute.enable_service(service, host, "nova-compute")


def volumes_are_up() -> bool:
    """Whether cinder knows a place for volumes."""
    services = connect().block_storage.services()
    return any(service.binary == "cinder-volume" and service.state == "up" for service in services)


def agents_are_up() -> bool:
    """Whether neutron knows its agents: networks are given to those that it knows."""
    alive = {agent.binary for agent in connect().network.agents() if agent.is_alive}
    return {"neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent"} <= alive


def switch_is_up(host: str) -> bool:
    """Whether neutron knows the agent of a host's Open vSwitch."""
    return any(
        agent.binary == "neutron-openvswitch-agent" and agent.host == host and agent.is_alive
        for agent in connect().network.agents()
    )


def dhcp_is_up() -> bool:
    """Whether the servers of the private network get their addresses."""
    network = connect().network
    private = network.find_network("private")
    ports = network.ports(network_id=private.id, device_owner="network:dhcp")
    return any(port.status == "ACTIVE" for port in ports)
