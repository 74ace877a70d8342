"""Stage 6: `kubeadm join`: further control planes one after another, then the workers side by side.

Before kubeadm starts on a host, the kit asks there what kubeadm would ask (see `invitation`), so
that a wrong address, an expired token or a wrong CA is named within seconds. A worker that fails
is told, and the others go on; a control plane that fails stops what comes after it, because etcd
must not be grown while one of its members is in trouble.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from kitlib.command import Cmd, Secret
from kitlib.errors import CommandError, KitError
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.kube import Obj
from kitlib.model import CLUSTER, Check, failed
from kitlib.software.proxy import environment
from kitlib.stages import etcd, way_back
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.broken_off import stop_where_broken_off
from kitlib.stages.configuration import (
    API_PORT,
    KIT_DIRECTORY,
    Invitation,
    api_address,
    api_endpoint,
    join_configuration,
    upload_configuration,
)
from kitlib.stages.invitation import (
    TOKEN_SECONDS,
    check_invitation,
    create_token,
    delete_token,
    new_certificate_key,
    new_token,
)
from kitlib.stages.marks import mark, node_marks

__all__ = ["Join"]

CONFIG = f"{KIT_DIRECTORY}/join.yaml"
UPLOAD = f"{KIT_DIRECTORY}/upload-certs.yaml"
_CERTIFICATES = "/api/v1/namespaces/kube-system/secrets/kubeadm-certs"


class Join(Stage):
    """The other control planes and the workers in the cluster."""

    name = "join"
    title = "Join the other hosts"
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return a token, a join for each host that is not in the cluster, the token's end.

        Hosts that are in the cluster get the labels and taints that their Nodes lack.
        """
        facts = ctx.facts()
        main = ctx.administrator
        others = [host for host in ctx.hosts if host != main]
        missing = [host for host in others if not facts[host.name].kubeadm.joined]
        nodes = _nodes(ctx)
        marks = [
            action
            for host in ctx.hosts
            if host not in missing
            for action in mark(ctx, host, nodes.get(host.name))
        ]
        if not missing:
            done = "every host is in the cluster"
            return Plan(tuple(marks), "" if marks else f"{done}, labels and taints as wanted")
        stop_where_broken_off(ctx, [host.name for host in missing], self.name)
        token = new_token()
        planes = [host for host in missing if host.is_control_plane]
        key = new_certificate_key() if planes else None
        actions = [_create(main, token, len(missing))]
        if key is not None:
            actions.append(_upload(ctx, main, facts[main.name], key))
        actions += way_back.arms(ctx, [host.name for host in missing])
        for host in missing:
            actions += [_join(ctx, main, host, facts, token, key), *mark(ctx, host, None)]
        cleanup = [
            Action(CLUSTER, "delete the token", do=lambda hands: delete_token(hands.kube(), token))
        ]
        if key is not None:
            cleanup.append(Action(CLUSTER, "delete the shared certificates", do=_withdraw))
        return Plan((*actions, *marks), cleanup=tuple(cleanup))

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:
        """Return the cluster, each control plane by itself, then the workers side by side."""
        planes = {host.name for host in ctx.control_planes}
        workers = [name for name in targets if name != CLUSTER and name not in planes]
        return [[CLUSTER], *([name] for name in targets if name in planes), workers]

    def apply(self, ctx: Context, plan: Plan) -> None:
        """Do the plan; where some hosts failed, judge and record those that did not.

        Raises:
            KitError: The first failure; it says which hosts joined all the same.
        """
        try:
            super().apply(ctx, plan)
        except KitError as error:
            with contextlib.suppress(KitError):
                checks = [c for c in self.check(ctx) if c.target not in ctx.failures]
                ctx.record(checks)
                well = {c.target for c in checks if c.id == "join.member"}
                well -= {c.target for c in failed(checks)}
                planned = [action.target for action in plan.actions]
                joined = [host.name for host in ctx.hosts if host.name in well & {*planned}]
                if joined:
                    error.message += f"\n  joined all the same: {', '.join(joined)}"
            raise

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host whether it is in this cluster, in its role, with a Node."""
        nodes = _nodes(ctx)
        facts = ctx.facts()
        main = ctx.administrator
        wanted = facts[main.name].kubeadm.ca_hash
        checks = []
        for host in ctx.hosts:
            here, role = facts[host.name].kubeadm, host.role.value.replace("_", " ")
            node = nodes.get(host.name)
            inside = here.joined and here.ca_hash == wanted and node is not None
            got = f"in {here.ca_hash or 'no cluster'}"
            got += "" if node is not None else "; the cluster has no Node of it"
            if inside and here.initialised != host.is_control_plane:
                inside, got = False, f"joined in another role than {role}"
            if host != main:
                checks.append(
                    Check.that(
                        inside,
                        "join.member",
                        host.name,
                        f"is a {role} of the cluster",
                        got="joined" if inside else got,
                        expected=f"a Node in {wanted}",
                        remedy="run the reset stage, then join again",
                    )
                )
            checks += node_marks(host, node, ctx.plugin)
        if len(ctx.control_planes) > 1:
            checks += etcd.judge(ctx)
        return checks


def _nodes(ctx: Context) -> dict[str, Obj]:
    """Return the cluster's Nodes by name; none before there is a cluster (a dry run's plan)."""
    if not ctx.facts()[ctx.administrator.name].kubeadm.initialised:
        return {}
    return {node["metadata"]["name"]: node for node in ctx.kube().items("/api/v1/nodes")}


def _create(main: Host, token: Secret, joins: int) -> Action:
    def do(hands: Hands) -> None:
        hands.journal.forget(token.value, token.value.partition(".")[2])
        now = hands.run(main.name, Cmd.of("date", "-u", "+%s")).stdout
        create_token(hands.kube(), token, float(now))

    what = f"create a token for {joins} join(s), valid for {TOKEN_SECONDS // 60} minutes"
    return Action(CLUSTER, what, do=do)


def _upload(ctx: Context, main: Host, here: HostFacts, key: Secret) -> Action:
    command = Cmd.change(
        *("kubeadm", "init", "phase", "upload-certs", "--upload-certs"),
        *("--skip-certificate-key-print", "--config", UPLOAD),
    )

    def do(hands: Hands) -> None:
        hands.journal.forget(key.value)
        _with_secret_file(
            hands, main.name, UPLOAD, upload_configuration(ctx.params, main, here, key), command
        )

    what = "share the control plane's certificates, encrypted, for two hours at most"
    return Action(CLUSTER, what, command, do=do)


def _withdraw(hands: Hands) -> None:
    """Take the shared certificates out of the cluster, and the token that bounds their life."""
    kube = hands.kube()
    found = kube.find(_CERTIFICATES)
    if found is None:
        return
    kube.delete(_CERTIFICATES)
    for owner in found["metadata"].get("ownerReferences") or []:
        kube.delete(f"/api/v1/namespaces/kube-system/secrets/{owner['name']}")


def _join(
    ctx: Context,
    main: Host,
    host: Host,
    facts: Mapping[str, HostFacts],
    token: Secret,
    key: Secret | None,
) -> Action:
    """Return the join of one host.

    It goes by the plan's own facts: no join changes what another one needs to know (addresses, the
    cluster's CA, versions), and reading them anew for each would cost the square of the hosts.
    """
    command = Cmd.change(
        *("kubeadm", "join", "--config", CONFIG),
        env=environment(ctx.params),
        timeout=ctx.params.timeouts.join,
    )
    plane = host.is_control_plane

    def do(hands: Hands) -> None:
        endpoint = api_endpoint(ctx.params, facts)
        invitation = Invitation(
            endpoint, token, facts[main.name].kubeadm.ca_hash, key if plane else None
        )
        check_invitation(
            host.name,
            invitation,
            lambda cmd: ctx.read(host.name, cmd),
            hands.kube,
            waiting=lambda text: ctx.waiting(host.name, text),
        )
        if plane:
            etcd.check_growth(ctx, host.name)
        content = join_configuration(ctx.params, host, facts[host.name], invitation)
        hands.journal.keep(f"join-{host.name}.yaml", content)
        try:
            _with_secret_file(hands, host.name, CONFIG, content, command)
        except CommandError as error:
            if error.exit_status is None and not error.remedy:
                error.remedy = "its kubelet says why: journalctl -u kubelet on that host"
            raise
        if plane:
            address = api_address(host, facts[host.name])
            etcd.wait_for_member(ctx, host.name, f"{address}:{API_PORT}")

    role = "control plane" if plane else "worker"
    where = ctx.params.control_plane_endpoint or f"of {main.name}"
    return Action(host.name, f"join the cluster {where} as a {role}", command, do=do)


def _with_secret_file(hands: Hands, host: str, path: str, content: str, command: Cmd) -> None:
    """Run a command that reads a file with secrets, which only root can read and nothing keeps."""
    hands.run(host, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
    remove = Cmd.change("rm", "-f", path, f"{path}.new")
    try:
        hands.put(host, content, path, mode=0o600)
        hands.run(host, command)
    except BaseException:
        with contextlib.suppress(KitError):  # must not hide what went wrong before it
            hands.run(host, remove)
        raise
    hands.run(host, remove)
