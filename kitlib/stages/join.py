"""Stage 6: `kubeadm join --token` on every worker, side by side, with a short-lived token."""

from __future__ import annotations

import secrets
import string

from kitlib.command import Cmd, Secret
from kitlib.model import CLUSTER, Check
from kitlib.params import Params
from kitlib.software.proxy import environment
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.broken_off import stop_where_broken_off
from kitlib.stages.init import KUBECONFIG, api_address

__all__ = ["Join"]

TOKEN_LIFE = "30m"  # noqa: S105 - a duration: longer than any join waits, gone the same day
_ALPHABET = string.ascii_lowercase + string.digits


class Join(Stage):
    """The workers in the cluster."""

    name = "join"
    title = "Join the workers"
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return a token, a join for each worker that is not in the cluster, the token's end."""
        facts = ctx.facts()
        main = ctx.control_plane
        missing = [host.name for host in ctx.workers if not facts[host.name].kubeadm.joined]
        if not missing:
            return Plan(reason="every worker is in the cluster")
        stop_where_broken_off(ctx, missing, self.name)
        address = f"{api_address(main, facts[main.name])}:6443"
        token_id, token_secret = _random(6), _random(16)
        token = Secret(f"{token_id}.{token_secret}")
        ca_hash = facts[main.name].kubeadm.ca_hash

        def join(name: str) -> Action:
            def do(hands: Hands) -> None:
                # Before init there is no CA to know: its hash is read when the join is done.
                known = ca_hash or ctx.facts()[main.name].kubeadm.ca_hash
                hands.run(name, _join(ctx.params, address, token, known, name))

            shown = _join(ctx.params, address, token, ca_hash or "<after init>", name)
            return Action(name, f"join the cluster at {address}", shown, do=do)

        create = Cmd.change(
            "kubeadm", "token", "create", token, "--ttl", TOKEN_LIFE, env=KUBECONFIG
        )
        delete = Cmd.change("kubeadm", "token", "delete", token_id, env=KUBECONFIG)
        first = Action(
            CLUSTER,
            f"create a token for {len(missing)} join(s), valid for {TOKEN_LIFE}",
            create,
            do=lambda hands: _run_on(hands, main.name, create),
        )
        last = Action(
            CLUSTER,
            "delete the token",
            delete,
            do=lambda hands: _run_on(hands, main.name, delete),
        )
        return Plan((first, *map(join, missing)), cleanup=(last,))

    def check(self, ctx: Context) -> list[Check]:
        """Return for each worker whether it is in this cluster and the cluster knows its Node."""
        nodes = {node["metadata"]["name"] for node in ctx.kube().items("/api/v1/nodes")}
        facts = ctx.facts()
        wanted = facts[ctx.control_plane.name].kubeadm.ca_hash
        checks = []
        for host in ctx.workers:
            here = facts[host.name].kubeadm
            inside = here.joined and here.ca_hash == wanted and host.name in nodes
            got = f"in {here.ca_hash or 'no cluster'}"
            got += "" if host.name in nodes else "; the cluster has no Node of it"
            checks.append(
                Check.that(
                    inside,
                    "join.member",
                    host.name,
                    "is a worker of the cluster",
                    got="joined" if inside else got,
                    expected=f"a Node in {wanted}",
                    remedy="run the reset stage, then join again",
                )
            )
        return checks


def _join(params: Params, address: str, token: Secret, ca_hash: str, name: str) -> Cmd:
    return Cmd.change(
        "kubeadm",
        "join",
        address,
        "--token",
        token,
        "--discovery-token-ca-cert-hash",
        ca_hash,
        "--node-name",
        name,
        env=environment(params),
        timeout=params.timeouts.join,
    )


def _run_on(hands: Hands, host: str, cmd: Cmd) -> None:
    hands.run(host, cmd)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
