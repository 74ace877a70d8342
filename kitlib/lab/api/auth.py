"""Who is asking (client certificates, bootstrap tokens, service accounts), and who may."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kitlib.lab.api import clock, errors, pki
from kitlib.lab.api.registry import SECRETS, Registry
from kitlib.lab.api.store import Obj

MASTERS, NODES_GROUP, BOOTSTRAPPERS = "system:masters", "system:nodes", "system:bootstrappers"
AUTHENTICATED = "system:authenticated"
ISSUER = "https://kubernetes.default.svc.cluster.local"
_RBAC = "rbac.authorization.k8s.io"
_READ = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated caller."""

    name: str
    groups: tuple[str, ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that somebody wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def target(self) -> str:
        """The resource as RBAC rules name it: `pods`, `pods/exec`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def from_certificate(peer: Mapping[str, Any] | None) -> User | None:
    """Return the user of a verified client certificate (as `ssl` describes it), or None."""
    if not peer:
        return None
    fields = [pair for group in peer.get("subject", ()) for pair in group]
    name = next((value for key, value in fields if key == "commonName"), "")
    orgs = tuple(value for key, value in fields if key == "organizationName")
    return User(name, (*orgs, AUTHENTICATED))


def decode(secret: Obj, key: str) -> str:
    """Return one value of a Secret as text; empty when it is missing."""
    return base64.b64decode((secret.get("data") or {}).get(key, "")).decode(errors="replace")


def token_expired(secret: Obj) -> bool:
    """Return whether a bootstrap token's Secret is past its expiration."""
    when = clock.parse(decode(secret, "expiration"))
    return when is not None and when <= clock.now()


class Auth:
    """Authentication and authorization over the stored objects."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store
        self._tokens: dict[str, tuple[float, User]] = {}

    def bearer(self, token: str) -> User:
        """Return the user of a bearer token.

        Raises:
            ApiError: 401 for a token that is unknown, expired or revoked.
        """
        user = self._account(token) if token.count(".") == 2 else self._bootstrap(token)
        if user is None:
            raise errors.unauthorized()
        return user

    def _bootstrap(self, token: str) -> User | None:
        token_id, _, value = token.partition(".")
        secret = self._store.get(SECRETS, "kube-system", f"bootstrap-token-{token_id}")
        if secret is None or secret.get("type") != "bootstrap.kubernetes.io/token":
            return None
        if decode(secret, "token-secret") != value or token_expired(secret):
            return None
        if decode(secret, "usage-bootstrap-authentication") != "true":
            return None
        extra = [group for group in decode(secret, "auth-extra-groups").split(",") if group]
        return User(f"system:bootstrap:{token_id}", (BOOTSTRAPPERS, *extra, AUTHENTICATED))

    def _account(self, token: str) -> User | None:
        known = self._tokens.get(token)
        if known is None:
            claims = pki.jwt_claims(self._registry.settings.sa_public_pem, token)
            subject = str((claims or {}).get("sub", ""))
            if claims is None or not subject.startswith("system:serviceaccount:"):
                return None
            _, _, namespace, name = subject.split(":", 3)
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
            user = User(f"system:serviceaccount:{namespace}:{name}", (*groups, AUTHENTICATED))
            known = (float(claims.get("exp", "inf")), user)
            self._tokens[token] = known
        expires, user = known
        _, _, namespace, name = user.name.split(":", 3)
        if expires < time.time() or not self._store.get("/serviceaccounts", namespace, name):
            return None
        return user

    def issue(self, namespace: str, name: str, uid: str, audiences: list[str], life: int) -> str:
        """Return a bound service account token that lives `life` seconds (0: for ever)."""
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": audiences or [ISSUER],
            "iat": int(time.time()),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
        }
        if life:
            claims["exp"] = int(time.time()) + life
        return pki.jwt_sign(self._registry.settings.sa_key_pem, claims)

    def require(self, user: User, ask: Ask) -> None:
        """Refuse what a user may not do.

        Raises:
            ApiError: 403 with the real server's text.
        """
        if self.allowed(user, ask):
            return
        if ask.path:
            text = f'forbidden: User "{user.name}" cannot {ask.verb} path "{ask.path}"'
            raise errors.ApiError(403, "Forbidden", text)
        where = f'in the namespace "{ask.namespace}"' if ask.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {ask.verb} resource "{ask.target}" in API group '
            f'"{ask.group}" {where}'
        )
        if own := _foreign_node(user, ask):
            why = f'node "{own}" is not allowed to modify node "{ask.name}"'
        raise errors.forbidden(ask.group, ask.resource, ask.name, why)

    def allowed(self, user: User, ask: Ask) -> bool:
        """Return whether a user may do something."""
        if MASTERS in user.groups:
            return True
        if ask.path:
            return _open_path(user, ask)
        if _cluster_info(ask):
            return True
        if NODES_GROUP in user.groups and _node_may(user, ask):
            return True
        if BOOTSTRAPPERS in user.groups and _bootstrapper_may(ask):
            return True
        if AUTHENTICATED in user.groups and ask.verb == "create" and _about_oneself(ask):
            return True
        return any(_rule_allows(rule, ask) for rule in self._rules(user, ask.namespace))

    def _rules(self, user: User, namespace: str) -> Iterator[Obj]:
        for binding in self._store.all(f"{_RBAC}/clusterrolebindings"):
            if _binds(binding, user):
                role = self._store.get(f"{_RBAC}/clusterroles", "", binding["roleRef"]["name"])
                yield from (role or {}).get("rules") or []
        if not namespace:
            return
        for binding in self._store.items(f"{_RBAC}/rolebindings", namespace):
            if _binds(binding, user):
                reference = binding["roleRef"]
                local = reference.get("kind") == "Role"
                role = self._store.get(
                    f"{_RBAC}/{'roles' if local else 'clusterroles'}",
                    namespace if local else "",
                    reference["name"],
                )
                yield from (role or {}).get("rules") or []


def _open_path(user: User, ask: Ask) -> bool:
    if ask.verb != "get":
        return False
    if ask.path.startswith(("/version", "/healthz", "/livez", "/readyz")):
        return True
    discovery = ("/api", "/openapi", "/apis", "/.well-known")
    return AUTHENTICATED in user.groups and ask.path.startswith(discovery)


def _cluster_info(ask: Ask) -> bool:
    wanted = ("get", "configmaps", "kube-public", "cluster-info")
    return (ask.verb, ask.target, ask.namespace, ask.name) == wanted


def _about_oneself(ask: Ask) -> bool:
    return ask.resource in (
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
        "selfsubjectreviews",
    )


_NODE_WRITES = frozenset(
    {
        "nodes", "nodes/status", "pods", "pods/status", "pods/eviction", "events", "leases",
        "csinodes", "certificatesigningrequests", "serviceaccounts/token", "tokenreviews",
        "subjectaccessreviews", "localsubjectaccessreviews", "resourceslices",
    }
)  # fmt: skip


def _foreign_node(user: User, ask: Ask) -> str:
    """Return the node that asks to change another node; empty when that is not what it asks."""
    if NODES_GROUP not in user.groups or ask.resource != "nodes" or ask.verb in _READ:
        return ""
    own = user.name.removeprefix("system:node:")
    return own if ask.name and ask.name != own else ""


def _node_may(user: User, ask: Ask) -> bool:
    if ask.verb in _READ:
        return True
    if _foreign_node(user, ask) or (ask.resource == "nodes" and ask.verb == "delete"):
        return False
    return ask.target in _NODE_WRITES


def _bootstrapper_may(ask: Ask) -> bool:
    """Return what kubeadm's own roles and bindings let a joining host do."""
    if ask.resource == "certificatesigningrequests":
        return ask.verb in ("create", "get", "list", "watch")
    if ask.resource == "nodes":
        return ask.verb == "get"
    if ask.resource == "configmaps" and ask.namespace == "kube-system" and ask.verb == "get":
        kubelet = ask.name == "kubelet-config" or ask.name.startswith("kubelet-config-1.")
        return kubelet or ask.name in ("kubeadm-config", "kube-proxy")
    return False


def _binds(binding: Obj, user: User) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "ServiceAccount":
            place = subject.get("namespace") or binding["metadata"].get("namespace", "")
            if user.name == f"system:serviceaccount:{place}:{name}":
                return True
        elif (kind == "User" and user.name == name) or (kind == "Group" and name in user.groups):
            return True
    return False


def _rule_allows(rule: Obj, ask: Ask) -> bool:
    def has(field: str, value: str) -> bool:
        found = rule.get(field) or []
        return "*" in found or value in found

    if not (has("verbs", ask.verb) and has("apiGroups", ask.group)):
        return False
    if not has("resources", ask.target) and f"*/{ask.subresource}" not in rule["resources"]:
        return False
    names = rule.get("resourceNames") or []
    return not names or ask.name in names
