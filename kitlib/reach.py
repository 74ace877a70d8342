"""The door to a parameter file's hosts, opened as its `ssh` section says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kitlib.become import Sudo, read_password
from kitlib.command import Cmd, Secret
from kitlib.errors import BecomeError
from kitlib.fanout import fan_out
from kitlib.params import Params
from kitlib.ssh import Ssh

__all__ = ["DEFAULT_KNOWN_HOSTS", "open_ssh", "open_sudo", "unlock"]

DEFAULT_KNOWN_HOSTS = Path("~/.ssh/known_hosts").expanduser()


def open_sudo(params: Params) -> Sudo | None:
    """Return how the parameters' hosts become root; None where the login is root's.

    Raises:
        ParamsError: The password's file is not as it must be.
    """
    ssh = params.ssh
    if ssh.become == "none":
        return None
    password = read_password(ssh.become_password_env, ssh.become_password_file)
    return Sudo(password, variable=ssh.become_password_env)


def open_ssh(params: Params, sudo: Sudo | None) -> Ssh:
    """Return the door to the parameters' hosts; nothing is connected yet."""
    return Ssh(
        {host.name: host for host in params.hosts},
        known_hosts=params.ssh.known_hosts or DEFAULT_KNOWN_HOSTS,
        config=params.ssh.config,
        connect_timeout=params.ssh.connect_timeout,
        keepalive=params.ssh.keepalive,
        command_timeout=params.timeouts.command,
        sudo=sudo,
    )


def unlock(params: Params, ssh: Ssh, sudo: Sudo | None, ask: Callable[[], str]) -> None:
    """Get sudo's password from a person, where a host wants one and none was given.

    Args:
        params: Whose hosts.
        ssh: The door to them.
        sudo: How they become root; gets the password.
        ask: Returns what the person typed; called once at most.

    Raises:
        BecomeError: A host refuses the password, or refuses root for another reason.
    """
    if sudo is None or sudo.password is not None:
        return
    true = Cmd.of("true")
    fanned = fan_out(lambda name: ssh.run(name, true), [host.name for host in params.hosts])
    wanting = [
        name
        for name, error in fanned.errors.items()
        if isinstance(error, BecomeError) and error.password_wanted
    ]
    if wanting:  # whatever else went wrong is told by what comes after
        sudo.password = Secret(ask())
        fan_out(lambda name: ssh.run(name, true), wanting).raise_first()
