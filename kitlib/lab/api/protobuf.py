"""Bodies in Kubernetes' protobuf form, which recent kubectl uses for the kinds that it creates.

Only the kinds and fields that `kubectl create`, `auth`, `certificate` and `drain` send are known;
any other kind is refused as an unsupported media type, as a server without protobuf would do.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.store import Obj

MAGIC = b"k8s\x00"

# Message: "number name type". Types: s text, d bytes, i number, b flag (each left out when zero),
# n number or flag whose zero counts, t time, q quantity, x number-or-text, or a message;
# `*` repeats, `%` is a map of text to the type.
_MESSAGES = {
    "ObjectMeta": "1 name s, 2 generateName s, 3 namespace s, 5 uid s, 6 resourceVersion s, "
    "7 generation i, 8 creationTimestamp t, 11 labels %s, 12 annotations %s, 14 finalizers *s",
    "LabelSelector": "1 matchLabels %s, 2 matchExpressions *Requirement",
    "Requirement": "1 key s, 2 operator s, 3 values *s",
    "Reference": "1 name s",
    "Namespace": "1 metadata ObjectMeta",
    "ConfigMap": "1 metadata ObjectMeta, 2 data %s, 3 binaryData %d, 4 immutable n",
    "Secret": "1 metadata ObjectMeta, 2 data %d, 3 type s, 4 stringData %s, 5 immutable n",
    "ServiceAccount": "1 metadata ObjectMeta, 3 imagePullSecrets *Reference",
    "Service": "1 metadata ObjectMeta, 2 spec ServiceSpec",
    "ServiceSpec": "1 ports *ServicePort, 2 selector %s, 3 clusterIP s, 4 type s, "
    "5 externalIPs *s, 7 sessionAffinity s, 10 externalName s",
    "ServicePort": "1 name s, 2 protocol s, 3 port i, 4 targetPort x, 5 nodePort i",
    "Deployment": "1 metadata ObjectMeta, 2 spec DeploymentSpec",
    "DeploymentSpec": "1 replicas n, 2 selector LabelSelector, 3 template PodTemplate",
    "Job": "1 metadata ObjectMeta, 2 spec JobSpec",
    "JobSpec": "1 parallelism n, 2 completions n, 6 template PodTemplate, 7 backoffLimit n",
    "PodTemplate": "1 metadata ObjectMeta, 2 spec PodSpec",
    "PodSpec": "2 containers *Container, 3 restartPolicy s, 4 terminationGracePeriodSeconds n, "
    "6 dnsPolicy s, 7 nodeSelector %s, 8 serviceAccountName s, 10 nodeName s, 11 hostNetwork b, "
    "20 initContainers *Container",
    "Container": "1 name s, 2 image s, 3 command *s, 4 args *s, 5 workingDir s, "
    "6 ports *ContainerPort, 7 env *EnvVar, 8 resources Resources, 14 imagePullPolicy s",
    "ContainerPort": "1 name s, 2 hostPort i, 3 containerPort i, 4 protocol s",
    "EnvVar": "1 name s, 2 value s",
    "Resources": "1 limits %q, 2 requests %q",
    "Role": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "PolicyRule": "1 verbs *s, 2 apiGroups *s, 3 resources *s, 4 resourceNames *s, "
    "5 nonResourceURLs *s",
    "RoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "Subject": "1 kind s, 2 apiGroup s, 3 name s, 4 namespace s",
    "RoleRef": "1 apiGroup s, 2 kind s, 3 name s",
    "TokenRequest": "1 metadata ObjectMeta, 2 spec TokenSpec",
    "TokenSpec": "1 audiences *s, 4 expirationSeconds n",
    "AccessReview": "1 metadata ObjectMeta, 2 spec AccessSpec",
    "AccessSpec": "1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes PathAttributes",
    "ResourceAttributes": "1 namespace s, 2 verb s, 3 group s, 4 version s, 5 resource s, "
    "6 subresource s, 7 name s",
    "PathAttributes": "1 path s, 2 verb s",
    "RulesReview": "1 metadata ObjectMeta, 2 spec RulesSpec",
    "RulesSpec": "1 namespace s",
    "SelfSubjectReview": "1 metadata ObjectMeta",
    "Eviction": "1 metadata ObjectMeta, 2 deleteOptions DeleteOptions",
    "DeleteOptions": "1 gracePeriodSeconds n, 2 preconditions Preconditions, "
    "3 orphanDependents n, 4 propagationPolicy s, 5 dryRun *s",
    "Preconditions": "1 uid s, 2 resourceVersion s",
    "CertificateSigningRequest": "1 metadata ObjectMeta, 2 spec CsrSpec, 3 status CsrStatus",
    "CsrSpec": "1 request d, 2 username s, 4 groups *s, 5 usages *s, 7 signerName s, "
    "8 expirationSeconds n",
    "CsrStatus": "1 conditions *CsrCondition, 2 certificate d",
    "CsrCondition": "1 type s, 2 reason s, 3 message s, 4 lastUpdateTime t, "
    "5 lastTransitionTime t, 6 status s",
}
_KINDS = {
    "ClusterRole": "Role",
    "ClusterRoleBinding": "RoleBinding",
    "SelfSubjectAccessReview": "AccessReview",
    "SelfSubjectRulesReview": "RulesReview",
}
_FLAGS = frozenset({"immutable", "orphanDependents", "hostNetwork"})
_Raw = int | bytes


def decode(body: bytes) -> Obj | None:
    """Return the object in a protobuf body; None for a kind that is not known here.

    Raises:
        ValueError: The bytes are not protobuf.
    """
    envelope = dict(_fields(body[len(MAGIC) :]))
    types = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
    kind = types.get(2, "")
    message = _KINDS.get(kind, kind)
    if message not in _MESSAGES:
        return None
    obj = _message(message, _bytes(envelope.get(2, b"")))
    return {"apiVersion": types.get(1, ""), "kind": kind, **obj}


def _message(name: str, data: bytes) -> Obj:
    known = {}
    for entry in _MESSAGES[name].split(", "):
        place, field, type_ = entry.split()
        known[int(place)] = (field, type_)
    obj: Obj = {}
    for number, raw in _fields(data):
        if number not in known:
            continue
        field, type_ = known[number]
        if type_.startswith("*"):
            obj.setdefault(field, []).append(_value(type_[1:], field, raw))
        elif type_.startswith("%"):
            pair = dict(_fields(_bytes(raw)))
            value = _value(type_[1:], field, pair.get(2, b""))
            obj.setdefault(field, {})[_text(pair.get(1, b""))] = value
        else:
            value = _value(type_, field, raw)
            if value or type_ == "n":
                obj[field] = value
    return obj


def _value(type_: str, field: str, raw: _Raw) -> Any:
    if type_ == "s":
        return _text(raw)
    if type_ == "d":
        return base64.b64encode(_bytes(raw)).decode()
    if type_ in ("i", "n", "b"):
        number = raw if isinstance(raw, int) else 0
        if field in _FLAGS:
            return bool(number)
        return number - (1 << 64) if number >= 1 << 63 else number
    inner: dict[int, _Raw] = dict(_fields(_bytes(raw))) if type_ in "tqx" else {}
    if type_ == "t":
        seconds = inner.get(1, 0)
        return clock.stamp(dt.datetime.fromtimestamp(int(seconds), dt.UTC)) if seconds else None
    if type_ == "q":
        return _text(inner.get(1, b""))
    if type_ == "x":
        return _text(inner.get(3, b"")) if inner.get(1) else inner.get(2, 0)
    return _message(type_, _bytes(raw))


def _fields(data: bytes) -> Iterator[tuple[int, _Raw]]:
    """Yield (field number, number or bytes) of one message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("protobuf: cut off in the middle of a field")
            yield key >> 3, data[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"protobuf: unknown wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise ValueError("protobuf: cut off in the middle of a number")


def _bytes(raw: _Raw) -> bytes:
    if isinstance(raw, bytes):
        return raw
    raise ValueError("protobuf: a number where a message was expected")


def _text(raw: _Raw) -> str:
    return _bytes(raw).decode()
