"""What a user must be allowed to do to diagnose a cluster: one list, asked of the API beforehand.

All that is missing is told at once, before anything is made, with the role that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from kitlib.errors import ApiError, PreconditionError
from kitlib.fanout import fan_out
from kitlib.kube import Kube

__all__ = ["ROLE", "Right", "cluster_role", "missing_rights", "need_rights"]

ROLE = "kit-diagnose"
"""The name of the ClusterRole with these rights."""
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """Something that may be done with one kind of objects.

    Attributes:
        resource: The kind as RBAC names it, a subresource behind a slash: `pods/exec`.
        verbs: What is done.
        why: What for.
        group: The API group; empty for the core's.
        optional: True where less is known without it, and everything else works.
        names: The objects' names, where it is about these alone.
    """

    resource: str
    verbs: tuple[str, ...]
    why: str
    group: str = ""
    optional: bool = False
    names: tuple[str, ...] = ()


RIGHTS = (
    Right("nodes", ("get", "list", "watch"), "which nodes there are, and since when Ready"),
    Right("pods", ("get", "list", "watch"), "which pods run, and the agents' addresses"),
    Right("events", ("list", "watch"), "what the nodes waited for"),
    Right(
        "namespaces", ("get", "list", "create", "update", "delete"), "a namespace for the agents"
    ),
    Right("serviceaccounts", ("get",), "whether that namespace is ready for pods"),
    Right("daemonsets", ("create",), "an agent on every node", "apps"),
    Right("services", ("get", "create"), "a Service in front of the agents"),
    Right("pods/exec", ("get", "create"), "commands in the agents"),
    Right(
        "networkpolicies",
        ("get", "list", "create", "delete"),
        "whether NetworkPolicy holds",
        "networking.k8s.io",
        optional=True,
    ),
    Right("services", ("list",), "which Service is the cluster's DNS", optional=True),
    Right("daemonsets", ("get", "list"), "which network plugin it is", "apps", optional=True),
    Right("deployments", ("list",), "which network plugin it is", "apps", optional=True),
    Right("statefulsets", ("list",), "which network plugin it is", "apps", optional=True),
    Right("replicasets", ("list",), "which network plugin it is", "apps", optional=True),
    Right(
        "certificatesigningrequests",
        ("list", "watch"),
        "when nodes got their certificates",
        "certificates.k8s.io",
        optional=True,
    ),
    Right(
        "configmaps",
        ("get",),
        "the address ranges, and how the plugin carries packets",
        optional=True,
        names=("kubeadm-config", "kube-flannel-cfg", "cilium-config", "contiv-config"),
    ),
)


def missing_rights(kube: Kube, rights: Iterable[Right] = RIGHTS) -> list[tuple[str, Right]]:
    """Return what this user may not do, as (verb, right); asked of the API itself.

    An API that does not tell is taken at its word later on.

    Raises:
        ApiError: It does not answer.
    """
    asked = [(verb, right) for right in rights for verb in right.verbs]
    told = fan_out(lambda one: _may(kube, *one), asked).raise_first()
    return [one for one in asked if not told[one]]


def need_rights(kube: Kube, user: str) -> None:
    """Return where this user may do all that diagnosing takes.

    Args:
        kube: The API, asked as that user.
        user: The user's name in the kubeconfig, for the message.

    Raises:
        PreconditionError: Something is missing; all of it is named.
    """
    lacking = missing_rights(kube, [right for right in RIGHTS if not right.optional])
    if not lacking:
        return
    lines = []
    for right in dict.fromkeys(right for _, right in lacking):
        verbs = [verb for verb, of in lacking if of is right]
        kind = f"{right.resource}.{right.group}" if right.group else right.resource
        lines.append(f"  {', '.join(verbs)} {kind}: {right.why}")
    count = len(lacking)
    raise PreconditionError(
        f"{kube.server}: user {user!r} lacks {count} right{'' if count == 1 else 's'} "
        "that diagnosing takes, in all namespaces:\n" + "\n".join(lines),
        remedy=f"an administrator gives them: kit diagnose --rights | kubectl apply -f - ; "
        f"kubectl create clusterrolebinding {ROLE} --clusterrole={ROLE} --user=NAME "
        "(NAME as kubectl auth whoami prints it)",
    )


def cluster_role() -> str:
    """Return the ClusterRole with exactly these rights, as YAML."""
    rules = []
    for right in RIGHTS:
        rule: dict[str, Sequence[str]] = {
            "apiGroups": [right.group],
            "resources": [right.resource],
            "verbs": list(right.verbs),
        }
        if right.names:
            rule["resourceNames"] = list(right.names)
        rules.append(rule)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": ROLE},
        "rules": rules,
    }
    return yaml.safe_dump(role, sort_keys=False, default_flow_style=None)


def _may(kube: Kube, verb: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "verb": verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = kube.create(_REVIEWS, review)
    except ApiError as error:
        if error.status in (403, 404):
            return True
        raise
    return bool(answer.get("status", {}).get("allowed"))
