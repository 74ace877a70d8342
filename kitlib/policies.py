"""Whether NetworkPolicies are honoured: without one, with one that denies, with one that allows.

They live in the agents' own namespace and select only agents, and go with it. Who is denied is
decided on the node of who is asked, so each node is asked by two others and not by all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kitlib.fanout import fan_out
from kitlib.kube import Obj
from kitlib.model import CLUSTER
from kitlib.probing import Prober
from kitlib.retry import Deadline
from kitlib.stages.agent_objects import LABELS
from kitlib.stages.agents import Agents
from kitlib.stages.base import Action, Context
from kitlib.turns import Row

__all__ = ["try_policies"]

SETTLE_SECONDS = 15.0
"""So long a plugin may take until a policy is in force."""
AGAIN_SECONDS = 1.0
_STEPS = (("open", True), ("deny", False), ("allow", True))
_SENDERS = 2


Note = Callable[[Mapping[str, Exception]], None]
"""Takes node -> why its agent could not be asked; raises where nothing can be asked any more."""


def try_policies(
    ctx: Context, agents: Agents, prober: Prober, nodes: Sequence[str], note: Note
) -> list[Row]:
    """Return who connected to whom in each step; the policies are gone again.

    Args:
        ctx: The run's context, through which the policies are made and removed.
        agents: The agents.
        prober: Asks them.
        nodes: The nodes that connect to each other; of those that turn out to take no commands
            there are no rows as sources from then on.
        note: Told which these are.

    Raises:
        ApiError: The API does not take the policies.
    """
    targets = {
        node: [
            nodes[(place + step) % len(nodes)]
            for step in range(1, min(_SENDERS, len(nodes) - 1) + 1)
        ]
        for place, node in enumerate(nodes)
    }
    path = f"/apis/networking.k8s.io/v1/namespaces/{agents.wanted.namespace}/networkpolicies"
    rows: list[Row] = []
    made: list[str] = []
    try:
        for step, expected in _STEPS:
            if step != "open":
                _create(ctx, path, _policy(step, agents.port))
                made.append(f"kit-{step}")
            rows += _settled(prober, targets, step, note, expected=expected)
    except KeyboardInterrupt:
        made.clear()  # they go with the namespace; an API that is away would be waited for here
        raise
    finally:
        for name in made:
            _remove(ctx, path, name)
    return rows


def _settled(
    prober: Prober, targets: dict[str, list[str]], step: str, note: Note, *, expected: bool
) -> list[Row]:
    """Return the rows of a step once all is as expected, or when it had its time to become so."""
    deadline = Deadline(SETTLE_SECONDS, "policies in force")
    left = dict(targets)
    final: dict[tuple[str, str], str] = {}
    started = time.time()
    while True:
        done = fan_out(partial(_tried, prober, left), left)
        for node in done.errors:
            del targets[node]
        note(done.errors)
        asked = done.values
        final |= {(node, to): why for node, found in asked.items() for to, why in found.items()}
        final = {(node, to): why for (node, to), why in final.items() if node in targets}
        wrong = [pair for pair, why in final.items() if (why == "") != expected]
        if not wrong or step == "open" or deadline.left < AGAIN_SECONDS:
            break
        left = {node: [to for src, to in wrong if src == node] for node in {n for n, _ in wrong}}
        deadline.sleep(AGAIN_SECONDS)
    return [
        {
            "probe": "policy", "round": prober.numbers["policy"], "src": src, "dst": dst,
            "step": step, "expected": expected, "reached": why == "", "reason": why, "t": started,
        }
        for (src, dst), why in sorted(final.items())
    ]  # fmt: skip


def _tried(prober: Prober, targets: Mapping[str, Sequence[str]], node: str) -> dict[str, str]:
    return prober.connects(node, {name: prober.pods[name] for name in targets[node]})


def _policy(step: str, port: int) -> Obj:
    """Return a policy on the agents' pods: `deny` lets nothing in, `allow` the other agents."""
    pods = {"matchLabels": {**LABELS, "kit/path": "pod"}}
    spec: Obj = {"podSelector": pods, "policyTypes": ["Ingress"]}
    if step == "allow":
        ports = [{"port": port, "protocol": "TCP"}]
        spec["ingress"] = [{"from": [{"podSelector": pods}], "ports": ports}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"kit-{step}", "labels": LABELS},
        "spec": spec,
    }


def _create(ctx: Context, path: str, policy: Obj) -> None:
    name = policy["metadata"]["name"]
    what = f"create NetworkPolicy {name}, which selects the agents alone"
    ctx.perform(Action(CLUSTER, what, do=lambda hands: hands.kube().create(path, policy)))


def _remove(ctx: Context, path: str, name: str) -> None:
    what = f"remove NetworkPolicy {name}"
    ctx.perform(Action(CLUSTER, what, do=lambda hands: hands.kube().delete(f"{path}/{name}")))
