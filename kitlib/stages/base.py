"""What a stage is, and the one gate through which every change passes.

A stage plans, applies and checks. Its plan is a list of actions computed from facts read now;
applying it performs exactly that list. Nothing else in a stage can change anything: reads go
through a runner that refuses commands marked as changing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from kitlib.command import Cmd
from kitlib.errors import ApiError, ChecksFailed, CommandError, ConnectError, KitError
from kitlib.facts import HostFacts
from kitlib.fanout import Fanned, fan_out
from kitlib.inventory import Host, Inventory
from kitlib.journal import Journal
from kitlib.kube import Kube
from kitlib.manifests import Prepared
from kitlib.model import CLUSTER, Change, Check, CommandResult
from kitlib.params import Params
from kitlib.plugins import Plugin
from kitlib.stages.presence import ANSWERS, hosts_that_answer

__all__ = ["Action", "Context", "Doors", "Hands", "Plan", "Stage", "expect"]


class Doors(Protocol):
    """The doors to the outside that a context needs (kitlib.doors has them)."""

    @property
    def sees_hosts(self) -> bool:
        """False where the cluster is known by its API alone: there is no way to a host."""

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a command on a host did."""

    def put(self, host: str, content: str, path: str, *, mode: int = 0o644) -> None:
        """Write a file on a host."""

    def send(self, host: str, file: Path, path: str) -> None:
        """Copy a file of this machine to a host."""

    def facts(self, hosts: Sequence[str], *, fresh: bool) -> Fanned[str, HostFacts]:
        """Return what is true on the hosts, read now or (not `fresh`) since the last change."""

    def forget_facts(self) -> None:
        """Drop what was read: something changed."""

    def kube(self, *, wait: float) -> Kube:
        """Return the API of the cluster on the control plane, waited for up to `wait` seconds."""

    def forget_kube(self) -> None:
        """Drop the connection to the API: the cluster behind it changes."""

    def reach_anew(self, host: str) -> None:
        """Return when a new connection to a host works, whatever the open one does."""

    def quietly(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a reading command did, without a record of its own."""

    def has_cluster(self) -> bool:
        """Return whether the API of this build's cluster answers now."""

    def exclusive(self) -> AbstractContextManager[Sequence[str]]:
        """Keep every other run off the hosts; yields what earlier runs had left running there."""

    def end_commands(self) -> None:
        """End on the hosts what runs there: the person interrupted."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What an action may use while it is performed. Only the gate makes one."""

    doors: Doors
    journal: Journal

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a command did.

        Raises:
            CommandError: It ended with another exit status than 0.
        """
        return expect(self.doors.run(host, cmd))

    def put(self, host: str, content: str, path: str, *, mode: int = 0o644) -> None:
        """Write a file on a host."""
        self.doors.put(host, content, path, mode=mode)

    def send(self, host: str, file: Path, path: str) -> None:
        """Copy a file of this machine to a host."""
        self.doors.send(host, file, path)

    def kube(self) -> Kube:
        """Return the cluster's API."""
        return self.doors.kube(wait=60)


@dataclass(frozen=True, slots=True)
class Action:
    """One planned change and how it is done.

    Attributes:
        target: A host's name, or `cluster`.
        what: What is done and why, one line; the dry run prints it.
        command: The command on the target host; printed in the dry run too.
        do: Where one command does not say it all: what is done instead of running `command`.
        changes_cluster: True when the API behind the control plane may be another one afterwards.
    """

    target: str
    what: str
    command: Cmd | None = None
    do: Callable[[Hands], object] | None = None
    changes_cluster: bool = False

    @property
    def change(self) -> Change:
        """The change as it is recorded and shown."""
        return Change(self.target, self.what, self.command)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage would do.

    Attributes:
        actions: The changes in order; a target's actions run one after another, targets side by
            side, those of the cluster first.
        reason: Why nothing is to be done, or what made the changes necessary.
        closing: Actions performed behind all others, where these ended well.
        cleanup: Actions performed at the end whatever happened before (a token is deleted).
        notices: What a person should know before the changes are made, one line each.
    """

    actions: tuple[Action, ...] = ()
    reason: str = ""
    cleanup: tuple[Action, ...] = ()
    notices: tuple[str, ...] = ()
    closing: tuple[Action, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes as they are recorded and shown."""
        return tuple(action.change for action in (*self.actions, *self.closing, *self.cleanup))


@dataclass
class Context:
    """What a stage works with.

    Attributes:
        params: The validated parameters.
        plugin: The wanted plugin.
        inventory: The hosts.
        journal: The run's record.
        doors: The doors to the outside; stages use the methods below instead.
        rebuild: True when a cluster that is as wanted is to be built anew all the same.
        keep: True when what a failed stage made is left as it is, for a look.
        read_only: True for stages whose plan is always empty: the gate refuses every change.
        failures: Host -> what failed there in the stage under way.
        results: Stage -> what it measured while it was applied, for its check to report.
        manifest: The plugin's manifest as it is applied, once it was fetched and read.
        absent: Worker that cannot be reached -> why, in a stage that goes on without it.
        steady: How long the stages watch the plugin's containers for restarts, in seconds; None is
            the usual time. Who watches for longer over several stages needs no wait in each.
    """

    params: Params
    plugin: Plugin
    inventory: Inventory
    journal: Journal
    doors: Doors
    rebuild: bool = False
    keep: bool = False
    read_only: bool = False
    failures: dict[str, Exception] = field(default_factory=dict)
    results: dict[str, list[Check]] = field(default_factory=dict)
    absent: dict[str, ConnectError] = field(default_factory=dict)
    manifest: Prepared | None = None
    steady: float | None = None

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every host."""
        return self.inventory.hosts

    @property
    def sees_hosts(self) -> bool:
        """False where the cluster is known by a kubeconfig alone: `facts` is empty then."""
        return self.doors.sees_hosts

    @property
    def control_plane(self) -> Host:
        """The first control-plane host: `kubeadm init` runs there when there is no cluster."""
        return self.control_planes[0]

    @property
    def control_planes(self) -> tuple[Host, ...]:
        """The control-plane hosts."""
        return tuple(self.inventory.select(role="control_plane"))

    @property
    def administrator(self) -> Host:
        """The control plane on which kubectl runs, and from which the cluster is judged.

        It is the first one that can be reached, has an administrator's kubeconfig and runs an API
        server; where none does, the first with a kubeconfig, or else the first of all. So one that
        is down, was removed, or whose join was broken off is not in the way.
        """
        found = self.doors.facts([host.name for host in self.control_planes], fresh=False).values

        def rank(host: Host) -> int:
            if host.name not in found or not found[host.name].kubeadm.initialised:
                return 2
            return 0 if found[host.name].kubeadm.serves else 1

        return min(self.control_planes, key=rank)

    @property
    def workers(self) -> tuple[Host, ...]:
        """The worker hosts."""
        return tuple(self.inventory.select(role="worker"))

    def read(self, host: str, cmd: Cmd) -> CommandResult:
        """Return what a command that changes nothing did, whatever its exit status.

        Raises:
            KitError: The command is marked as changing something.
        """
        if cmd.mutates:
            raise KitError(f"{host}: {cmd}: a change outside the gate; this is a defect of the kit")
        return self.doors.run(host, cmd)

    def facts(self, *, fresh: bool = False) -> Mapping[str, HostFacts]:
        """Return what is true on every host, read since the last change (now, when `fresh`).

        Hosts that the stage goes on without are not in it.

        Raises:
            KitError: A host cannot be read; the others' errors are in the journal.
        """
        names = [host.name for host in self.hosts if host.name not in self.absent]
        fanned = self.doors.facts(names, fresh=fresh)
        for name, error in fanned.errors.items():
            self.journal.event("error", host=name, message=str(error))
        return fanned.raise_first()

    def kube(self, *, wait: float = 60) -> Kube:
        """Return the cluster's API, waited for up to `wait` seconds."""
        return self.doors.kube(wait=wait)

    def waiting(self, host: str, text: str) -> None:
        """Say what a host is waiting for; shown live and kept in the journal."""
        self.journal.event("progress", host=host, text=text)

    def record(self, checks: Sequence[Check]) -> None:
        """Write judged checks into the journal."""
        for check in checks:
            self.journal.event(
                "check",
                host=check.target,
                id=check.id,
                status=check.status.value,
                summary=check.summary,
                got=check.got,
                expected=check.expected,
                remedy=check.remedy,
            )

    def perform(self, action: Action) -> None:
        """Do one planned change: the gate. Whatever changes a host or the cluster passes here.

        Raises:
            KitError: The change failed, or this stage may not change anything.
        """
        if self.read_only:
            raise KitError(f"{action.target}: {action.what}: this stage may not change anything")
        shown = str(action.command) if action.command else ""
        self.journal.event("change", host=action.target, what=action.what, command=shown)
        self.doors.forget_facts()
        if action.changes_cluster:
            self.doors.forget_kube()
        hands = Hands(self.doors, self.journal)
        if action.do is not None:
            action.do(hands)
        elif action.command is not None:
            hands.run(action.target, action.command)


class Stage(ABC):
    """One stage of the build; see the module docstring."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What it does, as a heading."""
    changes_nothing: ClassVar[bool] = False
    """True when its plan is always empty, but for a network that is written on each host."""
    looks_in_dry_run: ClassVar[bool] = False
    """True when its checks say something of hosts on which nothing was done yet."""
    needs_api: ClassVar[bool] = False
    """True when it can only work with the Kubernetes API answering."""
    judges_the_rest: ClassVar[bool] = False
    """True when a worker out of reach is one failed check, and the other hosts are judged."""

    def only_looks(self, ctx: Context) -> bool:  # noqa: ARG002
        """Return whether its plan is always empty with these parameters."""
        return self.changes_nothing

    def preconditions(self, ctx: Context) -> list[Check]:
        """Return what must hold before the stage is planned: every host (and the API) answers."""
        checks = hosts_that_answer(ctx, without_workers=self.judges_the_rest)
        if self.needs_api:
            checks.append(_api_answers(ctx))
        return checks

    @abstractmethod
    def plan(self, ctx: Context) -> Plan:
        """Return what would be done, computed from facts read now."""

    @abstractmethod
    def check(self, ctx: Context) -> list[Check]:
        """Return the judged state after the stage. Reads only."""

    def failure(self, bad: Sequence[Check]) -> KitError:
        """Return the error that the stage ends with when these checks failed.

        It is of its own kind where a host is out of reach.
        """
        lines = "\n".join(f"  {check}" for check in bad)
        count = "1 check" if len(bad) == 1 else f"{len(bad)} checks"
        lost = [check.target for check in bad if check.id == ANSWERS]
        if lost:
            hosts = "1 host" if len(lost) == 1 else f"{len(lost)} hosts"
            away = f"{hosts} cannot be reached ({', '.join(lost)})"
            return ConnectError(f"{self.name}: {away}; {count} failed\n{lines}")
        return ChecksFailed(f"{self.name}: {count} failed\n{lines}")

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:  # noqa: ARG002
        """Return which targets are worked on side by side, turn after turn."""
        return [[CLUSTER], [name for name in targets if name != CLUSTER]]

    def apply(self, ctx: Context, plan: Plan) -> None:
        """Do exactly the plan. A target stops at its first failure; the other targets finish.

        Raises:
            KitError: The first failure, after every target has ended; all are in `ctx.failures`.
        """
        first, closing = _by_target(plan.actions), _by_target(plan.closing)
        try:
            # What the cluster needs comes first: the hosts' actions rely on it.
            for targets in self.turns(ctx, tuple(first)):
                _side_by_side(ctx, {name: first[name] for name in targets if name in first})
            _side_by_side(ctx, closing)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                ctx.doors.end_commands()
            for action in reversed(plan.cleanup):
                if ctx.keep:
                    ctx.journal.event("note", host=action.target, text=f"kept: no {action.what}")
                    continue
                try:
                    ctx.perform(action)
                except KitError as error:  # must not hide what went wrong before it
                    ctx.journal.event("error", host=action.target, message=str(error))
            raise
        for action in plan.cleanup:
            ctx.perform(action)


def _by_target(actions: Sequence[Action]) -> dict[str, list[Action]]:
    found: dict[str, list[Action]] = {}
    for action in actions:
        found.setdefault(action.target, []).append(action)
    return found


def _side_by_side(ctx: Context, by_target: Mapping[str, Sequence[Action]]) -> None:
    """Do each target's actions one after another, the targets side by side."""

    def work(target: str) -> None:
        ctx.journal.event("host.started", host=target)
        try:
            for action in by_target[target]:
                ctx.perform(action)
        except BaseException as error:
            ctx.journal.event("host.ended", host=target, ok=False, reason=str(error))
            raise
        ctx.journal.event("host.ended", host=target, ok=True)

    fanned = fan_out(work, list(by_target))
    ctx.failures.update(fanned.errors)
    fanned.raise_first()


def _api_answers(ctx: Context) -> Check:
    # An API that was never started does not come by waiting for it.
    standing = ctx.facts()[ctx.administrator.name].kubeadm.initialised
    try:
        server, problem = ctx.kube(wait=60 if standing else 0).server, ""
    except ApiError as error:
        server, problem = "", error.message
    return Check.that(
        not problem,
        "api.answers",
        CLUSTER,
        "the Kubernetes API answers",
        got=problem or server,
        expected="an answer",
        remedy="run the init stage first; if it ran, look at its record",
    )


def expect(result: CommandResult, *, remedy: str = "") -> CommandResult:
    """Return the result of a command that ended well.

    Raises:
        CommandError: Its exit status is not 0.
    """
    if not result.ok:
        raise CommandError(
            result.host,
            result.command,
            result.exit_status,
            result.tail(),
            remedy=remedy,
            record=result.record,
        )
    return result
