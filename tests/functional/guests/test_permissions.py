"""A broker with a user for each host, as doc/source/security.rst advises, set up from etc/rabbitmq."""

import contextlib
import os
import ssl
from collections.abc import Iterator

import amqp
from oslo_config import cfg

from kvmdriver import conf as options
from kvmdriver.agent.client import ComputeAPI
from tests import broker, namespace
from tests.certificates import Authority
from tests.functional.base import kvmdriver_json
from tests.functional.guests.service import AgentTest
from tests.functional.rabbit import example
from tests.functional.watcher import watch

USERS = (("host", "kvm1"), ("host", "kvm2"), ("client", "scheduler"), ("watcher", "billing"))
EXCHANGE = "amq.topic"


def password(user: str) -> str:
    return f"password-of-{user}"


class PermissionsTest(AgentTest):
    tls = True
    host = "kvm1"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for kind, name in USERS:
            cls.rabbit.add_user(kind, name, password(name))

    def setUp(self) -> None:
        # where use_queue_manager counts (oslo_messaging/_drivers/amqpdriver.py)
        self.addCleanup(self._forget_queues)
        super().setUp()

    @staticmethod
    def _forget_queues() -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/dev/shm/kvm1_agent_qmanager")

    def _example(self, name: str, user: str, changes: dict[str, str]) -> str:
        return example(
            name,
            {
                f"{user}:PASSWORD@broker.example.org:5671": f"{user}:{password(user)}"
                f"@localhost:{self.rabbit.port}",
                "/etc/kvmdriver/broker-ca.pem": self.rabbit.ca,
                **changes,
            },
        )

    def _config(self) -> str:
        agent = self._example("agent.conf", "kvm1", {"/run/kvmdriver": self.state})
        return f"{agent}\n{self._host_config()}"

    def make_remote(self) -> ComputeAPI:
        self.client_file = os.path.join(self.state, "client.conf")
        with open(self.client_file, "w") as file:
            file.write(self._example("client.conf", "scheduler", {}))
        conf = options.register_opts(cfg.ConfigOpts())
        conf([], project="kvmdriver", default_config_files=[self.client_file])
        conf.set_override("call_monitor_timeout", 4, "kvm_agent")
        self.client_conf = conf
        return ComputeAPI(conf, host="kvm1")

    def _connect(self, user: str, *, ca: str | None = None) -> amqp.Connection:
        connection = amqp.Connection(
            f"localhost:{self.rabbit.port}",
            userid=user,
            password=password(user),
            virtual_host="kvmdriver",
            ssl={
                "ca_certs": ca or self.rabbit.ca,
                "cert_reqs": ssl.CERT_REQUIRED,
                "server_hostname": "localhost",
            },
        )
        self.addCleanup(connection.collect)
        connection.connect()
        return connection

    @contextlib.contextmanager
    def _refused(self, connection: amqp.Connection, what: str) -> Iterator[amqp.Channel]:
        with self.subTest(what), self.assertRaises(amqp.AccessRefused):
            yield connection.channel()

    def _cannot_read(self, connection: amqp.Connection, queue: str) -> None:
        for method, arguments in (
            ("basic_get", {}),
            ("basic_consume", {}),
            ("queue_purge", {}),
            ("queue_delete", {}),
            ("queue_declare", {}),
            ("queue_bind", {"exchange": EXCHANGE, "routing_key": "kvmdriver.kvm2"}),
        ):
            with self._refused(connection, f"{method} {queue}") as channel:
                getattr(channel, method)(queue, **arguments)

    def test_agent_client_and_watcher_have_what_they_need(self) -> None:
        url = f"rabbit://billing:{password('billing')}@localhost:{self.rabbit.port}/kvmdriver"
        watcher = watch(self, self.client_conf, url)
        view = self.remote_create(nics=[], config_drive=None)
        rows = kvmdriver_json(
            "--config-file", self.client_file, "--host", "kvm1", "server", "list", state=self.state
        )
        self.assertEqual([view.name], [row["Name"] for row in rows])
        self.remote.terminate_instance(view.name, if_exists=False)
        namespace.wait_for(lambda: "instance.delete.end" in watcher.types(view.name), 20)
        self.assertIn("instance.create.end", watcher.types(view.uuid))

    def test_a_host_reads_its_own_queue_only(self) -> None:
        # what it may do, so that what follows is not refused for another reason
        connection = self._connect("kvm2")
        channel = connection.channel()
        own = "kvmdriver.kvm2"
        channel.queue_declare(own, durable=True, auto_delete=False)
        channel.queue_bind(own, EXCHANGE, own)
        self.assertIsNone(channel.basic_get(own))
        for queue in (
            "kvmdriver.kvm1", "kvmdriver_reads.kvm1", "kvmdriver_peers.kvm1",
            "kvmdriver_fanout_kvm1:agent:2", "reply_kvm1:agent:1", "reply_" + "0" * 32,
        ):  # fmt: skip
            self._cannot_read(connection, queue)
        with self._refused(connection, "a call that agents do not make") as channel:
            self._publish(channel, EXCHANGE, "kvmdriver.kvm1")
        for key in (
            "kvmdriver.kvm1",
            "kvmdriver.*",
            "#",
            "*.kvm1",
            "kvmdriver.kvm2.#",
            "kvmdriver_reads.kvm1",
        ):
            with self._refused(connection, f"bind {key}") as channel:
                channel.queue_bind(own, EXCHANGE, key)
            with self._refused(connection, f"bind an exchange, {key}") as channel:
                channel.exchange_declare(own, "fanout", auto_delete=True)
                channel.exchange_bind(own, EXCHANGE, key)
        # another exchange of that name would have no keys that can be forbidden
        with self._refused(connection, "remove the exchange") as channel:
            channel.exchange_delete(EXCHANGE)
        with self._refused(connection, "read notifications") as channel:
            channel.basic_get("kvmdriver_notifications.info")
        # what permissions cannot forbid, and doc/source/security.rst says: answers go to queues by name
        with self.assertRaises(amqp.NotFound):
            self._publish(connection.channel(), "", "kvmdriver.nobody")
        self.assertEqual([], self.remote.list_instances(), "the agent of kvm1 works on")

    def test_a_client_reads_nothing_but_its_answers(self) -> None:
        connection = self._connect("scheduler")
        answers = "reply_" + "1" * 32
        connection.channel().queue_declare(answers)
        self._cannot_read(connection, "kvmdriver.kvm1")
        self._cannot_read(connection, "reply_kvm1:agent:1")
        with self._refused(connection, "bind its queue") as channel:
            channel.queue_bind(answers, EXCHANGE, "kvmdriver.kvm1")
        with self.assertRaises(amqp.NotFound):  # what it may do: a call, to nobody
            self._publish(connection.channel(), EXCHANGE, "kvmdriver.nobody")
        with self._refused(connection, "a false notification") as channel:
            self._publish(channel, EXCHANGE, "kvmdriver_notifications.info")
        with self._refused(connection, "a false answer") as channel:
            self._publish(channel, "", "reply_kvm1:agent:1")

    def test_a_watcher_calls_nobody(self) -> None:
        connection = self._connect("billing")
        self._cannot_read(connection, "kvmdriver.kvm1")
        for exchange in (EXCHANGE, ""):
            with self._refused(connection, f"call through {exchange!r}") as channel:
                self._publish(channel, exchange, "kvmdriver.kvm1")

    @staticmethod
    def _publish(channel: amqp.Channel, exchange: str, key: str) -> None:
        channel.basic_publish(amqp.Message("{}"), exchange, key)
        # a refusal comes as the answer to the next question
        channel.queue_declare("nowhere", passive=True)

    def test_the_broker_shows_who_it_is(self) -> None:
        stranger = os.path.join(self.state, "stranger")
        Authority().equip(stranger, "localhost", "127.0.0.1")
        with self.assertRaises(ssl.SSLCertVerificationError):
            self._connect("scheduler", ca=f"{stranger}/qemu/ca-cert.pem")
        self.assertTrue(broker.answers(self.rabbit.port, ca=self.rabbit.ca))
        self.assertFalse(broker.answers(self.rabbit.port), "it speaks AMQP in the clear")
