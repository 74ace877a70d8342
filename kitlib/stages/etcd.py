"""The members of a stacked etcd, and what may be done without losing the majority of them.

etcd answers while more than half of its members do. Adding one to a cluster in trouble, or taking
one away from it, can end it for good; so the kit counts first. Facts come from `etcdctl` in the
etcd pods that kubeadm makes, which every version of the image has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kitlib.command import Cmd
from kitlib.errors import ApiError, CommandError, KitError, ParseError, PreconditionError
from kitlib.kube import Kube
from kitlib.model import CLUSTER, Check, CommandResult
from kitlib.retry import Deadline, until
from kitlib.stages.base import Context

__all__ = [
    "Member",
    "check_growth",
    "check_removal",
    "first_loss",
    "judge",
    "members",
    "quorum",
    "remove_member",
    "wait_for_member",
]

MEMBER_SECONDS = 120
"""How long a new control plane's etcd member and API may take to answer, after its join."""
_PKI = "/etc/kubernetes/pki/etcd"
_LOCAL = "https://127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of etcd.

    Attributes:
        id: Its number, in hexadecimal, as `etcdctl member remove` takes it.
        name: Its name, which is its Node's; empty until it has started once.
        url: Where it serves clients; empty until it has started once.
        healthy: True when it answers and can write.
    """

    id: str
    name: str
    url: str
    healthy: bool


def quorum(count: int) -> int:
    """Return how many of so many members must answer."""
    return count // 2 + 1


def members(kube: Kube) -> list[Member]:
    """Return etcd's members, asked in the first etcd pod that answers.

    Raises:
        KitError: No etcd pod of the cluster could be asked.
    """
    listed = json_of(_etcdctl(kube, "member", "list", "--write-out=json"))
    # It ends with 1 when one of them is ill, and tells of each all the same.
    health = _etcdctl(kube, "endpoint", "health", "--cluster", statuses=(0, 1))
    well = set(re.findall(r"(\S+) is healthy", health.stdout + health.stderr))
    found = []
    for entry in listed.get("members") or []:
        url = (entry.get("clientURLs") or [""])[0]
        found.append(Member(f"{int(entry['ID']):x}", str(entry.get("name", "")), url, url in well))
    return found


def loss(found: Sequence[Member], name: str) -> str:
    """Return why a member cannot be spared; empty when it can.

    Args:
        found: The members as they are.
        name: The one that is to go.
    """
    rest = [member for member in found if member.name != name]
    well = [member.name for member in rest if member.healthy]
    if not rest:
        return "it is the last member of etcd: the cluster would be lost with it"
    if len(well) >= quorum(len(rest)):
        return ""
    ill = ", ".join(member.name or member.id for member in rest if not member.healthy)
    return (
        f"without it {len(well)} of {len(rest)} etcd members would answer, "
        f"{quorum(len(rest))} are needed ({ill} does not answer)"
    )


def check_removal(kube: Kube, *names: str) -> None:
    """Return when the etcd members of control planes can be spared, one after another.

    Raises:
        PreconditionError: One cannot; the message counts the members that would be left.
    """
    lost = first_loss(members(kube), names)
    if lost:
        name, why = lost
        raise PreconditionError(
            f"{name}: not removed: {why}",
            remedy="bring the other control planes back first, or add one",
        )


def first_loss(found: Sequence[Member], names: Iterable[str]) -> tuple[str, str] | None:
    """Return which of these cannot be spared, and why, where they go one after another.

    Each is counted as it goes: the next one is judged by those that would be left.
    """
    for name in names:
        why = loss(found, name) if name in {member.name for member in found} else ""
        if why:
            return name, why
        found = [member for member in found if member.name != name]
    return None


def check_growth(ctx: Context, name: str) -> None:
    """Return when etcd is well enough to take another member: all that it has answer.

    Raises:
        PreconditionError: One does not.
    """
    ill = [member for member in members(ctx.kube()) if not member.healthy]
    if ill:
        shown = ", ".join(member.name or f"{member.id} (never started)" for member in ill)
        raise PreconditionError(
            f"{name}: not joined: etcd member {shown} does not answer, and another member would "
            "make the majority larger",
            remedy="bring it back; or, if it is gone for good, take it out with etcdctl member "
            f"remove {ill[0].id} in the etcd pod of another control plane",
        )


def wait_for_member(ctx: Context, name: str, address: str) -> None:
    """Return when a new control plane's etcd member and its own API server answer.

    Args:
        ctx: The stage's context.
        name: The control plane.
        address: Where its API server listens.

    Raises:
        DeadlineError: They do not, within two minutes.
    """
    seen = "no etcd member of it"
    ready = Cmd.of(
        *("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", f"--server=https://{address}"),
        *("--request-timeout=5s", "get", "--raw=/readyz"),
        timeout=30,
    )

    def answers() -> bool | None:
        nonlocal seen
        try:
            here = next((each for each in members(ctx.kube(wait=5)) if each.name == name), None)
            if here is None or not here.healthy:
                seen = "its etcd member does not answer" if here else "no etcd member of it"
                return None
            result = ctx.read(name, ready)
        except (ApiError, CommandError) as error:
            seen = error.message.splitlines()[0]
            return None
        seen = f"its API server is not ready: {result.tail()}"
        return True if result.ok else None

    ctx.waiting(name, "for its etcd member and its API")
    until(
        answers,
        Deadline(MEMBER_SECONDS, f"{name}: its etcd member and API"),
        got=lambda: seen,
        remedy=f"kubectl -n kube-system logs etcd-{name}, and kube-apiserver-{name}",
    )


def remove_member(kube: Kube, name: str) -> None:
    """Take a member out of etcd by its name; one that is not there is as good as removed.

    Raises:
        CommandError: etcd refused.
    """
    for member in members(kube):
        if member.name == name:
            _etcdctl(kube, "member", "remove", member.id, avoid=name, mutates=True)


def judge(ctx: Context) -> list[Check]:
    """Return whether each control plane has an etcd member that answers, and nobody else has."""
    try:
        found = {member.name: member for member in members(ctx.kube())}
        problem = ""
    except KitError as error:
        found, problem = {}, error.message.splitlines()[0]
    wanted = {host.name for host in ctx.control_planes}
    checks = []
    for name in sorted(wanted | set(found)):
        member = found.get(name)
        if name not in wanted:
            got, well = "a member that is no control plane of the parameters", False
        elif member is None:
            got, well = problem or "no member", False
        else:
            got, well = "answers" if member.healthy else "does not answer", member.healthy
        checks.append(
            Check.that(
                well,
                "join.etcd",
                name or CLUSTER,
                "has an etcd member that answers",
                got=got,
                expected="a member that answers",
                remedy=f"kubectl -n kube-system logs etcd-{name}; a member whose host is gone "
                "for good is taken out with etcdctl member remove",
            )
        )
    return checks


def json_of(result: CommandResult) -> dict[str, Any]:
    """Return etcdctl's answer.

    Raises:
        ParseError: It is no JSON object.
    """
    try:
        found = json.loads(result.stdout)
    except ValueError as error:
        raise ParseError(f"{result.host}: etcdctl: not JSON: {result.stdout[:200]!r}") from error
    if not isinstance(found, dict):
        raise ParseError(f"{result.host}: etcdctl: no JSON object: {result.stdout[:200]!r}")
    return found


def _etcdctl(
    kube: Kube,
    *words: str,
    avoid: str = "",
    mutates: bool = False,
    statuses: Sequence[int] = (0,),
) -> CommandResult:
    """Return what etcdctl did in the first etcd pod in which it ran.

    Raises:
        CommandError: It ran and failed, in every pod.
        ApiError: It could be run in no pod.
    """
    command = Cmd(
        (
            *("etcdctl", f"--endpoints={_LOCAL}", f"--cacert={_PKI}/ca.crt"),
            *(f"--cert={_PKI}/healthcheck-client.crt", f"--key={_PKI}/healthcheck-client.key"),
            *words,
        ),
        mutates=mutates,
    )
    failure: KitError | None = None
    pods = kube.items("/api/v1/namespaces/kube-system/pods", labelSelector="component=etcd")
    for pod in pods:
        if pod["spec"].get("nodeName") == avoid:
            continue
        try:
            result = kube.exec("kube-system", pod["metadata"]["name"], command, timeout=30)
        except KitError as error:
            failure = failure or error
            continue
        if result.exit_status in statuses:
            return result
        failure = CommandError(result.host, result.command, result.exit_status, result.tail())
    raise failure or ApiError("kube-system: no etcd pod to ask")
