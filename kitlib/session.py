"""One run of one cluster, wired together: parameters, hosts, doors, record, stages.

Notebooks and the `kit` command both work through a Session; it owns every connection and closes
them all. Opening one connects to nothing.
"""

from __future__ import annotations

import contextlib
import platform
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from kitlib import __version__
from kitlib import facts as host_facts
from kitlib.access import Access
from kitlib.checks import unsupported
from kitlib.command import Cmd
from kitlib.durable import Durable
from kitlib.errors import ApiError, ConnectError, Interrupted, KitError, ParamsError
from kitlib.facts import HostFacts
from kitlib.fanout import Fanned, fan_out
from kitlib.inventory import Inventory
from kitlib.journal import Journal, utc_text
from kitlib.kube import Kube
from kitlib.masking import mask, remember
from kitlib.model import CommandResult, Outcome, Verdict
from kitlib.params import Params, load
from kitlib.reach import open_ssh, open_sudo, unlock
from kitlib.recorder import Recorder, write_once
from kitlib.retry import Deadline
from kitlib.runlock import Owner, RunLock
from kitlib.ssh import Ssh
from kitlib.stages import (
    FIRST_RECORDED,
    STAGE_NAMES,
    Context,
    Stage,
    StageRun,
    get_stage,
    position,
)
from kitlib.stages.configuration import API_PORT
from kitlib.stages.evidence import snapshot

__all__ = ["Session", "fail", "find_params"]

ADMIN_CONF = "/etc/kubernetes/admin.conf"
NO_CLUSTER = "NoCluster"
"""The reason of an ApiError where no control plane was ever made: waiting does not help."""
JOINABLE = timedelta(hours=12)
"""A run begun by hand is continued by the next notebook for that long."""
_BEFORE_THE_PLUGIN = STAGE_NAMES[: position("network")]
"""In these stages, what a host says of its datapath is of the plugin that was there before."""


def find_params(path: str | Path) -> Path:
    """Return the parameter file: as given, or below a parent of the working directory.

    A notebook's working directory is its own folder; `params/lab.yaml` means the same file there.
    """
    wanted = Path(path).expanduser()
    if wanted.is_absolute():
        return wanted
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / wanted).is_file():
            return folder / wanted
    return wanted


def _own_plugins(params: Params) -> dict[str, Any]:
    """Return the user's own plugins that take part: the record is read where they are not."""
    wanted = {params.plugin, params.wanted_plugin.needs.delegate} & params.catalogue.own
    return {name: params.catalogue[name].model_dump(mode="json") for name in sorted(wanted)}


class Link:
    """A connection to the API through a control plane that answers, with what carries it.

    Args:
        ssh: The way to the hosts.
        params: Which of them are control planes, and the endpoint in front of them.
        access: Whether the API is reached directly or through SSH.
    """

    def __init__(self, ssh: Ssh, params: Params, access: Access) -> None:
        self._ssh = ssh
        self._names = [host.name for host in params.hosts if host.is_control_plane]
        self._behind_endpoint = bool(params.control_plane_endpoint)
        self._access = access
        self._stack = ExitStack()

    def open(self) -> Kube:
        """Return the API, checked to be answering, through the first control plane that has it.

        Raises:
            ApiError: There is no cluster on a control plane, or the API does not answer.
            ConnectError: No control plane can be reached.
        """
        self.close()
        failures: list[ApiError | ConnectError] = []
        for name in self._names:
            try:
                return self._open_through(name)
            except (ApiError, ConnectError) as error:
                failures.append(error)
        # A cluster that does not answer says more than a control plane that never was one.
        told = [e for e in failures if not (isinstance(e, ApiError) and e.reason == NO_CLUSTER)]
        raise (told or failures)[0]

    def _open_through(self, name: str) -> Kube:
        # Read, never recorded: this file is the cluster's master key.
        result = self._ssh.run(name, Cmd.of("cat", ADMIN_CONF))
        if not result.ok:
            raise ApiError(
                f"{name}: no cluster: {ADMIN_CONF} is not there",
                reason=NO_CLUSTER,
                remedy="run the init stage first",
            )
        config = yaml.safe_load(result.stdout)
        # The control plane's own API is asked, whatever the endpoint in front of it does.
        own = ("127.0.0.1", API_PORT) if self._behind_endpoint else None
        kube, self._stack = self._access.open(
            config, lambda host, port: self._ssh.forward(name, *(own or (host, port)))
        )
        return kube

    def close(self) -> None:
        """End the connection and the forward."""
        self._stack.close()


class Session:
    """One run of one cluster.

    Args:
        params: Validated parameters.
        journal: The run's record.
        dry_run: Plan only; no stage changes anything.
        rebuild: Build anew what is as wanted already.
        keep: Leave what a failed stage made as it is, for a look.
        what: `kit stage`, `kit build` or `notebook`: what the lock says that works here.
    """

    def __init__(
        self,
        params: Params,
        journal: Journal,
        *,
        dry_run: bool = False,
        rebuild: bool = False,
        keep: bool = False,
        what: str = "kit stage",
    ) -> None:
        self.params = params
        self.what = what
        self.journal = journal
        journal.forget(*params.secrets())
        self.dry_run = dry_run
        self.inventory = Inventory.from_params(params)
        self.plugin = params.wanted_plugin
        self._sudo = open_sudo(params)
        self._ssh = self._new_ssh()
        self._access = Access(
            params.api_access,
            ssh_address=params.control_plane.address,
            known=str(journal.record().get("api_access", {}).get("way", "")),
            note=self._note_access,
        )
        self._link = Link(self._ssh, params, self._access)
        self._kube: Kube | None = None
        self._kube_lock = threading.Lock()
        self._facts: dict[str, HostFacts] = {}
        self._provenance: Mapping[str, object] = {}
        self._built = False
        self._mask_password()
        self._durable = Durable(
            self._ssh,
            command_timeout=params.timeouts.command,
            patience=params.timeouts.reconnect,
            note=lambda host, text: journal.event("progress", host=host, text=text),
        )
        self._lock: RunLock | None = None
        self.recorder = self._new_recorder()
        self.context = Context(
            params=params,
            plugin=self.plugin,
            inventory=self.inventory,
            journal=journal,
            doors=self,
            rebuild=rebuild,
            keep=keep,
        )

    @classmethod
    def open(
        cls,
        params: str | Path,
        *,
        run_dir: str | Path = "",
        dry_run: bool = False,
        rebuild: bool = False,
        keep: bool = False,
        overrides: Mapping[str, object] | None = None,
        by_hand: bool = False,
    ) -> Session:
        """Return a session on a new run, or on the one in `run_dir`.

        Args:
            params: The parameter file.
            run_dir: A run directory to go on writing in; empty begins a new run, or by hand goes
                on with the newest run of the same parameters that was begun by hand.
            dry_run: Plan only.
            rebuild: Build anew what is as wanted already.
            keep: Leave what a failed stage made as it is, for a look.
            overrides: Parameters from the command line; those of an existing run hold in it.
            by_hand: True from notebooks: the stages of one build then share one run.

        Raises:
            ParamsError: The parameters, or the run directory, are wrong.
        """
        what = "notebook" if by_hand else "kit stage"
        path = find_params(params)
        given = dict(overrides or {})
        for name, value in given.items():
            if mask(value) != value:  # the record keeps options, so that notebooks have them too
                raise ParamsError(
                    f"option --{name.replace('_', '-')}: {mask(value)!r}: holds a password, which "
                    "every user of this machine can see in the list of processes",
                    remedy="write it into the parameter file",
                )
        if run_dir:
            journal = Journal.open(Path(run_dir))
            record = journal.record()
            given = {**record.get("overrides", {}), **given}
            rebuild = rebuild or bool(record.get("rebuild"))
            keep = keep or bool(record.get("keep"))
            loaded = load(path, given)
            if loaded.cluster != record["cluster"]:
                raise ParamsError(
                    f"run_dir: {run_dir}: it is a run of cluster {record['cluster']!r}, "
                    f"the parameters describe {loaded.cluster!r}"
                )
            return cls(loaded, journal, dry_run=dry_run, rebuild=rebuild, keep=keep, what=what)
        loaded = load(path, given)
        remember(*loaded.secrets())  # before the first line of the record
        journal = (_joinable(loaded) if by_hand and not given else None) or Journal.create(
            loaded.runs,
            loaded.cluster,
            {
                "kit_version": __version__,
                "python": platform.python_version(),
                "params_file": str(loaded.source),
                "params": loaded.masked(),
                "overrides": given,
                "rebuild": rebuild,
                "keep": keep,
                "dry_run": dry_run,
                "by_hand": by_hand,
                "plugin": loaded.plugin,
                "own_plugins": _own_plugins(loaded),
                "unsupported": unsupported(loaded, loaded.wanted_plugin),
                "pod_cidr": str(loaded.effective_pod_cidr),
                "kubernetes_version": loaded.kubernetes_version,
                "hosts": [
                    {"name": host.name, "address": host.address, "role": host.role.value}
                    for host in loaded.hosts
                ],
            },
        )
        return cls(loaded, journal, dry_run=dry_run, rebuild=rebuild, keep=keep, what=what)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.recorder.stop()
        self._link.close()
        self._ssh.close()

    def unlock(self, ask: Callable[[], str]) -> None:
        """Get sudo's password from a person, where a host wants one and none was given.

        Args:
            ask: Returns what the person typed; called once at most.

        Raises:
            BecomeError: A host refuses the password, or refuses root for another reason.
        """
        unlock(self.params, self._ssh, self._sudo, ask)
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

    def begin(self, name: str | Stage) -> StageRun:
        """Return a pass through one stage, to be taken step by step.

        Args:
            name: A stage of the build by its name; or one that is no part of a build, itself.
        """
        self._durable.resume()
        stage = get_stage(name) if isinstance(name, str) else name
        standing = stage.name not in STAGE_NAMES  # such a stage works on a cluster that stands
        if not self.dry_run and (standing or position(stage.name) >= position(FIRST_RECORDED)):
            self.recorder.start()
        return StageRun(stage, self.context, dry_run=self.dry_run, snapshot=snapshot)

    def leave_out(self, names: Iterable[str]) -> None:
        """Work without these hosts from now on: a person said that it may be so.

        Raises:
            KitError: The run has begun to work on them.
        """
        if self._lock is not None:
            raise KitError("hosts are left out before the lock is taken; this is a defect")
        gone = set(names)
        self.inventory = Inventory(tuple(h for h in self.inventory if h.name not in gone))
        self.context.inventory = self.inventory

    def stage(self, name: str | Stage) -> Outcome:
        """Run one stage, all steps in a row, and return how it ended.

        Raises:
            KitError: It failed; the message says where, what and what to do.
        """
        run = self.begin(name)
        try:
            return run.to_the_end()
        except Interrupted:
            self._ssh.close()  # unblocks what still waits on a host
            raise

    def read_objects(self) -> None:
        """Write the cluster's nodes, pods and events as they are now into watch/."""
        write_once(self.journal, self.kube(wait=10))

    def finish(self, verdict: Verdict, reason: str = "") -> None:
        """Write the run's verdict; what the API streamed until now is on disk."""
        self.recorder.stop()
        self.journal.stage = ""
        self.journal.end(verdict.value, reason)

    # --- Doors -----------------------------------------------------------------------------

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a command did on a host; it is kept in the record."""
        if cmd.mutates:
            self._still_ours()
        self.journal.event("command.started", host=host, command=cmd.brief)
        if cmd.mutates:
            result = self._durable.run(host, self.journal.stage, cmd)
        else:
            result = self._ssh.run(host, cmd)
        return replace(result, record=str(self.journal.command(cmd, result)))

    @contextmanager
    def exclusive(self) -> Iterator[Sequence[str]]:
        """Keep every other run off the hosts; yields what earlier runs had left running there.

        What still runs is waited for first: from then on the facts hold still.

        Raises:
            PreconditionError: Another run works there; the message names it.
            KitError: A host cannot be reached.
        """
        if self._lock is None:
            owner = Owner.here(self.journal.path.name, self.what, utc_text())
            names = [host.name for host in self.inventory]
            self._lock = RunLock(self._ssh, names, owner, tell=self._tell_lock)
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
        self._note_provenance(fanned.values)
        known = {name: self._facts[name] for name in hosts if name in self._facts}
        return Fanned(known, fanned.errors)

    def forget_facts(self) -> None:
        """Drop what was read: something changed."""
        self._facts.clear()

    def kube(self, *, wait: float) -> Kube:
        """Return the API of the cluster on the control plane.

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
                self.journal.event("progress", host="cluster", text=f"API: {error.message}")
                time.sleep(1)

    def _checked_kube(self) -> Kube:
        try:
            if self._kube is None:
                self._kube = self._link.open()
            else:
                self._kube.text("/readyz")
        except ApiError:
            self.forget_kube()
            raise
        return self._kube

    def forget_kube(self) -> None:
        """Drop the connection to the API."""
        self._kube = None
        self._link.close()

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

    def has_cluster(self) -> bool:
        """Return whether the API of this build's cluster answers now.

        Before the first recorded stage it would be another cluster's, which is not looked into.
        """
        stage = self.journal.stage
        if stage in STAGE_NAMES and position(stage) < position(FIRST_RECORDED):
            return False
        with contextlib.suppress(KitError):
            return bool(self.kube(wait=0))
        return False

    # --- helpers ---------------------------------------------------------------------------

    def _still_ours(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _tell_lock(self, host: str, text: str) -> None:
        self.journal.event("lock", host=host, text=text)

    def _settle(self) -> list[str]:
        """Wait for what broken-off runs left running, and return how it ended, one line each."""
        fanned = fan_out(self._durable.settle, [host.name for host in self.inventory])
        told = []
        for host, found in fanned.values.items():
            for left, answer in found:
                ended = f"exit status {answer.exit_status}"
                ended = ended if answer.state == "ended" else "over its time, it was ended"
                text = f"a run that broke off had left this here: {left.command}: {ended}"
                output = f"$ {left.command}\n--- stdout\n{answer.stdout}\n--- stderr\n"
                self.journal.keep(f"left-{host}-{left.id}.txt", output + answer.stderr)
                self.journal.event("lock", host=host, text=text)
                told.append(f"{host}: {text}")
        fanned.raise_first()
        return told

    def _note_provenance(self, facts: Mapping[str, HostFacts]) -> None:
        """Write into run.json where the numbers come from: the hosts themselves say it.

        What stands in for what is known when the plugin runs. What one that is replaced said goes
        with it; what was said of the one that was measured stays when it is removed afterwards.
        """
        if not facts:
            return
        known = self._provenance or self.journal.record().get("provenance") or {}
        said = known or _provenance(next(iter(facts.values())).host.lab)
        stands_in = "; ".join(sorted({here.host.stands_in for here in facts.values()} - {""}))
        before = self.journal.stage in _BEFORE_THE_PLUGIN
        self._built = self._built or not before
        if stands_in or (before and not self._built):  # a reset may follow what was built here
            said = {key: value for key, value in said.items() if key != "stands_in"}
            said |= {"stands_in": stands_in} if stands_in else {}
        self._provenance = said
        if said != known:
            self.journal.update(provenance=said)

    def _note_access(self, way: str, why: str) -> None:
        self.journal.update(api_access={"way": way, "why": why})
        how = "directly" if way == "direct" else "through the SSH tunnel"
        self.journal.event("progress", host="cluster", text=f"API: reached {how}: {why}")

    def _gather(self, name: str) -> HostFacts:
        return host_facts.gather(name, lambda cmd: self.run(name, cmd), self.params.catalogue)

    def _mask_password(self) -> None:
        if self._sudo and self._sudo.password:
            self.journal.forget(self._sudo.password.value)

    def _new_ssh(self) -> Ssh:
        return open_ssh(self.params, self._sudo)

    def _new_recorder(self) -> Recorder:
        ssh = self._new_ssh()
        link = Link(ssh, self.params, self._access)

        def disconnect() -> None:
            with contextlib.suppress(KitError):
                link.close()
            ssh.disconnect()

        return Recorder(self.journal, link.open, disconnect)


def _provenance(release: str) -> dict[str, object]:
    """Return the provenance that /etc/lab-release states; without one the hosts are real."""
    if not release:
        return {"kind": "hosts"}
    said = dict(word.partition("=")[::2] for word in shlex.split(release))  # as in os-release
    return {
        "kind": "lab",
        "time_factor": float(said.get("LAB_TIME_FACTOR", "nan")),
        "emulated": said.get("LAB_EMULATED", ""),
    }


def _joinable(params: Params) -> Journal | None:
    """Return the newest open run that notebooks began with these parameters, if it is recent."""
    root = params.runs / params.cluster
    for path in sorted(root.glob("*/run.json"), reverse=True)[:5]:
        journal = Journal.open(path.parent)
        record = journal.record()
        age = datetime.now(UTC) - datetime.fromisoformat(record["started"])
        if (
            record.get("by_hand")
            and record.get("ended") is None
            and record.get("params") == mask(params.masked())
            and age < JOINABLE
        ):
            return journal
    return None


def fail(session: Session, error: KitError) -> None:
    """Write the verdict of a run that this error ended, with its first line as the reason."""
    ended = Verdict.INTERRUPTED if isinstance(error, Interrupted) else Verdict.FAIL
    session.finish(ended, error.message.splitlines()[0])
