"""A RabbitMQ of our own: how it is told to keep to itself, and whether it is ready."""

import contextlib
import socket
import ssl


def environment(
    directory: str,
    name: str,
    *,
    port: int,
    distribution_port: int,
    epmd_port: int,
    address: str = "127.0.0.1",
    config: str | None = None,
) -> dict[str, str]:
    """The environment of a ``rabbitmq-server`` that has all it needs in ``directory``.

    :param config: path of a rabbitmq.conf, which then says where the broker listens.
    """
    listens = {"RABBITMQ_NODE_IP_ADDRESS": address, "RABBITMQ_NODE_PORT": str(port)}
    return {
        **({} if config else listens),
        "HOME": directory,
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": f"{directory}/data",
        "RABBITMQ_LOG_BASE": f"{directory}/log",
        "RABBITMQ_PID_FILE": f"{directory}/pid",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
        "RABBITMQ_CONFIG_FILE": config or f"{directory}/none",
        # the account "guest" may come from other addresses than this one, too
        "RABBITMQ_SERVER_START_ARGS": f"-setcookie {name} -rabbit loopback_users []",
    }


def answers(port: int, address: str = "127.0.0.1", ca: str | None = None) -> bool:
    """Whether the broker is ready: it answers the header of AMQP 0-9-1 then.

    :param ca: certificate of the authority, of a broker with TLS at ``localhost``.
    """
    with contextlib.suppress(OSError), socket.create_connection((address, port), 2) as plain:
        plain.settimeout(3)
        client = plain
        if ca:
            client = ssl.create_default_context(cafile=ca).wrap_socket(
                plain, server_hostname="localhost"
            )
        client.sendall(b"AMQP\x00\x00\x09\x01")
        return len(client.recv(8)) == 8
    return False
