"""What the real API refuses about the core workload kinds, with its own texts."""

from __future__ import annotations

import re

from kitlib.lab.api import errors, selectors
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.store import Obj, dumps
from kitlib.lab.api.validate_pods import Problem, invalid, pod_spec, required, unsupported

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_LABEL_KINDS = {"/namespaces", "/services"}
_PATH_NAME_GROUPS = {"rbac.authorization.k8s.io"}

_WORKLOADS = {"apps/deployments", "apps/daemonsets", "apps/replicasets", "apps/statefulsets"}


ANNOTATIONS = 256 * 1024
"""Bytes that the keys and values of one object's annotations may have together."""


def check(resource: Resource, obj: Obj, old: Obj | None, minor: int) -> None:
    """Refuse an object that the real API of 1.`minor` would refuse.

    Raises:
        ApiError: 422 with every problem.
    """
    problems = [] if old else _name(resource, obj["metadata"].get("name", ""))
    problems += _annotations(obj["metadata"].get("annotations") or {}, minor)
    spec = obj.get("spec") or {}
    if resource.store in _WORKLOADS:
        problems += _workload(resource.kind, spec, old)
    elif resource.store == "/pods":
        problems += pod_spec("spec", spec)
        if old and (old["spec"].get("nodeName") or "") not in ("", spec.get("nodeName")):
            problems.append(_forbidden_pod_update())
    elif resource.store == "/services":
        problems += _service(spec)
    elif resource.store == "apiextensions.k8s.io/customresourcedefinitions":
        problems += _crd(obj)
    elif resource.group == "rbac.authorization.k8s.io" and resource.plural.endswith("bindings"):
        problems += _binding(obj, old)
    if problems:
        raise errors.invalid(resource.group, resource.kind, obj["metadata"]["name"], problems)


def _name(resource: Resource, name: str) -> list[Problem]:
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if resource.group in _PATH_NAME_GROUPS:
        if "/" in name or "%" in name:
            return [invalid("metadata.name", name, "may not contain '/' or '%'")]
        return []
    if resource.store in _DNS_LABEL_KINDS:
        if re.fullmatch(_LABEL, name) and len(name) <= 63:
            return []
        rule = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
            "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
            f"'123-abc', regex used for validation is '{_LABEL}')"
        )
        return [invalid("metadata.name", name, rule)]
    if re.fullmatch(_SUBDOMAIN, name) and len(name) <= 253:
        return []
    rule = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' "
        "or '.', and must start and end with an alphanumeric character (e.g. 'example.com', "
        f"regex used for validation is '{_SUBDOMAIN}')"
    )
    return [invalid("metadata.name", name, rule)]


def _annotations(found: dict[str, str], minor: int) -> list[Problem]:
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in found.items())
    if size <= ANNOTATIONS:
        return []
    bound = "may not be more than" if minor >= 32 else "must have at most"
    text = f"Too long: {bound} {ANNOTATIONS} bytes"
    return [("metadata.annotations", "FieldValueTooLong", text)]


def _workload(kind: str, spec: Obj, old: Obj | None) -> list[Problem]:
    problems: list[Problem] = []
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None and kind != "DaemonSet":
        problems.append(required("spec.selector"))
    elif selector is not None and not any(selector.values()):
        rule = f"empty selector is invalid for {kind.lower()}"
        problems.append(("spec.selector", "FieldValueInvalid", f"Invalid value: {{}}: {rule}"))
    if selector is None or not selectors.label_selector(selector, labels):
        text = (
            f"Invalid value: map[string]string{dumps(labels)}: "
            "`selector` does not match template `labels`"
        )
        problems.append(("spec.template.metadata.labels", "FieldValueInvalid", text))
    problems += pod_spec("spec.template.spec", template.get("spec") or {})
    policy = (template.get("spec") or {}).get("restartPolicy", "Always")
    if policy != "Always":
        at = "spec.template.spec.restartPolicy"
        problems.append(unsupported(at, policy, ("Always",)))
    if old and selector and old["spec"].get("selector") != selector:
        value = f"v1.LabelSelector{dumps(selector)}"
        text = f"Invalid value: {value}: field is immutable"
        problems.append(("spec.selector", "FieldValueInvalid", text))
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        problems.append(invalid("spec.replicas", replicas, "must be greater than or equal to 0"))
    return problems


def _forbidden_pod_update() -> Problem:
    text = (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, "
        "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` "
        "(only additions to existing tolerations)"
    )
    return ("spec", "FieldValueForbidden", text)


def _service(spec: Obj) -> list[Problem]:
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return []
    if not spec.get("ports"):
        return [required("spec.ports")]
    return [
        required(f"spec.ports[{index}].name")
        for index, port in enumerate(spec["ports"])
        if len(spec["ports"]) > 1 and not port.get("name")
    ]


def _crd(obj: Obj) -> list[Problem]:
    spec = obj.get("spec") or {}
    problems = []
    plural = (spec.get("names") or {}).get("plural")
    for field, value in (
        ("spec.group", spec.get("group")),
        ("spec.names.plural", plural),
        ("spec.names.kind", (spec.get("names") or {}).get("kind")),
    ):
        if not value:
            problems.append(required(field))
    wanted = f"{plural}.{spec.get('group')}"
    if not problems and obj["metadata"]["name"] != wanted:
        rule = 'must be spec.names.plural+"."+spec.group'
        problems.append(invalid("metadata.name", obj["metadata"]["name"], rule))
    if obj.get("apiVersion", "").endswith("/v1"):
        for index, version in enumerate(spec.get("versions") or []):
            if not (version.get("schema") or {}).get("openAPIV3Schema"):
                at = f"spec.versions[{index}].schema.openAPIV3Schema"
                problems.append(required(at, "schemas are required"))
    return problems


def _binding(obj: Obj, old: Obj | None) -> list[Problem]:
    reference = obj.get("roleRef") or {}
    problems = []
    if not reference.get("name"):
        problems.append(required("roleRef.name"))
    if old and old.get("roleRef") != reference:
        value = f"rbac.RoleRef{dumps(reference)}"
        text = f"Invalid value: {value}: cannot change roleRef"
        problems.append(("roleRef", "FieldValueInvalid", text))
    return problems
