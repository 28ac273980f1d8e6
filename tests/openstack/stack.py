"""Bringing the stack up, service by service, inside the laboratory."""

import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Callable

import kombu

from tests import broker
from tests.openstack import seed, settings
from tests.openstack.compute_host import ComputeHost
from tests.openstack.paths import PASSWORD, PORTS, PUBLIC_GATEWAY, url
from tests.openstack.processes import answers

BRIDGES = ("br-int", "br-phys", "br-ex")
DATABASES = (
    "keystone",
    "glance",
    "placement",
    "neutron",
    "nova_api",
    "nova_cell0",
    "nova_cell1",
    "cinder",
)


class Stack:
    """Everything but the other compute hosts, on 127.0.0.1 of the first host's namespaces."""

    def __init__(self, host: ComputeHost, report: Callable[[str], None], driver: str):
        self.host = host
        self.paths = host.paths
        self.processes = host.processes
        self._report = report
        self._driver = driver

    def up(self) -> None:
        """Start everything; the databases are made the first time."""
        self._report("configuration")
        settings.write_all(self.paths)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            network = pool.submit(self._start_network)
            self._report("database and message broker")
            broker = pool.submit(self._start_broker)
            self._start_database()
            self._make_databases()
            broker.result()
            self._report("keystone")
            self._start_keystone()
            catalog = pool.submit(seed.catalog)
            self._report("glance, placement, neutron, nova, cinder")
            self._start_apis()
            catalog.result()
            self._start_workers()
            network.result()
        self._wait_for_services()
        self._start_agents()
        self._report("nova-compute")
        self.host.start_compute(self._driver)
        self._report("flavors, images, networks")
        self.processes.wait_for("neutron-l3-agent", seed.agents_are_up)
        seed.content(self.paths)
        self.processes.wait_for("neutron-dhcp-agent", seed.dhcp_is_up, 90)
        self.processes.wait_for("cinder-volume", seed.volumes_are_up, 60)
        self.host.wait_for_compute()

    # Infrastructure

    def _start_database(self) -> None:
        directory = self.paths.data("mariadb")
        socket_path = self.paths.data("mariadb.sock")
        first = not os.path.isdir(directory)
        if first:
            self.processes.run(
                "mariadb-install",
                "mariadb-install-db",
                f"--datadir={directory}",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            )
        self.processes.start(
            "mariadb",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={directory}",
            f"--socket={socket_path}",
            "--bind-address=127.0.0.1",
            f"--port={PORTS['mariadb']}",
            "--max-connections=600",
            # 127.0.0.1 would be looked up as localhost, which is another user
            "--skip-name-resolve",
            # what a power failure would lose does not matter here
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--skip-log-bin",
        )
        self.processes.wait_for("mariadb", lambda: os.path.exists(socket_path))
        if first:
            statements = [f"CREATE USER 'stack'@'%' IDENTIFIED BY '{PASSWORD}'"]
            for name in DATABASES:
                statements.append(f"CREATE DATABASE {name} CHARACTER SET utf8")
                statements.append(f"GRANT ALL ON {name}.* TO 'stack'@'%'")
            subprocess.run(
                ["mariadb", "-uroot", f"--socket={socket_path}", "-e", ";".join(statements)],
                check=True,
            )

    def _make_databases(self) -> None:
        done = self.paths.data("databases-are-made")
        if os.path.exists(done):
            return
        etc, tool = self.paths.etc, self.paths.tool
        nova_manage = (tool("nova-manage"), "--config-file", etc("nova/nova.conf"))
        keystone = (tool("keystone-manage"), "--config-file", etc("keystone/keystone.conf"))
        for name in ("keys", "credentials"):
            os.makedirs(etc(f"keystone/{name}"), mode=0o700, exist_ok=True)
        owner = ("--keystone-user", "root", "--keystone-group", "root")
        self.processes.run_together(
            {
                "keystone-db": (*keystone, "db_sync"),
                "glance-db": (
                    tool("glance-manage"),
                    "--config-file",
                    etc("glance/glance-api.conf"),
                    "db_sync",
                ),
                "placement-db": (
                    tool("placement-manage"),
                    "--config-file",
                    etc("placement/placement.conf"),
                    "db",
                    "sync",
                ),
                "neutron-db": (
                    tool("neutron-db-manage"),
                    "--config-file",
                    etc("neutron/neutron.conf"),
                    "--config-file",
                    etc("neutron/ml2.ini"),
                    "upgrade",
                    "heads",
                ),
                "nova-api-db": (*nova_manage, "api_db", "sync"),
                "cinder-db": (
                    tool("cinder-manage"),
                    "--config-file",
                    etc("cinder/cinder.conf"),
                    "db",
                    "sync",
                ),
                "keystone-keys": (*keystone, "fernet_setup", *owner),
                "keystone-credentials": (*keystone, "credential_setup", *owner),
            }
        )
        bootstrap = (
            *keystone,
            "bootstrap",
            "--bootstrap-password",
            PASSWORD,
            "--bootstrap-region-id",
            "RegionOne",
        )
        for interface in ("admin", "public", "internal"):
            bootstrap += (f"--bootstrap-{interface}-url", url("keystone", "/v3"))
        self.processes.start("keystone-bootstrap", *bootstrap)
        cell0 = settings.database_url("nova_cell0")
        self.processes.run(
            "nova-cell0", *nova_manage, "cell_v2", "map_cell0", "--database_connection", cell0
        )
        self.processes.run_together(
            {
                "nova-db": (*nova_manage, "db", "sync"),
                "nova-cell1": (*nova_manage, "cell_v2", "create_cell", "--name", "cell1"),
            }
        )
        self.processes.finish("keystone-bootstrap")
        with open(done, "w"):
            pass

    def _start_broker(self) -> None:
        directory = self.paths.data("rabbitmq")
        os.makedirs(directory, exist_ok=True)
        subprocess.run(["chown", "rabbitmq:", directory], check=True)
        port = PORTS["rabbitmq"]
        self.processes.start(
            "rabbitmq",
            "rabbitmq-server",
            environment={
                **broker.environment(
                    directory,
                    "stack",
                    port=port,
                    distribution_port=PORTS["rabbitmq-dist"],
                    epmd_port=PORTS["epmd"],
                ),
                # idle schedulers of Erlang spin, and take the guests' time
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 1:1",
            },
        )
        self.processes.wait_for("rabbitmq", lambda: broker.answers(port), 90)

    def _start_network(self) -> None:
        self.host.start_network(*BRIDGES)
        subprocess.run(["ip", "link", "set", "br-ex", "up"], check=True)
        subprocess.run(
            ["ip", "address", "replace", f"{PUBLIC_GATEWAY}/24", "dev", "br-ex"], check=True
        )

    # Services

    def _wsgi(self, name: str, module: str, *arguments: str, **environment: str) -> None:
        """A service of OpenStack's behind uWSGI, with the arguments and variables it looks at."""
        self.processes.start(
            name,
            self.paths.tool("uwsgi"),
            "--http-socket",
            f"127.0.0.1:{PORTS[name]}",
            "--module",
            f"{module}:application",
            *("--master", "--processes", "1", "--threads", "8", "--enable-threads"),
            *("--lazy-apps", "--die-on-term", "--need-app", "--thunder-lock"),
            *("--buffer-size", "65535", "--add-header", "Connection: close"),
            # without these glance breaks off uploads
            *("--http-chunked-input", "--http-raw-body", "--http-auto-chunked"),
            *("--chunked-input-timeout", "3600", "--chunked-input-limit", "67108864"),
            *("--worker-reload-mercy", "5", "--disable-logging"),
            *(("--pyargv", " ".join(arguments)) if arguments else ()),
            environment=environment,
        )

    def _start_keystone(self) -> None:
        self._wsgi(
            "keystone",
            "keystone.wsgi.api",
            OS_KEYSTONE_CONFIG_DIR=self.paths.etc("keystone"),
            OS_KEYSTONE_CONFIG_FILES=self.paths.etc("keystone/keystone.conf"),
        )
        self.processes.wait_for("keystone", lambda: answers(url("keystone", "/v3")))

    def _start_apis(self) -> None:
        etc = self.paths.etc
        self._wsgi("glance", "glance.wsgi.api", OS_GLANCE_CONFIG_DIR=etc("glance"))
        self._wsgi("placement", "placement.wsgi.api", OS_PLACEMENT_CONFIG_DIR=etc("placement"))
        self._wsgi(
            "neutron",
            "neutron.wsgi.api",
            OS_NEUTRON_CONFIG_FILES=f"{etc('neutron/neutron.conf')};{etc('neutron/ml2.ini')}",
        )
        # nova-api reads the file of that name in the directory, not nova-compute's beside it
        self._wsgi("nova", "nova.wsgi.osapi_compute", OS_NOVA_CONFIG_DIR=etc("nova"))
        self._wsgi("cinder", "cinder.wsgi.api", "--config-file", etc("cinder/cinder.conf"))

    def _start_workers(self) -> None:
        """These ask keystone and placement already while they start."""
        etc, tool = self.paths.etc, self.paths.tool
        for name in ("neutron-rpc-server", "neutron-periodic-workers"):
            self.processes.start(name, tool(name), *self._neutron())
        for name in ("nova-conductor", "nova-scheduler"):
            self.processes.start(name, tool(name), "--config-file", etc("nova/nova.conf"))
        for name in ("cinder-scheduler", "cinder-volume"):
            self.processes.start(name, tool(name), "--config-file", etc("cinder/cinder.conf"))
        for name, pages in (
            ("nova-novncproxy", ("--web", "/usr/share/novnc")),
            ("nova-spicehtml5proxy", ("--web", "/usr/share/spice-html5")),
            ("nova-serialproxy", ()),
        ):
            self.processes.start(name, tool(name), "--config-file", etc("nova/nova.conf"), *pages)

    def _wait_for_services(self) -> None:
        for name in ("glance", "placement", "neutron", "nova", "cinder"):
            self.processes.wait_for(name, lambda name=name: answers(url(name, "/")), 90)
        # an agent that calls before anybody listens waits for a minute
        for queue in ("q-plugin", "q-reports-plugin", "q-l3-plugin"):
            self.processes.wait_for("neutron-rpc-server", lambda queue=queue: _is_consumed(queue))

    def _neutron(self, *more: str) -> tuple[str, ...]:
        names = ("neutron.conf", "ml2.ini", *more)
        return tuple(
            word for name in names for word in ("--config-file", self.paths.etc(f"neutron/{name}"))
        )

    def _start_agents(self) -> None:
        self.host.start_agent()
        for name, file in (
            ("neutron-dhcp-agent", "dhcp-agent.ini"),
            ("neutron-l3-agent", "l3-agent.ini"),
        ):
            self.processes.start(name, self.paths.tool(name), *self._neutron(file))


def _is_consumed(queue: str) -> bool:
    """Whether somebody listens on a queue of the message broker."""
    with kombu.Connection(settings.broker_url().replace("rabbit://", "amqp://")) as connection:
        try:
            declared = connection.default_channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return False
        return bool(declared.consumer_count)


if __name__ == "__main__":
    sys.exit("use tools/openstack")
