"""Migrations that are cut off, in every state and by every fault; see ``tests.multihost``."""

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
