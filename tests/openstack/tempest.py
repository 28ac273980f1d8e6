"""OpenStack's own integration tests against the stack: their configuration, and running them."""

import os
import subprocess

from tests.openstack import seed, settings
from tests.openstack.paths import PASSWORD, SECOND, Paths, url

# What the driver is tried with in continuous integration: one of each kind, a few minutes.
SMOKE = (
    r"tempest\.api\.compute\.("
    r"servers\.test_create_server\.ServersTestJSON"
    r"|servers\.test_server_actions\.ServerActionsTestJSON"
    r"|servers\.test_server_rescue\.ServerRescueTestJSON\."
    r"|servers\.test_multiple_create\."
    r"|servers\.test_novnc\."
    r"|admin\.test_delete_server\."
    r"|admin\.test_hypervisor\."
    r"|admin\.test_server_diagnostics\."
    r"|volumes\.test_attach_volume\.AttachVolumeTestJSON\.test_attach_detach_volume)"
)
COMPUTE = r"tempest\.api\.compute"

# This test gives its own server the floating address of its class's server, and deletes it: the
# tests that come after it in one run cannot reach theirs any more (tempest 47).
APART = r"ServerActionsTestJSON\.test_change_server_password"

# What moves servers; the first two need the second host.
MOVES = (
    r"tempest\.api\.compute\.("
    r"admin\.test_live_migration"
    r"|admin\.test_servers_on_multinodes\."
    r"|admin\.test_migrations\."
    r"|servers\.test_server_actions\.ServerActionsTest(JSON|OtherA|OtherB)\.test_resize)"
)

HAS = (
    "change_password",
    "config_drive",
    "console_output",
    "hostname_fqdn_sanitization",
    "interface_attach",
    "pause",
    "rescue",
    "resize",
    "shelve",
    "snapshot",
    "stable_rescue",
    "suspend",
    "swap_volume",
    "vnc_console",
)
HAS_NOT = (
    "attach_encrypted_volume",
    # the test guest has no driver for IDE
    "ide_bus",
    # no neutron-metadata-agent: servers read their config drives
    "metadata_service",
    "volume_multiattach",
)


def configuration(paths: Paths) -> settings.Sections:
    """tempest.conf with every feature on that the driver has."""
    cloud = seed.connect()
    images = [cloud.image.find_image(name).id for name in seed.IMAGES]
    public = cloud.network.find_network("public").id
    workspace = os.path.join(paths.root, "tempest")
    two = seed.compute_is_up(SECOND)
    moving = (
        "cold_migration",
        "live_migration",
        "live_migrate_back_and_forth",
        "volume_backed_live_migration",
    )
    features = dict.fromkeys(HAS, True) | dict.fromkeys(HAS_NOT, False)
    features |= dict.fromkeys(moving, two)
    features["block_migration_for_live_migration"] = not os.path.exists(paths.shared)
    return {
        "DEFAULT": {"log_file": os.path.join(workspace, "tempest.log")},
        "oslo_concurrency": {"lock_path": os.path.join(workspace, "locks")},
        "auth": {
            "use_dynamic_credentials": True,
            "admin_username": "admin",
            "admin_password": PASSWORD,
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
            "default_credentials_domain_name": "Default",
        },
        "identity": {
            "auth_version": "v3",
            "uri_v3": url("keystone", "/v3"),
            "region": "RegionOne",
        },
        "compute": {
            "image_ref": images[0],
            "image_ref_alt": images[1],
            "flavor_ref": seed.FLAVORS[0][1],
            "flavor_ref_alt": seed.FLAVORS[1][1],
            "max_microversion": "latest",
            "build_timeout": 180,
            "build_interval": 1,
            "min_compute_nodes": 2 if two else 1,
            "fixed_network_name": "private",
            "hypervisor_type": "QEMU",
            "compute_volume_common_az": "nova",
        },
        "compute-feature-enabled": {
            **features,
            "scheduler_enabled_filters": ",".join(settings.FILTERS),
        },
        "network": {
            "public_network_id": public,
            "floating_network_name": "public",
            "project_network_cidr": "10.88.0.0/16",
        },
        "network-feature-enabled": {"floating_ips": True, "ipv6": False},
        "validation": {
            "run_validation": True,
            "connect_method": "floating",
            "auth_method": "keypair",
            "image_ssh_user": "root",
            "image_alt_ssh_user": "root",
            "image_ssh_password": "kvmdriver",
            "image_alt_ssh_password": "kvmdriver",
            "network_for_ssh": "public",
            "ssh_timeout": 120,
            "ping_timeout": 60,
        },
        "service_available": {
            "cinder": True,
            "swift": False,
            "horizon": False,
            "nova": True,
            "neutron": True,
            "glance": True,
        },
        "volume": {
            "catalog_type": "block-storage",
            "build_interval": 1,
            "volume_size": 1,
            "max_microversion": "latest",
        },
        "image-feature-enabled": {"import_image": False},
    }


def write(paths: Paths) -> str:
    """Make a workspace with its configuration; its directory."""
    workspace = os.path.join(paths.root, "tempest")
    if not os.path.isdir(workspace):
        # without a registry of its own it would take note of the workspace in the caller's home
        registry = os.path.join(paths.root, "tempest-workspaces.yaml")
        subprocess.run(
            [paths.tool("tempest"), "init", "--workspace-path", registry, workspace], check=True
        )
    sections = configuration(paths)
    settings.write(os.path.join(workspace, "etc", "tempest.conf"), sections)
    return workspace


def run(paths: Paths, regex: str) -> int:
    """Run the tests that match; the exit status of tempest. Call it inside the namespaces."""
    workspace = write(paths)
    wanted = {"smoke": SMOKE, "compute": COMPUTE, "moves": MOVES}.get(regex, regex)
    together = _run(paths, workspace, wanted, APART)
    # the parts add up for whoever counts: the totals of both are printed
    apart = _run(paths, workspace, f"(?=.*{APART}).*({wanted})")
    return together or apart


def _run(paths: Paths, workspace: str, wanted: str, unwanted: str = "") -> int:
    without = ("--exclude-regex", unwanted) if unwanted else ()
    command = (paths.tool("tempest"), "run", "--regex", wanted, *without)
    listed = subprocess.run(
        [*command, "--list-tests"], cwd=workspace, capture_output=True, text=True, check=False
    )
    if "tempest." not in listed.stdout:
        return 0
    return subprocess.call([*command, "--concurrency", "2"], cwd=workspace)
