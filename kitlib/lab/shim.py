"""The program behind every emulated command on a lab host; copied there, it imports nothing.

It hands its name, arguments, environment and directory to the host daemon, relays what comes
back as it comes, and ends with the command's exit status. When it dies, or nobody reads its
output any more, the connection closes and the daemon cancels the command.

Frames to the daemon: kind (1 byte: `c` the call, `i` standard input, `e` its end), length
(4 bytes, big-endian), payload. Frames from it: the same, with `1` and `2` (standard output and
error), `r` (standard input is wanted), `x` (the exit status). The payload of the call is the
directory, the number of arguments, the arguments and the NAME=value settings, NUL between them.
"""

import _signal  # type: ignore[import-not-found]  # typeshed has it as `signal` alone
import _socket
import os
import select
import sys

SOCKET = "/run/lab/commands"


def main() -> int:
    """Run the command on the daemon and return its exit status."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        daemon.connect(SOCKET)
    except OSError as error:
        os.write(2, b"lab: the host daemon does not answer: %s\n" % str(error).encode())
        return 1
    try:
        here = os.getcwdb()  # noqa: PTH109 - pathlib is too slow to import here
    except OSError:
        here = b"/"
    name = sys.argv[0].rpartition("/")[2]
    argv = [os.fsencode(argument) for argument in [name, *sys.argv[1:]]]
    settings = [name + b"=" + value for name, value in os.environb.items()]
    call = b"\0".join([here, b"%d" % len(argv), *argv, *settings])
    daemon.sendall(frame(b"c", call))
    return relay(daemon)


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


def relay(daemon: _socket.socket) -> int:
    """Relay both ways until the exit status comes, and return it."""
    poll = select.poll()
    poll.register(daemon.fileno(), select.POLLIN)
    poll.register(1, 0)
    got = b""
    while True:
        for fd, events in poll.poll():
            if fd == 1:
                if events & (select.POLLERR | select.POLLHUP):
                    return 141
                poll.unregister(1)
            if fd == 0:
                data = read_stdin()
                daemon.sendall(frame(b"i", data) if data else frame(b"e"))
                if not data:
                    poll.unregister(0)
            if fd == daemon.fileno():
                data = daemon.recv(65536)
                if not data:
                    os.write(2, b"lab: the host daemon went away\n")
                    return 1
                got += data
        while len(got) >= 5 and len(got) >= 5 + int.from_bytes(got[1:5], "big"):
            size = 5 + int.from_bytes(got[1:5], "big")
            kind, payload, got = got[:1], got[5:size], got[size:]
            if kind == b"x":
                return int(payload)
            if kind == b"r":
                poll.register(0, select.POLLIN)
            else:
                write(1 if kind == b"1" else 2, payload)


def read_stdin() -> bytes:
    """Return some standard input, nothing at its end."""
    try:
        return os.read(0, 65536)
    except OSError:
        return b""


def write(fd: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    os._exit(main())
