"""The configuration of every service: one function for each, sections as plain mappings."""

import configparser
import os
import shutil

from tests.openstack.paths import (
    FIRST,
    HOSTS,
    PASSWORD,
    PORTS,
    PUBLIC_GATEWAY,
    Paths,
    console_url,
    url,
)

Sections = dict[str, dict[str, object]]

# what our driver needs beside nova's own
FILTERS_OF_DRIVER = os.path.join(
    os.path.dirname(__file__), "../../etc/kvmdriver/kvmdriver.filters"
)

# nova's own, and those that some of tempest's tests ask by hints
FILTERS = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
    "DifferentHostFilter",
    "SameHostFilter",
)


def write_all(paths: Paths) -> None:
    """Write the configuration of everything but nova-compute."""
    for directory in ("keystone", "glance", "placement", "neutron", "nova", "cinder"):
        os.makedirs(paths.etc(directory), exist_ok=True)
    for directory in (
        "glance/images",
        "glance/staging",
        "glance/tasks",
        "lock",
        "neutron",
        "volumes",
    ):
        os.makedirs(paths.data(directory), exist_ok=True)
    for source, target in (
        ("glance/glance-api-paste.ini", "glance"),
        ("neutron/api-paste.ini", "neutron"),
        ("neutron/rootwrap.conf", "neutron"),
        ("nova/api-paste.ini", "nova"),
        ("cinder/api-paste.ini", "cinder"),
        ("cinder/resource_filters.json", "cinder"),
    ):
        shutil.copy(paths.installed(source), paths.etc(target))
    for name in ("neutron", "cinder", "nova"):
        directory = f"{name}/rootwrap.d"
        shutil.copytree(paths.installed(directory), paths.etc(directory), dirs_exist_ok=True)
    shutil.copy(FILTERS_OF_DRIVER, paths.etc("nova/rootwrap.d"))
    write(paths.etc("keystone/keystone.conf"), keystone(paths))
    write(paths.etc("glance/glance-api.conf"), glance(paths))
    write(paths.etc("placement/placement.conf"), placement(paths))
    for host in HOSTS:
        suffix = "" if host == FIRST else f"-{host}"
        write(paths.etc(f"neutron/neutron{suffix}.conf"), neutron(paths, host))
        write(paths.etc(f"neutron/ovs-agent{suffix}.ini"), ovs_agent(host))
    write(paths.etc("neutron/ml2.ini"), ml2())
    write(paths.etc("neutron/dhcp-agent.ini"), dhcp_agent())
    write(paths.etc("neutron/l3-agent.ini"), l3_agent())
    write(paths.etc("nova/nova.conf"), nova(paths))
    write(paths.etc("cinder/cinder.conf"), cinder(paths))
    for name in ("cinder", "nova"):
        write(paths.etc(f"{name}/rootwrap.conf"), rootwrap(paths, name))


def write(path: str, sections: Sections) -> None:
    parser = configparser.RawConfigParser()
    for section, values in sections.items():
        if section != "DEFAULT":
            parser.add_section(section)
        for name, value in values.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            parser.set(section, name, text)
    with open(path, "w") as target:
        parser.write(target)


def _account(user: str) -> dict[str, object]:
    return {
        "auth_type": "password",
        "auth_url": url("keystone", "/v3"),
        "project_name": "service",
        "project_domain_name": "Default",
        "user_domain_name": "Default",
        "region_name": "RegionOne",
        "username": user,
        "password": PASSWORD,
    }


def _token_check(user: str) -> dict[str, object]:
    return {
        "www_authenticate_uri": url("keystone", "/v3"),
        "service_token_roles": "service",
        "service_token_roles_required": True,
        **_account(user),
    }


def _database(name: str) -> dict[str, object]:
    return {"connection": database_url(name), "max_pool_size": 10}


def database_url(name: str) -> str:
    return f"mysql+pymysql://stack:{PASSWORD}@127.0.0.1:{PORTS['mariadb']}/{name}?charset=utf8"


def broker_url() -> str:
    return f"rabbit://guest:guest@127.0.0.1:{PORTS['rabbitmq']}/"


def keystone(paths: Paths) -> Sections:
    keys = paths.etc("keystone/keys")
    return {
        "database": _database("keystone"),
        "token": {"provider": "fernet"},
        "fernet_tokens": {"key_repository": keys},
        "fernet_receipts": {"key_repository": keys},
        "credential": {"key_repository": paths.etc("keystone/credentials")},
        "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
    }


def glance(paths: Paths) -> Sections:
    return {
        "DEFAULT": {
            "enabled_backends": "file:file",
            "enabled_import_methods": "[glance-direct]",
            "worker_self_reference_url": url("glance"),
        },
        "os_glance_staging_store": {"filesystem_store_datadir": paths.data("glance/staging")},
        "os_glance_tasks_store": {"filesystem_store_datadir": paths.data("glance/tasks")},
        "glance_store": {"default_backend": "file"},
        "file": {"filesystem_store_datadir": paths.data("glance/images")},
        "database": _database("glance"),
        "paste_deploy": {
            "flavor": "keystone",
            "config_file": paths.etc("glance/glance-api-paste.ini"),
        },
        "oslo_concurrency": {"lock_path": paths.data("lock")},
        "keystone_authtoken": _token_check("glance"),
    }


def placement(_paths: Paths) -> Sections:
    return {
        "placement_database": _database("placement"),
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _token_check("placement"),
    }


def neutron(paths: Paths, host: str) -> Sections:
    state = paths.data(f"neutron-{host}")
    os.makedirs(state, exist_ok=True)
    return {
        "DEFAULT": {
            "transport_url": broker_url(),
            "host": host,
            "state_path": state,
            "api_paste_config": paths.etc("neutron/api-paste.ini"),
            "core_plugin": "ml2",
            "service_plugins": "router,trunk",
            "notify_nova_on_port_status_changes": True,
            "notify_nova_on_port_data_changes": True,
            "rpc_workers": 1,
            "rpc_state_report_workers": 0,
            "api_workers": 1,
        },
        "agent": {"root_helper": "", "report_interval": 10},
        "privsep": {"helper_command": paths.tool("privsep-helper")},
        "database": _database("neutron"),
        "oslo_concurrency": {"lock_path": paths.data("lock")},
        "nova": _account("nova"),
        "placement": _account("placement"),
        "keystone_authtoken": _token_check("neutron"),
    }


def ml2() -> Sections:
    return {
        "ml2": {
            "type_drivers": "flat,vlan,local",
            "tenant_network_types": "vlan",
            "mechanism_drivers": "openvswitch",
            "extension_drivers": "port_security",
        },
        "ml2_type_vlan": {"network_vlan_ranges": "physical:100:999"},
        "ml2_type_flat": {"flat_networks": "*"},
        "securitygroup": {"enable_security_group": True},
    }


def ovs_agent(host: str) -> Sections:
    mappings = ("physical:br-phys", *(("public:br-ex",) if host == FIRST else ()))
    return {
        "ovs": {
            # there is no openvswitch module in many a test machine's kernel
            "datapath_type": "netdev",
            "ovsdb_connection": f"tcp:127.0.0.1:{PORTS['ovsdb']}",
            "bridge_mappings": ",".join(mappings),
        },
        "agent": {"root_helper": "", "tunnel_types": ""},
        "securitygroup": {"firewall_driver": "noop"},
    }


def dhcp_agent() -> Sections:
    return {
        "DEFAULT": {"interface_driver": "openvswitch", "enable_isolated_metadata": False},
        "ovs": {"ovsdb_connection": f"tcp:127.0.0.1:{PORTS['ovsdb']}"},
        "agent": {"root_helper": ""},
    }


def l3_agent() -> Sections:
    return {
        "DEFAULT": {
            "interface_driver": "openvswitch",
            "enable_metadata_proxy": False,
            "ha_enabled": False,
        },
        "ovs": {"ovsdb_connection": f"tcp:127.0.0.1:{PORTS['ovsdb']}"},
        "agent": {"root_helper": ""},
    }


def cinder(paths: Paths) -> Sections:
    """Volumes are files below a directory that every host mounts as if it came by NFS."""
    state = paths.data("cinder")
    os.makedirs(state, exist_ok=True)
    helper = f"{paths.tool('privsep-helper')} --config-file {paths.etc('cinder/cinder.conf')}"
    return {
        "DEFAULT": {
            "transport_url": broker_url(),
            "host": FIRST,
            "my_ip": "127.0.0.1",
            "state_path": state,
            "api_paste_config": paths.etc("cinder/api-paste.ini"),
            "resource_query_filters_file": paths.etc("cinder/resource_filters.json"),
            "rootwrap_config": paths.etc("cinder/rootwrap.conf"),
            "glance_api_servers": url("glance"),
            "enabled_backends": "files",
            "default_volume_type": "__DEFAULT__",
            "report_interval": 5,
        },
        "files": {
            "volume_driver": "cinder.volume.drivers.nfs.NfsDriver",
            "volume_backend_name": "files",
            "nas_host": "127.0.0.1",
            "nas_share_path": paths.data("volumes"),
            "nas_secure_file_operations": False,
            "nas_secure_file_permissions": False,
            "nfs_snapshot_support": True,
        },
        "database": _database("cinder"),
        "oslo_concurrency": {"lock_path": paths.data("lock")},
        "nova": _account("nova"),
        "cinder_sys_admin": {"helper_command": helper},
        "privsep_osbrick": {"helper_command": helper},
        "service_user": {"send_service_user_token": True, **_account("cinder")},
        "keystone_authtoken": _token_check("cinder"),
    }


def rootwrap(paths: Paths, service: str) -> Sections:
    # stand-ins come first
    directories = (paths.data("bin"), f"{paths.environment}/bin", "/sbin,/usr/sbin,/bin,/usr/bin")
    return {
        "DEFAULT": {
            "filters_path": paths.etc(f"{service}/rootwrap.d"),
            "exec_dirs": ",".join(directories),
        }
    }


def _nova_common(paths: Paths) -> Sections:
    return {
        "DEFAULT": {
            "transport_url": broker_url(),
            "my_ip": "127.0.0.1",
            "state_path": paths.data("nova"),
        },
        "glance": {"api_servers": url("glance")},
        "placement": _account("placement"),
        "neutron": _account("neutron"),
        "cinder": {"catalog_info": "block-storage::publicURL", **_account("nova")},
        "service_user": {"send_service_user_token": True, **_account("nova")},
        "keystone_authtoken": _token_check("nova"),
        "oslo_concurrency": {"lock_path": paths.data("lock")},
        "vnc": {
            "enabled": True,
            "novncproxy_host": "127.0.0.1",
            "novncproxy_base_url": f"{console_url('vnc')}/vnc_lite.html",
        },
        "spice": {
            "enabled": True,
            # the guest has no agent of SPICE's
            "agent_enabled": False,
            "html5proxy_host": "127.0.0.1",
            "html5proxy_base_url": f"{console_url('spice')}/spice_auto.html",
        },
        "serial_console": {
            "enabled": True,
            "serialproxy_host": "127.0.0.1",
            "base_url": console_url("serial").replace("http", "ws"),
        },
    }


def nova(paths: Paths) -> Sections:
    sections = _nova_common(paths)
    sections["DEFAULT"] |= {
        "host": FIRST,
        "osapi_compute_workers": 1,
        "service_down_time": 60,
        "allow_resize_to_same_host": True,
        "osapi_max_limit": 1000,
    }
    return {
        **sections,
        "api_database": _database("nova_api"),
        "database": _database("nova_cell1"),
        "wsgi": {"api_paste_config": paths.etc("nova/api-paste.ini")},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 15},
        "filter_scheduler": {"enabled_filters": ",".join(FILTERS)},
        "conductor": {"workers": 1},
    }


def nova_compute(paths: Paths, host: str, driver: str) -> Sections:
    """nova-compute may have no [database] section, so its file is one of its own."""
    sections = _nova_common(paths)
    state = paths.state(host)
    address = HOSTS[host]
    # the consoles' proxies run with the first host, and guests move to and fro
    for kind in ("vnc", "spice"):
        sections[kind] |= {"server_listen": address, "server_proxyclient_address": address}
    sections["serial_console"]["proxyclient_address"] = address
    sections["DEFAULT"] |= {
        "host": host,
        "my_ip": address,
        "state_path": state,
        "rootwrap_config": paths.etc("nova/rootwrap.conf"),
        "instances_path": paths.instances,
        "compute_driver": driver,
        "update_resources_interval": 30,
        "default_ephemeral_format": "ext4",
        "running_deleted_instance_poll_interval": 30,
        "vif_plugging_timeout": 60,
        "allow_resize_to_same_host": True,
        "reserved_host_memory_mb": 0,
        "cpu_allocation_ratio": 16,
        "ram_allocation_ratio": 1.5,
        "disk_allocation_ratio": 4,
        "force_config_drive": True,
        "sync_power_state_interval": 30,
        "resize_confirm_window": 0,
    }
    return {
        **sections,
        "libvirt": {
            "virt_type": "qemu",
            "cpu_mode": "none",
            "images_type": "qcow2",
            "hw_machine_type": "x86_64=pc",
            "wait_soft_reboot_seconds": 20,
            # disks of resized servers; dropbear has no sftp, which the driver in-tree needs for ssh
            "remote_filesystem_transport": "ssh" if host == FIRST else "rsync",
            "live_migration_scheme": "tcp",
            "live_migration_inbound_addr": address,
            # Neutron's agent looks for new devices every other second, or later on a busy machine. It
            # leaves a device alone for good that it finds after the server has arrived: the old
            # binding still counts for it. A guest without disks that move must take longer than that.
            "live_migration_bandwidth": 10,
        },
        "compute": {"live_migration_wait_for_vif_plug": False},
        "oslo_concurrency": {"lock_path": os.path.join(state, "lock")},
        "os_vif_ovs": {"ovsdb_connection": f"tcp:127.0.0.1:{PORTS['ovsdb']}"},
    }


def credentials(paths: Paths) -> str:
    """What the ``openstack`` command needs, for a shell to source."""
    variables = {
        "PATH": f"{paths.bin}:$PATH",
        "OS_AUTH_URL": url("keystone", "/v3"),
        "OS_USERNAME": "admin",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_COMPUTE_API_VERSION": "2.latest",
        "PUBLIC_GATEWAY": PUBLIC_GATEWAY,
    }
    return "".join(f'export {name}="{value}"\n' for name, value in variables.items())
