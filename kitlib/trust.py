"""First contact: the hosts' keys, and their jump hosts', shown, asked for, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kitlib.dial import Dialler
from kitlib.errors import ConnectError, ParamsError
from kitlib.hostkeys import Found, remember, rounds
from kitlib.params import Params
from kitlib.reach import DEFAULT_KNOWN_HOSTS

__all__ = ["trust"]


def trust(
    params: Params,
    *,
    show: Callable[[Sequence[Found]], None],
    accept: Callable[[int, Path], bool],
) -> tuple[int, Path]:
    """Return how many new keys were remembered, and in which file.

    A jump host is shown and asked for first: the hosts behind it can be asked only through it.

    Args:
        params: Whose hosts.
        show: Shows what the servers of one round showed.
        accept: Returns whether so many new keys may be remembered in that file.

    Raises:
        ParamsError: New keys were not accepted.
        HostKeyError: A key differs from the remembered one; nothing of that round is remembered.
        ConnectError: A server cannot be asked; the keys of the others are remembered all the same.
    """
    file = params.ssh.known_hosts or DEFAULT_KNOWN_HOSTS
    dialler = Dialler(file, params.ssh.config, params.ssh.connect_timeout, params.ssh.keepalive)
    count, errors = 0, list[ConnectError]()
    for each in rounds(params.hosts, dialler):
        show(each.found)
        errors += each.errors
        if each.fresh and not any(found.state == "CHANGED" for found in each.found):
            if not accept(len(each.fresh), file):
                raise ParamsError(f"trust: {len(each.fresh)} new key(s) were not accepted")
            remember(file, each.fresh)
            count += len(each.fresh)
    if errors:
        raise errors[0]
    return count, file
