"""A host's cable on which every frame is held for a while, each way: the lab fault `slow-node`.

Kernels need not have netem. So the cable is taken out of the lab's bridge, and a process passes its
frames on, as they are and in their order, to a second veth pair that is in the bridge instead. The
host itself notices nothing but the time. `python -m kitlib.lab.holding CABLE END BRIDGE SECONDS` is
that process; it ends, and puts the cable back, at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

__all__ = ["HELD", "Held", "hold"]

HELD = 0.003
"""Seconds that a frame is held, each way."""

_SIOCBRADDIF, _SIOCBRDELIF = 0x89A2, 0x89A3
_PR_SET_TIMERSLACK = 29
# From linux/if_packet.h: frames are taken from a ring that the kernel shares, TPACKET_V2, whose
# slots take usual ones whole; a larger one (segments that are not cut yet) is then received.
_SOL_PACKET, _ETH_P_ALL = 263, 0x0003
_RX_RING, _COPY_THRESH, _VERSION, _VNET_HDR, _IGNORE_OUTGOING = 5, 7, 10, 15, 23
_KERNELS, _OURS, _COPIED = 0, 1, 2
_BLOCK, _SLOT, _SLOTS = 1 << 16, 1 << 11, 1 << 11
_HEADER = struct.Struct("=IIIHHII")
_VNET_BYTES = 10
_LARGEST_FRAME = 70_000


class Held:
    """A cable whose frames are held, from `start` until `stop`.

    Args:
        cable: The host's end in the bridge.
        bridge: The bridge.
    """

    def __init__(self, cable: str, bridge: str) -> None:
        self._cable, self._bridge = cable, bridge
        self._ends = f"{cable}-in", f"{cable}-out"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Put the holding process between; returns when frames go through it.

        Raises:
            OSError: It did not start; the cable is as it was.
        """
        inner, outer = self._ends
        pipe = asyncio.subprocess.PIPE
        try:
            await _ip("link", "add", inner, "type", "veth", "peer", "name", outer)
            await _ip("link", "set", inner, "up")
            await _ip("link", "set", outer, "master", self._bridge, "up")
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "kitlib.lab.holding"),
                *(self._cable, inner, self._bridge, str(HELD)),
                stdin=pipe,
                stdout=pipe,
            )
            told = self._process.stdout
            if told is None or not await told.readline():
                raise OSError(f"{self._cable}: its frames cannot be held; see box.log")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take it out again; what it still held has been passed on."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            await self._process.wait()
            self._process = None
        with contextlib.suppress(OSError):
            await _ip("link", "set", self._cable, "master", self._bridge)
        with contextlib.suppress(OSError):
            await _ip("link", "del", self._ends[0])


async def _ip(*argv: str) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("ip", *argv, stderr=pipe)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"ip {' '.join(argv)}: {said.decode().strip()}")


def hold(cable: str, end: str, bridge: str, seconds: float, stop: int, ready: int) -> None:
    """Pass frames between two interfaces, each held for `seconds`, until `stop` can be read.

    Args:
        cable: The interface that is taken out of the bridge meanwhile.
        end: The other interface; its peer is in the bridge.
        bridge: The bridge.
        seconds: How long.
        stop: A descriptor that has reached its end when it is time to end.
        ready: A descriptor that one line is written to as soon as frames go through.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # wake up in time, not 50 us later
    # The box itself is none of the stations on these wires: it must not answer on them.
    quiet = {"ipv4": ("arp_ignore", "8"), "ipv6": ("disable_ipv6", "1")}
    settings = {
        Path(f"/proc/sys/net/{family}/conf/{name}/{key}"): value
        for family, (key, value) in quiet.items()
        for name in (cable, end)
    }
    before = {file: file.read_text() for file in settings if file.exists()}
    for file in before:
        file.write_text(settings[file])
    sides = _Wire(cable), _Wire(end)
    _in_bridge(_SIOCBRDELIF, bridge, cable)
    try:
        for side in sides:
            side.sock.bind((side.name, _ETH_P_ALL))
        os.write(ready, b"held\n")
        _pass_on(sides, seconds, stop)
    finally:
        for side in sides:
            side.sock.close()
        _in_bridge(_SIOCBRADDIF, bridge, cable)
        for file, text in before.items():
            file.write_text(text)


class _Wire:
    """Whole frames from and to one interface, with what the kernel has still to do to each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option in (_VNET_HDR, _IGNORE_OUTGOING, _VERSION, _COPY_THRESH):
            self.sock.setsockopt(_SOL_PACKET, option, 1)  # version 1 is TPACKET_V2
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        blocks = _SLOTS * _SLOT // _BLOCK
        ring = struct.pack("=IIII", _BLOCK, blocks, _SLOT, _SLOTS)
        self.sock.setsockopt(_SOL_PACKET, _RX_RING, ring)
        self._ring = mmap.mmap(self.sock.fileno(), blocks * _BLOCK)
        self._next = 0
        self.sock.setblocking(False)

    def take(self) -> Iterator[tuple[float, bytes]]:
        """Yield the frames that are there: how many seconds ago each came, and the frame."""
        while True:
            start = self._next * _SLOT
            status, length, kept, mac, _, sec, nsec = _HEADER.unpack_from(self._ring, start)
            if not status & _OURS:
                return
            frame = b""
            if status & _COPIED:
                with contextlib.suppress(BlockingIOError):
                    frame = self.sock.recv(_LARGEST_FRAME)
            elif kept == length:
                begin = start + mac - _VNET_BYTES
                frame = self._ring[begin : begin + _VNET_BYTES + length]
            self._ring[start : start + 4] = _KERNELS.to_bytes(4, sys.byteorder)
            self._next = (self._next + 1) % _SLOTS
            if frame:
                yield max(time.time() - sec - nsec / 1e9, 0.0), frame

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire; none goes where the cable is out, or its queue full, as ever."""
        with contextlib.suppress(OSError):
            self.sock.send(frame)


def _pass_on(sides: tuple[_Wire, _Wire], seconds: float, stop: int) -> None:
    ways = (sides, sides[::-1])
    socks = [side.sock for side in sides]
    held: deque[tuple[float, _Wire, bytes]] = deque()
    ending = False
    while held or not ending:
        wait = max(held[0][0] - time.monotonic(), 0.0) if held else None
        heard: list[socket.socket | int] = [] if ending else [*socks, stop]
        ready, _, _ = select.select(heard, [], [], wait)
        ending = ending or (stop in ready and not os.read(stop, 1))
        for here, there in ways:
            for age, frame in here.take():
                held.append((time.monotonic() + max(seconds - age, 0.0), there, frame))
        while held and held[0][0] <= time.monotonic():
            _, out, frame = held.popleft()
            out.send(frame)


def _in_bridge(call: int, bridge: str, name: str) -> None:
    index = socket.if_nametoindex(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, call, struct.pack("16si20x", bridge.encode(), index))


if __name__ == "__main__":
    hold(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), 0, 1)
