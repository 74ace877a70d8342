"""Two hosts and a router between them in network namespaces, without root and without a lab.

`client` (10.9.1.2) - `router` (10.9.1.1, 10.9.2.1) - `server` (10.9.2.2). Nothing of it reaches
the machine's own network. What holds the namespaces ends with whoever made them, and with it all
that was started in them through `net`.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.command import Cmd

CLIENT, ROUTER, SERVER = "10.9.1.2", "10.9.2.1", "10.9.2.2"
ODD, NOBODY, NO_ROUTE = "10.9.3.2", "10.9.2.77", "10.8.0.1"
"""Answered by `netservers.odd` alone; nobody has it; the client has no way to it."""

SERVERS = Path(__file__).with_name("netservers.py")
_ENDS = ["--fork", "--kill-child", "sh", "-c", "echo up; exec cat"]


@dataclass
class Net:
    """The namespaces; `pids` is the process that holds each one."""

    pids: dict[str, int] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def argv(self, place: str, *command: str) -> list[str]:
        """Return a command as it runs at `client`, `router` or `server`."""
        pid = str(self.pids[place])
        enter = ["nsenter", "--target", pid, "--user", "--preserve-credentials", "--net"]
        return [*enter, "--mount", "--", *command]

    def run(self, place: str, *command: str, **more: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        argv = self.argv(place, *command)
        return subprocess.run(argv, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]

    def probe(self, cmd: Cmd, *, busybox: Sequence[str] = (), place: str = "client") -> str:
        """Return what a probe's command prints, both streams, as its parser wants it.

        Args:
            cmd: The command.
            busybox: Tools that are BusyBox's in it, whatever else the machine has.
            place: Where it runs.
        """
        done = self.run(place, "sh", "-c", _functions(busybox) + bare(cmd))
        return done.stdout + done.stderr

    def must(self, place: str, line: str) -> None:
        """Run a command line that has to go well."""
        done = self.run(place, "sh", "-c", line)
        assert done.returncode == 0, f"{line}: {done.stderr}"

    def serve(self, place: str, *command: str) -> subprocess.Popen[str]:
        """Start what runs until the namespaces go."""
        argv = self.argv(place, *command)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def answer(self, *which: str) -> subprocess.Popen[str]:
        """Start one of `netservers` at the server's end, and return when it answers."""
        process = self.serve("server", sys.executable, str(SERVERS), *which)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", process.stdout.read()
        return process

    def until(self, place: str, line: str, seconds: float = 10) -> None:
        """Wait for a command line to go well."""
        end = time.monotonic() + seconds
        while self.run(place, "sh", "-c", line).returncode:
            assert time.monotonic() < end, f"never came true: {line}"
            time.sleep(0.05)

    def mtu(self, size: int) -> None:
        """Set the MTU of the router's way to the server, both ends."""
        self.must("router", f"ip link set right mtu {size}; ip route flush cache")
        self.must("server", f"ip link set eth0 mtu {size}")

    def forget(self) -> None:
        """Let all forget what path MTUs they have learnt."""
        for place in self.pids:
            self.must(place, "ip route flush cache")

    def rule(self, text: str) -> None:
        """Let the router drop or refuse what is forwarded: an nft rule; empty lets all pass."""
        self.run("router", "nft", "delete", "table", "ip", "kit")
        if text:
            chain = f"chain forward {{ type filter hook forward priority 0; {text}; }};"
            self.must("router", f"nft 'table ip kit {{ {chain} }}'")


def _functions(busybox: Sequence[str]) -> str:
    return "".join(f'{name}() {{ busybox {name} "$@"; }}; ' for name in busybox)


def bare(cmd: Cmd) -> str:
    """Return a script's own text, so that functions are known in it; else the line."""
    match cmd.argv:
        case ("sh", "-c", text, "sh", *rest):
            return f"set -- {' '.join(shlex.quote(str(each)) for each in rest)}; {text}"
    return cmd.render()


@contextlib.contextmanager
def net() -> Iterator[Net]:
    """Bring the three up, and take them down with all that runs in them."""
    made = Net()
    holders: list[subprocess.Popen[str]] = []

    def hold(*argv: str) -> int:
        process = subprocess.Popen(
            [*argv, *_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", "no namespaces here"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(child)

    try:
        made.pids["router"] = hold("unshare", "--map-root-user", "--net", "--mount")
        for place in ("client", "server"):
            made.pids[place] = hold(*made.argv("router", "unshare", "--net", "--mount"))
        for place, name, near, far in (
            ("client", "left", "10.9.1.1", CLIENT),
            ("server", "right", "10.9.2.1", SERVER),
        ):
            peer = f"peer name eth0 netns {made.pids[place]}"
            made.must("router", f"ip link add {name} type veth {peer}")
            made.must("router", f"ip addr add {near}/24 dev {name}; ip link set {name} up")
            made.must(place, f"ip addr add {far}/24 dev eth0; ip link set eth0 up")
            made.must(place, "ip link set lo up; echo 0 0 > /proc/sys/net/ipv4/ping_group_range")
        made.must("client", "ip route add 10.9.0.0/16 via 10.9.1.1")
        made.must("server", "ip route add default via 10.9.2.1")
        made.must(
            "router", f"echo 1 > /proc/sys/net/ipv4/ip_forward; ip route add {ODD}/32 via {SERVER}"
        )
        yield made
    finally:
        for process in [*made.started, *reversed(holders)]:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
