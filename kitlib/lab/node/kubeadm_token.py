"""kubeadm token: create, list, delete and generate bootstrap tokens."""

from __future__ import annotations

import base64
import datetime as dt
import re

import yaml

from kitlib.lab import hostclock
from kitlib.lab.api import pki
from kitlib.lab.node import kubeadm_objects
from kitlib.lab.node.flags import Flags
from kitlib.lab.node.kubeadm_config import duration, new_token
from kitlib.lab.node.kubeadm_run import KubeadmError, Run
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["token"]

_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_HEAD = ("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")


async def token(run: Run, flags: Flags) -> int:
    """Run one of the token verbs; returns the exit status.

    Raises:
        KubeadmError: The API refused, or the arguments are wrong.
    """
    verb, *args = flags.rest[1:] or ("",)
    await run.host.sleep(0.25)
    if verb == "generate":
        await run.out(new_token())
        return 0
    if verb not in ("create", "list", "delete"):
        raise KubeadmError(f'unknown command "{verb}" for "kubeadm token"')
    api = run.admin()
    try:
        if verb == "create":
            await _create(run, flags, api, args)
        elif verb == "list":
            await _list(run, api)
        else:
            await _delete(run, api, args)
    except ApiUnreachable as failed:
        raise KubeadmError(f"failed to list bootstrap tokens: {failed}") from failed
    except ApiRefused as refused:
        raise KubeadmError(refused.message) from refused
    finally:
        await api.close()
    return 0


async def _create(run: Run, flags: Flags, api: ApiClient, args: list[str]) -> None:
    wanted = args[0] if args else new_token()
    if not re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", wanted):
        raise KubeadmError(
            f'the bootstrap token "{wanted}" was not of the form "\\\\A([a-z0-9]{{6}})\\\\.'
            '([a-z0-9]{16})\\\\z"'
        )
    try:
        ttl = duration(flags.get("ttl", "24h0m0s"))
    except ValueError as wrong:
        raise KubeadmError(
            f'invalid argument "{flags.get("ttl")}" for "--ttl" flag: {wrong}'
        ) from wrong
    secret = kubeadm_objects.token_secret(
        wanted,
        ttl,
        flags.get("description"),
        flags.get("groups", "system:bootstrappers:kubeadm:default-node-token"),
        flags.get("usages"),
    )
    try:
        await api.create(_SECRETS, secret)
    except ApiRefused as refused:
        if refused.status != 409:
            raise
        raise KubeadmError(
            f'a token with id "{wanted.partition(".")[0]}" already exists'
        ) from refused
    if not flags.on("print-join-command"):
        await run.out(wanted)
        return
    info = await api.get("/api/v1/namespaces/kube-public/configmaps/cluster-info")
    entry = yaml.safe_load(info["data"]["kubeconfig"])["clusters"][0]["cluster"]
    ca = base64.b64decode(entry["certificate-authority-data"]).decode()
    server = str(entry["server"]).removeprefix("https://")
    await run.out(
        f"kubeadm join {server} --token {wanted} --discovery-token-ca-cert-hash {pki.ca_hash(ca)} "
    )


async def _list(run: Run, api: ApiClient) -> None:
    found = await api.get(_SECRETS)
    rows = []
    for item in found["items"]:
        if item.get("type") != "bootstrap.kubernetes.io/token":
            continue
        data = {k: base64.b64decode(v).decode() for k, v in (item.get("data") or {}).items()}
        expires = data.get("expiration", "")
        usages = sorted(
            key.removeprefix("usage-bootstrap-")
            for key, value in data.items()
            if key.startswith("usage-bootstrap-") and value == "true"
        )
        rows.append(
            (
                f"{data['token-id']}.{data['token-secret']}",
                _left(expires),
                expires or "<never>",
                ",".join(usages) or "<none>",
                data.get("description") or "<none>",
                data.get("auth-extra-groups") or "<none>",
            )
        )
    if not rows:
        return
    wide = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    for row in (_HEAD, *sorted(rows)):
        cells = [cell.ljust(width) for cell, width in zip(row, wide, strict=True)]
        await run.out("   ".join(cells).rstrip())


async def _delete(run: Run, api: ApiClient, args: list[str]) -> None:
    if not args:
        raise KubeadmError(
            "missing subcommand; 'token delete' is missing token of form [a-z0-9]{6}.[a-z0-9]{16}"
        )
    for given in args:
        token_id = given.partition(".")[0]
        try:
            await api.delete(f"{_SECRETS}/bootstrap-token-{token_id}")
        except ApiRefused as refused:
            raise KubeadmError(
                f'failed to delete bootstrap token "{token_id}": {refused.message}'
            ) from refused
        await run.out(f'bootstrap token "{token_id}" deleted')


def _left(expires: str) -> str:
    """Return how long a token still lives, the way kubectl shows durations."""
    if not expires:
        return "<forever>"
    end = dt.datetime.fromisoformat(expires.replace("Z", "+00:00"))
    seconds = int((end - hostclock.utc()).total_seconds())
    if seconds < 0:
        return "<invalid>"
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    return f"{seconds // 3600}h" if seconds < 48 * 3600 else f"{seconds // 86400}d"
