"""Ports of the first host's 127.0.0.1, offered on 127.0.0.1 of the host that runs this.

    python -m tests.openstack.relay NAMESPACE PORT...

NAMESPACE is a file of the network namespace in which the services listen.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000  # linux/sched.h


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(descriptor)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _relay(listener: socket.socket, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        for end in (forth, writer):
            end.close()

    await asyncio.start_server(connected, sock=listener)


async def _main(listeners: dict[int, socket.socket]) -> None:
    for port, listener in listeners.items():
        await _relay(listener, port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    # listen here first: a socket stays in the namespace in which it was made
    listeners = {
        int(port): socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[2:]
    }
    _enter(sys.argv[1])
    asyncio.run(_main(listeners))
