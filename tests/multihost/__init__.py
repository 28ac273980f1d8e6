"""Tests with several hosts, each a laboratory of its own with libvirtd and agent."""

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
