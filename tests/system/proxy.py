#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy with faults: delay, rate, silence, cuts, and bytes that are dropped, doubled, swapped,
cut off or flipped.

As a program it only delays and slows down: proxy.py 127.0.0.1:4470 10.0.0.2:4471 --round-trip 1ms
"""
import argparse
import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
import time

CHUNK = 64 << 10
ON_THE_WAY = 16 << 20  # bytes of one direction, before the sender is held up
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST

DOWNSTREAM, UPSTREAM = "primary to standby", "standby to primary"
WAYS = DOWNSTREAM, UPSTREAM
DAMAGES = "drop", "double", "swap", "truncate", "flip"


class Damage:
    """One fault that waits for its chunk: the first of at least `least` bytes that goes that way."""

    def __init__(self, kind, way, least):
        self.kind, self.way, self.least = kind, way, least
        self.done = threading.Event()


class Connection:
    def __init__(self, proxy, reader, writer):
        self.proxy, self.client, self.server = proxy, (reader, writer), None
        self.silent = False
        self.tasks = []

    async def serve(self):
        try:
            self.server = await asyncio.open_connection(*self.proxy.target, limit=CHUNK)
        except OSError:
            self.cut("rst")
            return
        for _, writer in (self.client, self.server):
            one = writer.get_extra_info("socket")
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = {DOWNSTREAM: (self.client, self.server), UPSTREAM: (self.server, self.client)}
        self.tasks = [
            asyncio.create_task(self.pump(way, source[0], target[1]))
            for way, (source, target) in ways.items()
        ]
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.cut("fin")

    async def pump(self, way, reader, writer):
        """Until the end of the stream, which is passed on."""
        queue = asyncio.Queue(ON_THE_WAY // CHUNK)
        delivering = asyncio.create_task(self.deliver(queue, writer))
        try:
            while data := await reader.read(CHUNK):
                await self.unless_silent()
                self.proxy.passed[way] += len(data)
                for piece in self.proxy.treat(way, data):
                    if piece is None:  # the end, too early
                        return
                    await queue.put((time.monotonic() + self.proxy.delay, piece))
        except OSError:
            self.cut("rst")
        finally:
            await queue.put(None)
            await delivering

    async def deliver(self, queue, writer):
        free_at, broken = 0.0, False
        while item := await queue.get():
            due, piece = item
            if broken:
                continue  # the pump must not wait for room
            if self.proxy.rate:
                free_at = max(free_at, time.monotonic()) + len(piece) / self.proxy.rate
                due = max(due, free_at)
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            await self.unless_silent()
            try:
                writer.write(piece)
                await writer.drain()
            except OSError:
                broken = True
                self.cut("rst")
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def unless_silent(self):
        while self.silent or self.proxy.silent:
            await asyncio.sleep(0.01)

    def cut(self, how):
        """`silent`: nothing more comes through, and nobody is told, as behind a router that has
        forgotten.
        """
        if how == "silent":
            self.silent = True
            return
        self.silent = False
        for _, writer in filter(None, (self.client, self.server)):
            if how == "rst":
                with contextlib.suppress(OSError, AttributeError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, RESET
                    )
                writer.transport.abort()
            else:
                writer.close()


class Proxy(threading.Thread):
    """Runs on a thread of its own until close(). `inside` is a context (a network namespace) that
    the thread enters for its whole life.
    """

    def __init__(self, listen, target, inside=contextlib.nullcontext(), seed=0):
        super().__init__(daemon=True)
        self.listen, self.target, self.inside = listen, target, inside
        self.chance = random.Random(seed)
        self.delay, self.rate, self.silent, self.refusing = 0.0, None, False, False
        self.passed = dict.fromkeys(WAYS, 0)
        self.accepted = 0
        self.storm_of = 0.0, DAMAGES, 1  # how likely for a chunk, which, of at least which size
        self.damages, self.held = [], dict.fromkeys(WAYS)
        self.done = []  # the damages that were done, in order: (kind, way)
        self.connections = set()
        self.failure, self.ready = None, threading.Event()
        self.start()
        assert self.ready.wait(10), "the proxy does not start"
        if self.failure:
            raise self.failure

    def run(self):
        with self.inside:
            asyncio.run(self.main())

    async def main(self):
        self.loop, self.ending = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self.arrived, *self.listen, limit=CHUNK)
        except OSError as error:
            self.failure = error
            return
        finally:
            self.ready.set()
        await self.ending.wait()
        server.close()
        for connection in list(self.connections):
            connection.cut("rst")

    async def arrived(self, reader, writer):
        self.accepted += 1
        connection = Connection(self, reader, writer)
        if self.refusing:
            connection.cut("rst")
            return
        self.connections.add(connection)
        try:
            await connection.unless_silent()
            await connection.serve()
        finally:
            self.connections.discard(connection)

    def close(self):
        self.silent = False
        if self.is_alive():
            self.loop.call_soon_threadsafe(self.ending.set)
            self.join(10)

    # What a test asks for.

    def cut(self, how):
        """Ends the connections that there are: `fin`, `rst` or `silent`."""
        done = threading.Event()

        def work():
            for connection in list(self.connections):
                connection.cut(how)
            self.held = dict.fromkeys(WAYS)
            done.set()

        self.loop.call_soon_threadsafe(work)
        assert done.wait(10)

    @contextlib.contextmanager
    def unplugged(self, how="silent"):
        """No connection through here for the time of the block: those that there are are cut, new
        ones refused, or, if `silent`, accepted by nobody.
        """
        if how == "silent":
            self.silent = True
        else:
            self.refusing = True
            self.cut(how)
        try:
            yield
        finally:
            if how == "silent":
                # What stood still must not go on as if nothing had been lost.
                self.cut("rst")
            self.silent = self.refusing = False

    def damage(self, kind, way, least=1):
        one = Damage(kind, way, least)
        self.damages.append(one)
        return one

    def storm(self, likely, kinds=DAMAGES, least=1):
        """Each chunk of at least `least` bytes has its chance of a random damage."""
        self.storm_of = likely, kinds, least

    def treat(self, way, data):
        """The pieces that go on in the place of `data`; None for the end of the stream."""
        held, self.held[way] = self.held[way], None
        for one in self.damages:
            if one.way == way and len(data) >= one.least:
                self.damages.remove(one)
                one.done.set()
                return self.damaged(one.kind, way, data, held)
        likely, kinds, least = self.storm_of
        if len(data) >= least and self.chance.random() < likely:
            return self.damaged(self.chance.choice(kinds), way, data, held)
        return [data] + ([held] if held else [])

    def damaged(self, kind, way, data, held):
        self.done.append((kind, way))
        begin, end = sorted((self.chance.randrange(len(data)), self.chance.randrange(len(data))))
        end += 1
        after = [held] if held else []
        if kind == "drop":
            return [data[:begin] + data[end:]] + after
        if kind == "double":
            return [data[:end], data[begin:end], data[end:]] + after
        if kind == "swap":
            self.held[way] = data
            return after
        if kind == "truncate":
            return [data[:begin], None]
        flipped = bytearray(data)
        flipped[begin] ^= 1 << self.chance.randrange(8)
        return [bytes(flipped)] + after


def address(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def seconds(text):
    number, unit = re.fullmatch(r"([0-9.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]


def main():
    parser = argparse.ArgumentParser(description="A TCP proxy that delays and slows down.")
    parser.add_argument("listen", type=address, metavar="ADDRESS:PORT")
    parser.add_argument("target", type=address, metavar="ADDRESS:PORT")
    parser.add_argument("--round-trip", type=seconds, default=0.0, help="added: 200us, 1ms, …")
    parser.add_argument("--rate", type=float, help="bytes a second, each way")
    arguments = parser.parse_args()
    proxy = Proxy(arguments.listen, arguments.target)
    proxy.delay, proxy.rate = arguments.round_trip / 2, arguments.rate
    print("ready", flush=True)
    proxy.join()


if __name__ == "__main__":
    main()
