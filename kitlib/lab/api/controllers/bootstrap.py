"""What joining needs: signed cluster-info, expiring tokens, approved and signed certificates."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from kitlib.lab.api import clock, pki
from kitlib.lab.api.auth import BOOTSTRAPPERS, NODES_GROUP, decode, token_expired
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.registry import CONFIG_MAPS, CSRS, SECRETS
from kitlib.lab.api.store import Event, Obj

TOKEN_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105
_PREFIX = "jws-kubeconfig-"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_SIGNERS = {
    KUBELET_CLIENT: (False, True),
    "kubernetes.io/kube-apiserver-client": (False, True),
    "kubernetes.io/kubelet-serving": (True, False),
}


class BootstrapSigner(Controller):
    """Signs kube-public/cluster-info with every token that may sign."""

    name = "bootstrapsigner"
    kinds = (SECRETS, CONFIG_MAPS)
    _foreign = ""

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the one key when a token or cluster-info changed."""
        meta = event.obj["metadata"]
        if event.kind == SECRETS:
            return ["sign"] if event.obj.get("type") == TOKEN_TYPE else []
        info = (meta.get("namespace"), meta["name"]) == ("kube-public", "cluster-info")
        return ["sign"] if info else []

    def sync(self, key: Any) -> float | None:  # noqa: ARG002
        """Add the signatures that are missing and take away those of tokens that are gone."""
        secrets = self.store.items(SECRETS, "kube-system")
        tokens = {
            decode(secret, "token-id"): decode(secret, "token-secret")
            for secret in secrets
            if secret.get("type") == TOKEN_TYPE
            and decode(secret, "usage-bootstrap-signing") == "true"
            and not token_expired(secret)
            and "token-expired" not in self.registry.settings.faults
        }

        def change(obj: Obj) -> None:
            data = obj.get("data") or {}
            content = self._content(data.get("kubeconfig", ""))
            kept = {name: value for name, value in data.items() if not name.startswith(_PREFIX)}
            kept |= {"kubeconfig": content} if content else {}
            for token_id, secret in tokens.items():
                kept[_PREFIX + token_id] = pki.jws_detached(content, token_id, secret)
            obj["data"] = kept

        self.registry.patch(CONFIG_MAPS, "kube-public", "cluster-info", change)
        return None

    def _content(self, text: str) -> str:
        """Return cluster-info's kubeconfig: as it is, or with another CA under that fault."""
        if not text:
            return text
        if "wrong-ca-hash" in self.registry.settings.faults:
            self._foreign = self._foreign or pki.new_ca("kubernetes").cert_pem
            wanted = self._foreign
        elif self._foreign:
            wanted = self.registry.settings.ca_pem
        else:
            return text
        config = yaml.safe_load(text)
        encoded = base64.b64encode(wanted.encode()).decode()
        config["clusters"][0]["cluster"]["certificate-authority-data"] = encoded
        return str(yaml.safe_dump(config, default_flow_style=False, width=100_000))


class TokenCleaner(Controller):
    """Deletes bootstrap tokens when they expire."""

    name = "tokencleaner"
    kinds = (SECRETS,)

    def sync(self, key: Any) -> float | None:
        """Delete one token, or return when to look again."""
        secret = self.store.get(SECRETS, *key)
        if secret is None or secret.get("type") != TOKEN_TYPE:
            return None
        when = clock.parse(decode(secret, "expiration"))
        if when is None:
            return None
        left = (when - clock.now()).total_seconds()
        if left > 0 and "token-expired" not in self.registry.settings.faults:
            return left + 0.01
        self.registry.remove(SECRETS, *key)
        return None


class Certificates(Controller):
    """Approves the requests of joining kubelets and signs what is approved."""

    name = "certificate-controller"
    kinds = (CSRS,)

    def sync(self, key: Any) -> float | None:
        """Approve and sign one request."""
        csr = self.store.get(CSRS, *key)
        if csr is None or (csr.get("status") or {}).get("certificate"):
            return None
        types = {entry["type"] for entry in (csr.get("status") or {}).get("conditions") or []}
        if types & {"Denied", "Failed"}:
            return None
        request = base64.b64decode(csr["spec"]["request"]).decode()
        signer = csr["spec"].get("signerName", KUBELET_CLIENT)
        if "Approved" not in types:
            reason = _automatic(csr["spec"], signer, request)
            if not reason:
                return None
            self._condition(key, "Approved", "AutoApproved", reason)
        if signer in _SIGNERS:
            self._sign(key, request, signer)
        return None

    def _condition(self, key: tuple[str, str], type_: str, reason: str, message: str) -> None:
        when = clock.stamp()

        def change(obj: Obj) -> None:
            entry = {"type": type_, "status": "True", "reason": reason, "message": message}
            entry.update({"lastUpdateTime": when, "lastTransitionTime": when})
            obj.setdefault("status", {}).setdefault("conditions", []).append(entry)

        self.registry.patch(CSRS, *key, change)

    def _sign(self, key: tuple[str, str], request: str, signer: str) -> None:
        settings = self.registry.settings
        authority = pki.KeyPair(settings.ca_pem, settings.ca_key_pem)
        server, client = _SIGNERS[signer]
        try:
            certificate = pki.sign_csr(authority, request, server=server, client=client)
        except ValueError as failure:
            self._condition(key, "Failed", "SignerValidationFailure", str(failure))
            return

        def change(obj: Obj) -> None:
            encoded = base64.b64encode(certificate.encode()).decode()
            obj.setdefault("status", {})["certificate"] = encoded

        self.registry.patch(CSRS, *key, change)


def _automatic(spec: Obj, signer: str, request: str) -> str:
    """Return the approval's text when a request is approved without a person; else nothing."""
    if signer != KUBELET_CLIENT:
        return ""
    try:
        name, orgs = pki.csr_subject(request)
    except ValueError:
        return ""
    if not name.startswith("system:node:") or orgs != (NODES_GROUP,):
        return ""
    groups = spec.get("groups") or []
    if spec.get("username") == name and NODES_GROUP in groups:
        return "Auto approving self kubelet client certificate after SubjectAccessReview."
    if BOOTSTRAPPERS in groups:
        return "Auto approving kubelet client certificate after SubjectAccessReview."
    return ""
