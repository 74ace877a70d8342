"""The doors of a session: to the hosts over SSH and the cluster's API, or to the API alone.

Both kinds have the same methods (`stages.Doors`). Where the cluster is known by a kubeconfig alone
nothing is known of hosts (`facts` is empty), and what would need one says so.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from kitlib import facts as host_facts
from kitlib.access import Access, check_answers
from kitlib.command import Cmd
from kitlib.durable import Durable
from kitlib.errors import ApiError, KitError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.fanout import Fanned, fan_out
from kitlib.journal import Journal
from kitlib.kube import Kube
from kitlib.kubeconfig import Kubeconfig
from kitlib.link import NO_CLUSTER, KubeconfigLink, Link, SshLink
from kitlib.model import CLUSTER, CommandResult
from kitlib.params import Params
from kitlib.provenance import Origins
from kitlib.reach import open_ssh, open_sudo, unlock
from kitlib.recorder import Recorder
from kitlib.retry import Deadline
from kitlib.runlock import Owner, RunLock
from kitlib.ssh import Ssh
from kitlib.stages import FIRST_RECORDED, STAGE_NAMES, position

__all__ = ["ApiDoors", "HostDoors"]


class _Cluster:
    """The door to the API, shared by a session's threads and checked each time it is asked for."""

    def __init__(self, journal: Journal, link: Link) -> None:
        self._journal = journal
        self._link = link
        self._kube: Kube | None = None
        self._kube_lock = threading.Lock()
        self.origins = Origins(journal)

    def kube(self, *, wait: float) -> Kube:
        """Return the API of the cluster.

        Raises:
            ApiError: It did not answer within `wait` seconds; the last reason is in the message.
        """
        deadline = Deadline(wait, "the Kubernetes API")
        while True:
            try:
                # One at a time: who finds the connection broken must not close another's new one.
                with self._kube_lock:
                    return self._checked_kube()
            except ApiError as error:
                if deadline.left < 1 or error.reason == NO_CLUSTER:
                    error.waited = True
                    raise
                self._journal.event("progress", host=CLUSTER, text=f"API: {error.message}")
                time.sleep(1)

    def _checked_kube(self) -> Kube:
        try:
            if self._kube is None:
                self._kube = self._link.open()
            else:
                check_answers(self._kube)
        except ApiError:
            self.forget_kube()
            raise
        return self._kube

    def forget_kube(self) -> None:
        """Drop the connection to the API."""
        self._kube = None
        self._link.close()

    def has_cluster(self) -> bool:
        """Return whether the API of this build's cluster answers now.

        Before the first recorded stage it would be another cluster's, which is not looked into.
        """
        stage = self._journal.stage
        if stage in STAGE_NAMES and position(stage) < position(FIRST_RECORDED):
            return False
        with contextlib.suppress(KitError):
            return bool(self.kube(wait=0))
        return False


class HostDoors(_Cluster):
    """Every host of the parameters over SSH, and the API through a control plane.

    Args:
        params: Which hosts, and how they are reached.
        journal: The run's record.
        names: Returns the hosts that the session works on.
        owner: Returns who holds the run's lock.
        without_some: Whether a host that cannot be reached is left alone, where the others may do.
    """

    sees_hosts = True

    def __init__(
        self,
        params: Params,
        journal: Journal,
        *,
        names: Callable[[], Sequence[str]],
        owner: Callable[[], Owner],
        without_some: bool = False,
    ) -> None:
        self._params = params
        self._names = names
        self._owner = owner
        self._without_some = without_some
        self._sudo = open_sudo(params)
        self._ssh = self._new_ssh()
        self._access = Access(
            params.api_access,
            ssh_address=params.control_plane.address,
            known=str(journal.record().get("api_access", {}).get("way", "")),
            note=self._note_access,
        )
        super().__init__(journal, SshLink(self._ssh, params, self._access))
        self._facts: dict[str, HostFacts] = {}
        self._durable = Durable(
            self._ssh,
            command_timeout=params.timeouts.command,
            patience=params.timeouts.reconnect,
            note=lambda host, text: journal.event("progress", host=host, text=text),
        )
        self._lock: RunLock | None = None
        self._locked: list[str] = []
        self._mask_password()

    def close(self) -> None:
        """Close every connection."""
        self._link.close()
        self._ssh.close()

    def cut(self) -> None:
        """Close the connections to the hosts, which unblocks what still waits on one."""
        self._ssh.close()

    def resume(self) -> None:
        """Take commands again after an interruption ended some."""
        self._durable.resume()

    @property
    def locked(self) -> bool:
        """True once the run's lock was taken."""
        return self._lock is not None

    def unlock(self, ask: Callable[[], str]) -> None:
        """Get sudo's password from a person, where a host wants one and none was given.

        Raises:
            BecomeError: A host refuses the password, or refuses root for another reason.
        """
        unlock(self._params, self._ssh, self._sudo, ask)
        self._mask_password()

    @property
    def kernel_environment(self) -> Mapping[str, str]:
        """What a notebook's kernel of this session gets in its environment, and nothing else does.

        It is sudo's password where there is one. An environment is readable by its owner and root
        alone, as is this process's memory; a command line or a message would be kept.
        """
        if self._sudo is None or self._sudo.password is None:
            return {}
        return {self._sudo.variable: self._sudo.password.value}

    def recorder(self) -> Recorder:
        """Return a recorder of the cluster, with connections of its own."""
        ssh = self._new_ssh()
        link = SshLink(ssh, self._params, self._access)

        def disconnect() -> None:
            with contextlib.suppress(KitError):
                link.close()
            ssh.disconnect()

        return Recorder(self._journal, link.open, disconnect)

    # --- Hosts -----------------------------------------------------------------------------

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a command did on a host; it is kept in the record."""
        if cmd.mutates:
            self._still_ours()
        self._journal.event("command.started", host=host, command=cmd.brief)
        if cmd.mutates:
            result = self._durable.run(host, self._journal.stage, cmd)
        else:
            result = self._ssh.run(host, cmd)
        return replace(result, record=str(self._journal.command(cmd, result)))

    @contextmanager
    def exclusive(self) -> Iterator[Sequence[str]]:
        """Keep every other run off the hosts; yields what earlier runs had left running there.

        What still runs is waited for first: from then on the facts hold still.

        Raises:
            PreconditionError: Another run works there; the message names it.
            KitError: A host cannot be reached.
        """
        if self._lock is None:
            self._locked = self._reachable() if self._without_some else list(self._names())
            if not self._locked:  # the API may answer all the same
                yield ()
                return
            self._lock = RunLock(self._ssh, self._locked, self._owner(), tell=self._tell_lock)
        with self._lock.hold() as fresh:
            try:
                yield self._settle() if fresh else ()
            except KeyboardInterrupt:
                self.end_commands()  # before another run may come
                raise

    def end_commands(self) -> None:
        """End on the hosts what runs there for this session: it was interrupted."""
        self._durable.end_all()

    def put(self, host: str, content: str, path: str, *, mode: int = 0o644) -> None:
        """Write a file on a host."""
        self._still_ours()
        self._ssh.put(host, content, path, mode=mode)

    def send(self, host: str, file: Path, path: str) -> None:
        """Copy a file of this machine to a host."""
        self._ssh.send(host, file, path)

    def fetch(self, host: str, path: str, file: Path) -> None:
        """Copy a file of a host to this machine."""
        self._ssh.fetch(host, path, file)

    def facts(self, hosts: Sequence[str], *, fresh: bool) -> Fanned[str, HostFacts]:
        """Return what is true on the hosts, read since the last change (now, when `fresh`)."""
        if fresh:
            self._facts.clear()
        missing = [name for name in hosts if name not in self._facts]
        fanned = fan_out(self._gather, missing)
        self._facts.update(fanned.values)
        self.origins.note(fanned.values)
        known = {name: self._facts[name] for name in hosts if name in self._facts}
        return Fanned(known, fanned.errors)

    def forget_facts(self) -> None:
        """Drop what was read: something changed."""
        self._facts.clear()

    def reach_anew(self, host: str) -> None:
        """Return when a new connection to a host works, whatever the open one does.

        Raises:
            ConnectError: It does not.
        """
        ssh = self._new_ssh()
        try:
            ssh.run(host, Cmd.of("true"))
        finally:
            ssh.close()

    def quietly(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a reading command did, without a record of its own."""
        return self._ssh.run(host, cmd)

    # --- helpers ---------------------------------------------------------------------------

    def _reachable(self) -> list[str]:
        """Return the hosts that can be reached; of the others it is noted why not."""
        names = list(self._names())
        away = fan_out(lambda name: self._ssh.run(name, Cmd.of("true")), names).errors
        for name, error in away.items():
            self._journal.event("progress", host=name, text=f"left alone: {error}".splitlines()[0])
        return [name for name in names if name not in away]

    def _still_ours(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _tell_lock(self, host: str, text: str) -> None:
        self._journal.event("lock", host=host, text=text)

    def _settle(self) -> list[str]:
        """Wait for what broken-off runs left running, and return how it ended, one line each."""
        fanned = fan_out(self._durable.settle, self._locked)
        told = []
        for host, found in fanned.values.items():
            for left, answer in found:
                ended = f"exit status {answer.exit_status}"
                ended = ended if answer.state == "ended" else "over its time, it was ended"
                text = f"a run that broke off had left this here: {left.command}: {ended}"
                output = f"$ {left.command}\n--- stdout\n{answer.stdout}\n--- stderr\n"
                self._journal.keep(f"left-{host}-{left.id}.txt", output + answer.stderr)
                self._journal.event("lock", host=host, text=text)
                told.append(f"{host}: {text}")
        fanned.raise_first()
        return told

    def _note_access(self, way: str, why: str) -> None:
        self._journal.update(api_access={"way": way, "why": why})
        how = "directly" if way == "direct" else "through the SSH tunnel"
        self._journal.event("progress", host=CLUSTER, text=f"API: reached {how}: {why}")

    def _gather(self, name: str) -> HostFacts:
        return host_facts.gather(name, lambda cmd: self.run(name, cmd), self._params.catalogue)

    def _mask_password(self) -> None:
        if self._sudo and self._sudo.password:
            self._journal.forget(self._sudo.password.value)

    def _new_ssh(self) -> Ssh:
        return open_ssh(self._params, self._sudo)


class ApiDoors(_Cluster):
    """The API alone, by a kubeconfig: no host is known but by its Node.

    Args:
        source: The kubeconfig.
        journal: The run's record.
    """

    sees_hosts = False
    locked = False
    kernel_environment: Mapping[str, str] = {}

    def __init__(self, source: Kubeconfig, journal: Journal) -> None:
        super().__init__(journal, KubeconfigLink(source))
        self._source = source

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def cut(self) -> None:
        """There is no connection that an interruption would have to cut."""

    def resume(self) -> None:
        """There is no host that could have been left with a command."""

    def unlock(self, ask: Callable[[], str]) -> None:
        """Nobody's password is wanted."""

    def recorder(self) -> Recorder:
        """Return a recorder of the cluster, with a connection of its own."""
        link = KubeconfigLink(self._source)
        return Recorder(self._journal, link.open, link.close)

    @contextmanager
    def exclusive(self) -> Iterator[Sequence[str]]:
        """Yield nothing: without hosts there is no lock, and nothing on them is changed."""
        yield ()

    def end_commands(self) -> None:
        """There is no host that a command could run on."""

    def facts(self, hosts: Sequence[str], *, fresh: bool) -> Fanned[str, HostFacts]:  # noqa: ARG002
        """Return nothing: no host is looked into."""
        return Fanned({}, {})

    def forget_facts(self) -> None:
        """There are none."""

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        """Refuse: there is no way to a host."""
        self._refuse(host, str(cmd))

    def quietly(self, host: str, cmd: Cmd) -> CommandResult:
        """Refuse: there is no way to a host."""
        self._refuse(host, str(cmd))

    def put(self, host: str, content: str, path: str, *, mode: int = 0o644) -> None:  # noqa: ARG002
        """Refuse: there is no way to a host."""
        self._refuse(host, f"write {path}")

    def send(self, host: str, file: Path, path: str) -> None:  # noqa: ARG002
        """Refuse: there is no way to a host."""
        self._refuse(host, f"write {path}")

    def fetch(self, host: str, path: str, file: Path) -> None:  # noqa: ARG002
        """Refuse: there is no way to a host."""
        self._refuse(host, f"read {path}")

    def reach_anew(self, host: str) -> None:
        """Refuse: there is no way to a host."""
        self._refuse(host, "connect")

    def _refuse(self, host: str, what: str) -> NoReturn:
        raise PreconditionError(
            f"{host}: {what}: there is no way to the hosts: the cluster is known by "
            f"{self._source.source} alone",
            remedy="a parameter file that names the hosts (params/example.yaml) has one",
        )
