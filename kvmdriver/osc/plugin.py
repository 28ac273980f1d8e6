"""What OpenStackClient reads of a plugin. Every ``openstack`` command loads this: it imports little."""

import argparse
from typing import Any

DEFAULT_API_VERSION = "1"
API_VERSION_OPTION = "os_kvm_api_version"
API_NAME = "kvm"
API_VERSIONS = ("1",)


def make_client(_instance: Any) -> None:
    """None: commands make what they need themselves, since most of it is on the message bus."""
    return


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options that all ``openstack kvm`` commands have."""
    parser.add_argument(
        "--os-kvm-api-version",
        metavar="<kvm-api-version>",
        default=DEFAULT_API_VERSION,
        help="version of the kvm commands (default: 1)",
    )
    parser.add_argument(
        "--kvm-config-file",
        action="append",
        metavar="<file>",
        help="configuration file with the transport_url of kvmdriver's agents; may be given more "
        "than once (default: ~/.kvmdriver/kvmdriver.conf and /etc/kvmdriver/kvmdriver.conf)",
    )
    return parser
