"""What lets hosts into a cluster for half an hour, and its check from the host that is to join.

kubeadm asks for the cluster's public `cluster-info` until its time is up and says nothing
meanwhile, whether the address is wrong, a firewall is between, or the token has expired. The same
question asked here first names the reason within seconds.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
import string
import time
from collections.abc import Callable
from typing import Any

import yaml

from kitlib.command import Cmd, Secret
from kitlib.errors import CommandError, ParseError, PreconditionError
from kitlib.facts.certificate import ca_hash
from kitlib.kube import Kube
from kitlib.model import CommandResult
from kitlib.stages.configuration import Invitation

__all__ = [
    "CLUSTER_INFO",
    "TOKEN_SECONDS",
    "check_invitation",
    "cluster_info_command",
    "create_token",
    "delete_token",
    "new_certificate_key",
    "new_token",
]

TOKEN_SECONDS = 30 * 60
"""A token's life: longer than any join waits, gone the same day; it is deleted after the joins."""
SIGNATURE_PATIENCE = 90
"""Seconds until the cluster must have signed for a new token: 18 to 24 s were seen right after
init on a busy machine."""
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_OURS = ("cluster-network-kit/token", "joins")
"""The label, key and value, of the tokens that the kit makes."""
_GROUP = "system:bootstrappers:kubeadm:default-node-token"
_ALPHABET = string.ascii_lowercase + string.digits
_REACHED = (
    (
        r"connection refused|connection to the server .* was refused",
        "nothing listens there",
        "is the control plane up (kit stage init)? does control_plane_endpoint lead to it?",
    ),
    (
        r"no such host|server misbehaving|name resolution",
        "the name does not resolve on this host",
        "give the name to this host's DNS or /etc/hosts, or an address as control_plane_endpoint",
    ),
    (
        r"no route to host|network is unreachable|i/o timeout|deadline exceeded|[Tt]imeout",
        "no answer",
        "a firewall, a route or the load balancer is between this host and the API",
    ),
    (
        r"Unauthorized|[Ff]orbidden|must be logged in",
        "the API does not show cluster-info to hosts that are not in the cluster yet",
        "joining by token needs anonymous access to the ConfigMap kube-public/cluster-info",
    ),
    (
        r"\(NotFound\)",
        "the cluster has no ConfigMap kube-public/cluster-info",
        "kubeadm init phase bootstrap-token on the control plane makes it anew",
    ),
)
"""What the question's failure means: pattern, cause, remedy."""


def new_token() -> Secret:
    """Return a new bootstrap token, `<6 characters>.<16 characters>`."""
    return Secret(f"{_random(6)}.{_random(16)}")


def new_certificate_key() -> Secret:
    """Return a new key for the certificates that control planes share: 32 bytes in hexadecimal."""
    return Secret(secrets.token_hex(32))


def create_token(kube: Kube, token: Secret, now: float) -> None:
    """Put a token into the cluster, as `kubeadm token create` does, but on no command line.

    One that a killed run left is taken out: nobody joins with it any more, as runs go one by one.

    Args:
        kube: The cluster's API.
        token: The token.
        now: The control plane's own time (seconds since the epoch): its clock judges expiry.
    """
    token_id, secret = token.value.split(".")
    for left in kube.items(_SECRETS, labelSelector="=".join(_OURS)):
        kube.delete(f"{_SECRETS}/{left['metadata']['name']}")
    ends = dt.datetime.fromtimestamp(now + TOKEN_SECONDS, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kube.create(
        _SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "bootstrap.kubernetes.io/token",
            "metadata": {
                "name": f"bootstrap-token-{token_id}",
                "namespace": "kube-system",
                "labels": dict([_OURS]),
            },
            "stringData": {
                "token-id": token_id,
                "token-secret": secret,
                "expiration": ends,
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": _GROUP,
                "description": "cluster network kit: joins under way",
            },
        },
    )


def delete_token(kube: Kube, token: Secret) -> None:
    """Take a token out of the cluster; one that has expired is gone already."""
    kube.delete(_secret_path(token))


def cluster_info_command(endpoint: str) -> Cmd:
    """Return the question that `kubeadm join` begins with, asked by kubectl as a stranger."""
    return Cmd.of(
        "kubectl",
        "--kubeconfig=/dev/null",
        f"--server=https://{endpoint}",
        "--insecure-skip-tls-verify",  # as kubeadm does: the token and the CA hash are the proof
        "--username=anonymous",  # else kubectl asks for one; no API server takes a password
        "--request-timeout=5s",
        "get",
        f"--raw={CLUSTER_INFO}",  # a plain `get` asks first what is served; strangers may not
        timeout=30,
    )


def check_invitation(
    host: str,
    invitation: Invitation,
    ask: Callable[[Cmd], CommandResult],
    kube: Callable[[], Kube],
    *,
    patience: float = SIGNATURE_PATIENCE,
    every: float = 1.0,
    waiting: Callable[[str], None] = lambda _: None,
) -> None:
    """Return when a host can join: the API answers it, vouches for the token, and is the right one.

    Args:
        host: The host that is to join.
        invitation: What it would join with.
        ask: Runs a reading command on that host.
        kube: Returns the cluster's API, to see whether the token still lives.
        patience: Seconds until the cluster must have signed for the token.
        every: Seconds between two questions.
        waiting: Told what is waited for.

    Raises:
        PreconditionError: It cannot; the message names the cause, and what to do.
        CommandError: kubectl does not run on the host.
    """
    token_id, secret = invitation.token.value.split(".")
    began = time.monotonic()
    while True:
        data = _cluster_info(host, invitation.endpoint, ask)
        config = str(data.get("kubeconfig", ""))
        found = _ca_of(host, invitation.endpoint, config)
        if found != invitation.ca_hash:
            raise PreconditionError(
                f"{host}: the cluster at {invitation.endpoint} has the CA {found}, the control "
                f"plane has {invitation.ca_hash}: it is another cluster",
                remedy="control_plane_endpoint, a name or a route leads this host to another "
                "cluster; or cluster-info was changed by hand. Look before anything joins",
            )
        signature = data.get(f"jws-kubeconfig-{token_id}")
        if signature:
            if not _signed(str(signature), config, secret):
                raise PreconditionError(
                    f"{host}: the signature of cluster-info at {invitation.endpoint} is not by "
                    "this token",
                    remedy="something between this host and the API changes what it says",
                )
            return
        if kube().find(_secret_path(invitation.token)) is None:
            raise PreconditionError(
                f"{host}: the token has expired: the cluster took it back as soon as it was made",
                remedy="compare the clocks of the control planes (date); a token lives "
                f"{TOKEN_SECONDS // 60} minutes by the clock of the API server's host",
            )
        if time.monotonic() - began + every > patience:
            raise PreconditionError(
                f"{host}: the cluster has not signed cluster-info for the token within "
                f"{patience:g} s",
                remedy="the controller manager signs: kubectl -n kube-system get pods, and the "
                "log of kube-controller-manager",
            )
        waiting("for the cluster to sign for the new token")
        time.sleep(every)


def _cluster_info(host: str, endpoint: str, ask: Callable[[Cmd], CommandResult]) -> dict[str, Any]:
    command = cluster_info_command(endpoint)
    result = ask(command)
    if not result.ok:
        text = f"{result.stderr}{result.stdout}"
        for pattern, cause, remedy in _REACHED:
            if re.search(pattern, text):
                last = (text.strip().splitlines() or [""])[-1]
                raise PreconditionError(
                    f"{host}: the API at {endpoint}: {cause} ({last})", remedy=remedy
                )
        raise CommandError(host, str(command), result.exit_status, result.tail())
    try:
        found: dict[str, Any] = json.loads(result.stdout)["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParseError(f"{host}: cluster-info at {endpoint}: not as kubeadm writes it") from error
    return found


def _ca_of(host: str, endpoint: str, config: str) -> str:
    try:
        encoded = yaml.safe_load(config)["clusters"][0]["cluster"]["certificate-authority-data"]
        return ca_hash(base64.b64decode(encoded).decode())
    except (yaml.YAMLError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ParseError(f"{host}: cluster-info at {endpoint}: no CA certificate in it") from error


def _signed(signature: str, config: str, secret: str) -> bool:
    """Return whether a detached JWS (HS256, as kubeadm verifies it) fits the content."""
    head, _, tail = signature.partition("..")
    payload = base64.urlsafe_b64encode(config.encode()).rstrip(b"=")
    wanted = hmac.new(secret.encode(), head.encode() + b"." + payload, hashlib.sha256).digest()
    try:
        given = base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(wanted, given)


def _secret_path(token: Secret) -> str:
    return f"{_SECRETS}/bootstrap-token-{token.value.partition('.')[0]}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
