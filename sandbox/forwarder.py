"""A byte pump: connections accepted on the host's loopback continue to the same port inside the namespace.

A socket belongs to the namespace in which it was created. The listening ones are made before the sandbox enters
its own, the ones that connect are made after it, and so no process needs to change namespaces.
"""

import asyncio
import socket

_CHUNK_BYTES = 256 * 1024


async def forward(listener: socket.socket) -> asyncio.Server:
    """Start forwarding from a listening socket; the returned server goes on until it is closed."""
    host, port = listener.getsockname()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()  # nobody listens inside: the client sees its connection reset
            return
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_pump(reader, inner_writer))
                directions.create_task(_pump(inner_reader, writer))
        except* OSError:
            pass  # one side broke off; closing both tells the other
        finally:
            writer.close()
            inner_writer.close()

    return await asyncio.start_server(connected, sock=listener)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()  # a half-closed connection stays half-closed
