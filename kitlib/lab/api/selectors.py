"""Label and field selectors, in the API's query syntax and in objects' own selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kitlib.lab.api import errors
from kitlib.lab.api.store import Obj

Predicate = Callable[[Obj], bool]

_SET = re.compile(r"^([^\s=!,()]+)\s+(in|notin)\s*\(([^)]*)\)$")
_COMPARE = re.compile(r"^([^\s=!,()]+)\s*(==|=|!=)\s*([^\s,()]*)$")
_KEY = re.compile(r"^!?\s*[^\s=!,()]+$")


def labels(query: str) -> Predicate:
    """Return the predicate of a label selector such as `app=web,tier in (a,b),!old`.

    Raises:
        ApiError: 400 for text that is not a selector.
    """
    terms = [_label_term(term.strip()) for term in _split(query) if term.strip()]

    def matches(obj: Obj) -> bool:
        found = obj["metadata"].get("labels") or {}
        return all(term(found) for term in terms)

    return matches


def fields(query: str, kind: str) -> Predicate:
    """Return the predicate of a field selector such as `spec.nodeName=w1,status.phase!=Failed`.

    Raises:
        ApiError: 400 for a field that the API does not select this kind by.
    """
    wanted = []
    for term in query.split(","):
        if not term.strip():
            continue
        match = re.match(r"^\s*([\w.]+)\s*(==|!=|=)\s*(.*?)\s*$", term)
        if match is None:
            raise errors.bad_request(f'invalid field selector: "{query}"')
        name, operator, value = match.groups()
        if not _selectable(name, kind):
            text = f'"{name}" is not a known field selector: only "metadata.name", '
            raise errors.bad_request(
                f'Unable to find "/v1, Resource={kind.partition("/")[2]}" that match label '
                f'selector "", field selector "{query}": {text}"metadata.namespace"'
            )
        wanted.append((name.split("."), operator != "!=", value))

    def matches(obj: Obj) -> bool:
        return all((_lookup(obj, path) == value) is same for path, same, value in wanted)

    return matches


def label_selector(selector: Mapping[str, Any] | None, found: Mapping[str, str]) -> bool:
    """Return whether an object's own LabelSelector (matchLabels, matchExpressions) fits labels."""
    selector = selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if found.get(key) != value:
            return False
    return all(expression(term, found) for term in selector.get("matchExpressions") or ())


def expression(term: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    """Return whether one {key, operator, values} term fits a set of labels."""
    key, operator = term["key"], term["operator"]
    values = list(term.get("values") or [])
    if operator == "In":
        return found.get(key) in values
    if operator == "NotIn":
        return found.get(key) not in values
    if operator == "Exists":
        return key in found
    if operator == "DoesNotExist":
        return key not in found
    if key not in found or not found[key].lstrip("-").isdigit():
        return False
    number = int(found[key])
    return number > int(values[0]) if operator == "Gt" else number < int(values[0])


def _split(query: str) -> list[str]:
    """Split at commas outside parentheses."""
    return re.split(r",(?![^()]*\))", query)


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.match(term):
        key, operator, text = match.groups()
        values = {value.strip() for value in text.split(",")}
        if operator == "in":
            return lambda found: found.get(key) in values
        return lambda found: found.get(key) not in values
    if match := _COMPARE.match(term):
        key, operator, value = match.groups()
        if operator == "!=":
            return lambda found: found.get(key) != value
        return lambda found: found.get(key) == value
    if _KEY.match(term):
        key = term.lstrip("!").strip()
        if term.startswith("!"):
            return lambda found: key not in found
        return lambda found: key in found
    raise errors.bad_request(f"unable to parse requirement: found '{term}'")


_BY_KIND = {
    "/pods": {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.hostNetwork",
              "spec.serviceAccountName", "status.phase", "status.podIP",
              "status.nominatedNodeName"},
    "/nodes": {"spec.unschedulable"},
    "/namespaces": {"status.phase"},
    "/secrets": {"type"},
    "/events": {"reason", "type", "source", "reportingComponent"},
    "/services": {"spec.clusterIP", "spec.type"},
    "apps/replicasets": {"status.replicas"},
    "batch/jobs": {"status.successful"},
    "certificates.k8s.io/certificatesigningrequests": {"spec.signerName"},
}  # fmt: skip


def _selectable(name: str, kind: str) -> bool:
    if name in ("metadata.name", "metadata.namespace") or name in _BY_KIND.get(kind, ()):
        return True
    return kind == "/events" and name.startswith("involvedObject.")


def _lookup(obj: Obj, path: list[str]) -> str:
    value: Any = obj
    if path == ["source"]:
        return str((obj.get("source") or {}).get("component", ""))
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    if path == ["spec", "unschedulable"] and value is None:
        return "false"
    return "" if value is None else str(value)
