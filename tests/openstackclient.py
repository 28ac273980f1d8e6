"""OpenStackClient's own shell, with what it prints caught."""

import contextlib
import io
import logging
import os
from unittest import mock

from openstackclient.shell import OpenStackShell


def run(*arguments: str) -> tuple[int, str, str]:
    """Run one ``openstack`` command in this process; its exit status, output and errors."""
    root = logging.getLogger("")
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("oslo", "oslo_messaging")}
    output, errors = io.StringIO(), io.StringIO()
    # nothing of whoever runs the tests: neither credentials nor a configuration
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OS_")}
    environment["HOME"] = "/nonexistent"
    try:
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            try:
                status = OpenStackShell().run(list(arguments))
            except SystemExit as ended:  # argparse's way to answer --help
                status = int(ended.code or 0)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
    return status, output.getvalue(), errors.getvalue()
