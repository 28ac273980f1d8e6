"""``openstack kvm ...``: the commands of ``kvmdriver``, with what answers them here."""

from kvmdriver.cli import cpu, host, migration, server
from kvmdriver.osc.session import HereCommand, OscCommand, ServerCommand


class ShowHost(OscCommand, host.ShowHost):
    """Show a host: what it has, and what is in use."""


class CheckHost(OscCommand, host.CheckHost):
    """Check everything that a host of virtual machines needs; what is wrong, and what mends it.

    The exit status is 2 when a check fails, 0 otherwise.
    """


class ShowNested(HereCommand, host.ShowNested):
    """Show nested virtualization on this machine: the CPU, the module and its parameters."""


class ShowCpu(OscCommand, cpu.ShowCpu):
    """Show what guests can have as their CPU on a host: flags, modes, nested virtualization."""


class ListCpuModels(OscCommand, cpu.ListCpuModels):
    """List CPU models; those that cannot be used with the flags that they lack on a host."""


class BaselineCpu(OscCommand, cpu.BaselineCpu):
    """Compute one CPU for all hosts of a cluster; guests with it can migrate to each of them."""


class CompareCpu(OscCommand, cpu.CompareCpu):
    """Tell whether guests with one host's CPU could run on another."""


class ShowServer(ServerCommand, server.ShowServer):
    """Show a server of Nova's, or an instance of an agent's."""


class ListMigrations(ServerCommand, migration.ListMigrations):
    """List migrations and resizes that Nova knows, or migrations to and from a host."""


class ShowMigration(ServerCommand, migration.ShowMigration):
    """Show the latest migration of a server or an instance, and how far it is."""


class WatchMigration(ServerCommand, migration.WatchMigration):
    """Follow a migration until it ends; 1 when it does not succeed."""


class AbortMigration(ServerCommand, migration.AbortMigration):
    """Give a migration up; the server or the instance stays where it is."""


class ForceCompleteMigration(ServerCommand, migration.ForceCompleteMigration):
    """Bring a migration to its end: by post-copy where that is permitted, else by a pause."""


class SetMigration(ServerCommand, migration.SetMigration):
    """Change what a running migration of an instance may do; refused for servers of Nova's."""
