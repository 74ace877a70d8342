"""One run of one cluster, wired together: parameters, doors, record, stages.

Notebooks and the `kit` command both work through a Session; it owns every connection and closes
them all. What it works on is described by a parameter file, or asked of a living cluster that a
kubeconfig leads to; only the latter connects when a new run is opened.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kitlib import __version__
from kitlib.checks import unsupported
from kitlib.doors import ApiDoors, HostDoors
from kitlib.errors import Interrupted, KitError, ParamsError, PreconditionError
from kitlib.inventory import Inventory
from kitlib.journal import Journal, utc_text
from kitlib.kube import Kube
from kitlib.kubeconfig import Kubeconfig, is_kubeconfig, read_kubeconfig
from kitlib.living import look_at
from kitlib.masking import mask, remember
from kitlib.model import Outcome, Verdict
from kitlib.params import Params, load, of_cluster
from kitlib.recorder import write_once
from kitlib.runlock import Owner
from kitlib.runs import DIAGNOSIS
from kitlib.stages import (
    FIRST_RECORDED,
    STAGE_NAMES,
    Context,
    Stage,
    StageRun,
    get_stage,
    position,
)
from kitlib.stages.evidence import snapshot

__all__ = ["Session", "fail", "find_params", "runs_of"]

JOINABLE = timedelta(hours=12)
"""A run begun by hand is continued by the next notebook for that long."""


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


def runs_of(params: str | Path) -> Path:
    """Return the directory of a cluster's runs.

    Args:
        params: The parameter file, or a kubeconfig (its current context).

    Raises:
        ParamsError: It is wrong.
    """
    path = find_params(params)
    if is_kubeconfig(path):
        return _runs() / read_kubeconfig(path).label
    loaded = load(path)
    return loaded.runs / loaded.cluster


def _runs() -> Path:
    """Return where runs of a kubeconfig's cluster go: `runs` here, or beside the notebooks."""
    here = Path.cwd()
    kit = Path(__file__).resolve().parent.parent
    return (kit if here.is_relative_to(kit / "notebooks") else here) / "runs"


def _own_plugins(params: Params) -> dict[str, Any]:
    """Return the user's own plugins that take part: the record is read where they are not."""
    wanted = {params.plugin, params.wanted_plugin.needs.delegate} & params.catalogue.own
    return {name: params.catalogue[name].model_dump(mode="json") for name in sorted(wanted)}


class Session:
    """One run of one cluster.

    Args:
        params: Validated parameters.
        journal: The run's record.
        dry_run: Plan only; no stage changes anything.
        rebuild: Build anew what is as wanted already.
        keep: Leave what a failed stage made as it is, for a look.
        what: `kit stage`, `kit build` or `notebook`: what the lock says that works here.
        source: The kubeconfig that the cluster is known by; None where parameters name the hosts.

    Attributes:
        doors: The ways to the hosts and the API.
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
        source: Kubeconfig | None = None,
    ) -> None:
        self.params = params
        self.what = what
        self.journal = journal
        journal.forget(*params.secrets())
        self.dry_run = dry_run
        self.inventory = Inventory.from_params(params)
        self.plugin = params.wanted_plugin
        self.doors: HostDoors | ApiDoors = (
            ApiDoors(source, journal)
            if source is not None
            else HostDoors(
                params,
                journal,
                names=lambda: self.inventory.names,
                owner=lambda: Owner.here(journal.path.name, self.what, utc_text()),
                without_some=journal.record().get("kind") == DIAGNOSIS,
            )
        )
        self.recorder = self.doors.recorder()
        self.context = Context(
            params=params,
            plugin=self.plugin,
            inventory=self.inventory,
            journal=journal,
            doors=self.doors,
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
        context: str = "",
        kind: str = "",
    ) -> Session:
        """Return a session on a new run, or on the one in `run_dir`.

        Args:
            params: The parameter file, or a kubeconfig: its cluster is asked what it is.
            run_dir: A run directory to go on writing in; empty begins a new run, or by hand goes
                on with the newest run of the same parameters that was begun by hand.
            dry_run: Plan only.
            rebuild: Build anew what is as wanted already.
            keep: Leave what a failed stage made as it is, for a look.
            overrides: Parameters from the command line; those of an existing run hold in it.
            by_hand: True from notebooks: the stages of one build then share one run.
            context: The kubeconfig's context; empty is its current one, or the existing run's.
            kind: What a new run is, where it is no build: `diagnose` goes on without hosts that
                cannot be reached, as the API may tell enough.

        Raises:
            ParamsError: The parameters, or the run directory, are wrong.
            ApiError: The kubeconfig's cluster does not answer, or does not know who asks.
            PreconditionError: The kubeconfig's user may not do what diagnosing takes.
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
            source = _source(path, context or str(record.get("context") or ""))
            # What the cluster was found to be when the run began holds to its end.
            living = record.get("living") if source else None
            loaded = (
                of_cluster(path, living, given, runs=journal.path.parent.parent)
                if living
                else load(path, given)
            )
            if loaded.cluster != record["cluster"]:
                raise ParamsError(
                    f"run_dir: {run_dir}: it is a run of cluster {record['cluster']!r}, "
                    f"the parameters describe {loaded.cluster!r}"
                )
        else:
            source, living = _source(path, context), None
            if source is not None:
                living = look_at(source)
                kind = kind or DIAGNOSIS
                loaded = of_cluster(path, living, given, runs=_runs())
            else:
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
                    "unsupported": "" if living else unsupported(loaded, loaded.wanted_plugin),
                    "pod_cidr": str(loaded.effective_pod_cidr or ""),
                    "kubernetes_version": loaded.kubernetes_version,
                    "hosts": [
                        {"name": host.name, "address": host.address, "role": host.role.value}
                        for host in loaded.hosts
                    ],
                    **({"kind": kind} if kind else {}),
                    **({"context": source.context, "living": living} if source else {}),
                },
            )
        return cls(
            loaded,
            journal,
            dry_run=dry_run,
            rebuild=rebuild,
            keep=keep,
            what=what,
            source=source,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.recorder.stop()
        self.doors.close()

    def unlock(self, ask: Callable[[], str]) -> None:
        """Get sudo's password from a person, where a host wants one and none was given.

        Args:
            ask: Returns what the person typed; called once at most.

        Raises:
            BecomeError: A host refuses the password, or refuses root for another reason.
        """
        self.doors.unlock(ask)

    @property
    def kernel_environment(self) -> Mapping[str, str]:
        """What a notebook's kernel of this session gets in its environment: sudo's password."""
        return self.doors.kernel_environment

    def begin(self, name: str | Stage) -> StageRun:
        """Return a pass through one stage, to be taken step by step.

        Args:
            name: A stage of the build by its name; or one that is no part of a build, itself.

        Raises:
            PreconditionError: The cluster is known by a kubeconfig: no stage can work on its hosts.
        """
        if not self.doors.sees_hosts:
            raise PreconditionError(
                f"{name}: a stage works on hosts, and the cluster is known by "
                f"{self.params.source} alone",
                remedy="a parameter file that names the hosts (params/example.yaml) is wanted",
            )
        self.doors.resume()
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
        if self.doors.locked:
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
            self.doors.cut()  # unblocks what still waits on a host
            raise

    def read_objects(self) -> None:
        """Write the cluster's nodes, pods and events as they are now into watch/."""
        write_once(self.journal, self.kube(wait=10))

    def finish(self, verdict: Verdict, reason: str = "") -> None:
        """Write the run's verdict; what the API streamed until now is on disk."""
        self.recorder.stop()
        self.journal.stage = ""
        self.journal.end(verdict.value, reason)

    def exclusive(self) -> AbstractContextManager[Sequence[str]]:
        """Keep every other run off the hosts; yields what earlier runs had left running there.

        Raises:
            PreconditionError: Another run works there; the message names it.
            KitError: A host cannot be reached.
        """
        return self.doors.exclusive()

    def kube(self, *, wait: float) -> Kube:
        """Return the API of the cluster.

        Raises:
            ApiError: It did not answer within `wait` seconds; the last reason is in the message.
        """
        return self.doors.kube(wait=wait)


def _source(path: Path, context: str) -> Kubeconfig | None:
    """Return the kubeconfig that a file is, or None where it is a parameter file.

    Raises:
        ParamsError: It is a kubeconfig that cannot be used, or a context was named without one.
    """
    if is_kubeconfig(path):
        return read_kubeconfig(path, context)
    if context:
        raise ParamsError(f"--context {context}: {path} is no kubeconfig (kind: Config)")
    return None


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
