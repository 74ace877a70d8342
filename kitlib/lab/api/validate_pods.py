"""What the real API refuses about a pod's specification, with its own texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kitlib.lab.api.store import Obj

Problem = tuple[str, str, str]
"""Field, machine reason, text."""

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_POLICIES = {
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    "restartPolicy": ("Always", "OnFailure", "Never"),
}
_HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")


def required(field: str, detail: str = "") -> Problem:
    """Return the problem of a field that must be there."""
    return (field, "FieldValueRequired", f"Required value{': ' + detail if detail else ''}")


def invalid(field: str, value: Any, rule: str) -> Problem:
    """Return the problem of a value that breaks a rule."""
    shown = f'"{value}"' if isinstance(value, str) else value
    return (field, "FieldValueInvalid", f"Invalid value: {shown}: {rule}")


def unsupported(field: str, value: str, supported: tuple[str, ...]) -> Problem:
    """Return the problem of a value that is none of those that there are."""
    named = ", ".join(f'"{each}"' for each in supported)
    text = f'Unsupported value: "{value}": supported values: {named}'
    return (field, "FieldValueNotSupported", text)


def _twice(field: str, value: str) -> Problem:
    return (field, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def pod_spec(path: str, spec: Obj) -> list[Problem]:
    """Return everything that is wrong with a pod's specification at a path."""
    if not spec.get("containers"):
        return [required(f"{path}.containers")]
    problems = list(_volumes(path, spec))
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            problems += _container(f"{path}.{field}[{index}]", container, spec, names)
    for field, supported in _POLICIES.items():
        value = spec.get(field)
        if value and value not in supported:
            problems.append(unsupported(f"{path}.{field}", value, supported))
    for index, toleration in enumerate(spec.get("tolerations") or []):
        problems += _toleration(f"{path}.tolerations[{index}]", toleration)
    return problems


def _volumes(path: str, spec: Obj) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        at = f"{path}.volumes[{index}].name"
        name = volume.get("name")
        if not name:
            yield required(at)
        elif name in seen:
            yield _twice(at, name)
        seen.add(name)


def _container(at: str, container: Obj, spec: Obj, names: set[str]) -> Iterator[Problem]:
    name = container.get("name")
    if not name:
        yield required(f"{at}.name")
    elif name in names:
        yield _twice(f"{at}.name", name)
    names.add(name or "")
    if not container.get("image"):
        yield required(f"{at}.image")
    yield from _mounts(at, container, {each.get("name") for each in spec.get("volumes") or []})
    yield from _ports(at, container, host_network=bool(spec.get("hostNetwork")))
    for index, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            yield required(f"{at}.env[{index}].name")
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(field)
        if probe and not any(probe.get(handler) for handler in _HANDLERS):
            yield required(f"{at}.{field}", "must specify a handler type")


def _mounts(at: str, container: Obj, volumes: set[Any]) -> Iterator[Problem]:
    paths: set[str] = set()
    for number, mount in enumerate(container.get("volumeMounts") or []):
        where = f"{at}.volumeMounts[{number}]"
        if mount.get("name") not in volumes:
            yield (f"{where}.name", "FieldValueNotFound", f'Not found: "{mount.get("name")}"')
        path = mount.get("mountPath")
        if not path:
            yield required(f"{where}.mountPath")
        elif path in paths:
            yield invalid(f"{where}.mountPath", path, "must be unique")
        paths.add(path or "")


def _ports(at: str, container: Obj, *, host_network: bool) -> Iterator[Problem]:
    names: set[str] = set()
    for number, port in enumerate(container.get("ports") or []):
        where = f"{at}.ports[{number}]"
        inside, outside, name = port.get("containerPort"), port.get("hostPort"), port.get("name")
        if name and name in names:
            yield _twice(f"{where}.name", name)
        names.add(name or "")
        if not inside:
            yield required(f"{where}.containerPort")
            continue
        for field, value in (("containerPort", inside), ("hostPort", outside)):
            if value and not 0 < value < 65536:
                yield invalid(f"{where}.{field}", value, "must be between 1 and 65535, inclusive")
        if host_network and outside != inside:
            rule = "must match `hostPort` when `hostNetwork` is true"
            yield invalid(f"{where}.containerPort", inside, rule)


def _toleration(at: str, toleration: Obj) -> Iterator[Problem]:
    operator = toleration.get("operator") or "Equal"
    if operator not in ("Equal", "Exists"):
        yield unsupported(f"{at}.operator", operator, ("Equal", "Exists"))
    elif not toleration.get("key") and operator != "Exists":
        rule = 'operator must be Exists when `key` is empty, which means "match all values and '
        yield invalid(f"{at}.operator", toleration.get("operator") or "", f'{rule}all keys"')
    elif operator == "Exists" and toleration.get("value"):
        rule = "value must be empty when `operator` is 'Exists'"
        yield invalid(f"{at}.operator", toleration["value"], rule)
    effect = toleration.get("effect")
    if effect and effect not in _EFFECTS:
        yield unsupported(f"{at}.effect", effect, _EFFECTS)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        rule = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield invalid(f"{at}.effect", effect or "", rule)
