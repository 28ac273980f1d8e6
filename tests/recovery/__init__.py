"""Agents, libvirtds and QEMUs that are killed, and cables that are cut: nothing lost, nothing left.

``test_kill_points``: the agent dies right after each change that an operation makes.
``test_random_kills``: agent and libvirtd die at random while clients keep them busy.
``test_faults``: migrations that are cut off in every state, on the hosts of ``tests.multihost``.
"""

import tests.functional  # noqa: F401 it chooses the threads of oslo.service, before others do
