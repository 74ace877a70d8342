"""Tables as kubectl shows them: the server prints the cells, kubectl only lines them up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.podcells import pod_cells
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.state import condition, controller_of
from kitlib.lab.api.store import Obj

Cells = Callable[[Obj], list[Any]]
NONE = "<none>"


def duration(seconds: float) -> str:
    """Return an age as kubectl writes it: 35s, 4m12s, 3h5m, 2d4h, 120d."""
    whole = int(seconds)
    if whole < 0:
        return "0s" if whole >= -1 else "<invalid>"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        rest = whole % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    rest = days % 365
    return f"{years}y{rest}d" if hours < 24 * 365 * 8 and rest else f"{years}y"


def age(obj: Obj) -> str:
    """Return an object's age, as the AGE column shows it."""
    created = obj["metadata"].get("creationTimestamp")
    return duration(clock.age(created)) if created else "<unknown>"


def table(resource: Resource, items: Sequence[Obj], meta: Obj, include: str) -> Obj:
    """Return the meta.k8s.io/v1 Table of some objects; `include` is None, Metadata or Object."""
    columns, cells = _columns(resource)
    rows = []
    for item in items:
        row: Obj = {"cells": cells(item)}
        if include == "Object":
            row["object"] = item
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": rows,
    }


def _definitions(heads: str) -> list[Obj]:
    """Return column definitions; a star marks a column that only -o wide shows."""
    return [
        {
            "name": name.lstrip("*"),
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": int(name.startswith("*")),
        }
        for name in (text.strip() for text in heads.split(","))
    ]


def _columns(resource: Resource) -> tuple[list[Obj], Cells]:
    if resource.custom:
        return _custom_columns(resource)
    heads, cells = _TABLES.get(resource.store, ("Name, Age", _generic))
    return _definitions(heads), cells


def _generic(obj: Obj) -> list[Any]:
    return [obj["metadata"]["name"], age(obj)]


def _custom_columns(resource: Resource) -> tuple[list[Obj], Cells]:
    extra = [column for column in resource.columns if column[2] != ".metadata.creationTimestamp"]
    aged = not resource.columns or len(extra) < len(resource.columns)
    heads = ["Name", *(name for name, _, _ in extra), *(["Age"] if aged else [])]

    def cells(obj: Obj) -> list[Any]:
        found = [_json_path(obj, path) for _, _, path in extra]
        shown = ["" if value is None else value for value in found]
        return [obj["metadata"]["name"], *shown, *([age(obj)] if aged else [])]

    return _definitions(",".join(heads)), cells


def _json_path(obj: Any, path: str) -> Any:
    """Return what a simple JSON path (fields, indexes, `[?(@.k=="v")]`) finds, or None."""
    for field, index, key, value in re.findall(
        r'\.?([\w\-/]+)|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*[\'"]([^\'"]*)[\'"]\)\]', path
    ):
        if field:
            obj = obj.get(field) if isinstance(obj, dict) else None
        elif index:
            at = int(index)
            obj = obj[at] if isinstance(obj, list) and at < len(obj) else None
        else:
            items = obj if isinstance(obj, list) else []
            obj = next((item for item in items if item.get(key) == value), None)
    return obj


def _labels(found: Obj | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((found or {}).items())) or NONE


def _selector(selector: Obj | None) -> str:
    selector = selector or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or []:
        values = ",".join(term.get("values") or [])
        operator = term["operator"]
        if operator in ("In", "NotIn"):
            terms.append(f"{term['key']} {operator.lower()} ({values})")
        else:
            terms.append(term["key"] if operator == "Exists" else f"!{term['key']}")
    return ",".join(terms) or NONE


def _containers(template: Obj) -> list[str]:
    containers = template["spec"].get("containers") or []
    names = ",".join(entry["name"] for entry in containers)
    return [names, ",".join(entry.get("image", "") for entry in containers)]


def _node(obj: Obj) -> list[Any]:
    status, meta = obj.get("status") or {}, obj["metadata"]
    ready = condition(obj, "Ready")
    word = "Unknown"
    if ready:
        word = "Ready" if ready["status"] == "True" else "NotReady"
    if (obj.get("spec") or {}).get("unschedulable"):
        word += ",SchedulingDisabled"
    roles = []
    for key, value in (meta.get("labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/"):
            roles.append(key.partition("/")[2])
        elif key == "kubernetes.io/role" and value:
            roles.append(value)
    addresses = {a["type"]: a["address"] for a in reversed(status.get("addresses") or [])}
    info = status.get("nodeInfo") or {}
    return [
        meta["name"], word, ",".join(sorted(filter(None, roles))) or NONE, age(obj),
        info.get("kubeletVersion", ""), addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE), info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _deployment(obj: Obj) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    wide = [*_containers(spec["template"]), _selector(spec.get("selector"))]
    return [obj["metadata"]["name"], ready, *counts, age(obj), *wide]


def _daemonset(obj: Obj) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    counts = [
        status.get(field, 0)
        for field in ("desiredNumberScheduled", "currentNumberScheduled", "numberReady",
                      "updatedNumberScheduled", "numberAvailable")
    ]  # fmt: skip
    node = _labels(spec["template"]["spec"].get("nodeSelector"))
    wide = [*_containers(spec["template"]), _selector(spec.get("selector"))]
    return [obj["metadata"]["name"], *counts, node, age(obj), *wide]


def _replicaset(obj: Obj) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    wide = [*_containers(spec["template"]), _selector(spec.get("selector"))]
    return [obj["metadata"]["name"], *counts, age(obj), *wide]


def _statefulset(obj: Obj) -> list[Any]:
    ready = (obj.get("status") or {}).get("readyReplicas", 0)
    shown = f"{ready}/{obj['spec'].get('replicas', 0)}"
    return [obj["metadata"]["name"], shown, age(obj), *_containers(obj["spec"]["template"])]


def _service(obj: Obj) -> list[Any]:
    spec = obj["spec"]
    ports = []
    for port in spec.get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    external = ",".join(spec.get("externalIPs") or []) or NONE
    if spec.get("type") == "LoadBalancer":
        ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        external = ",".join(i.get("ip") or i.get("hostname", "") for i in ingress) or "<pending>"
    elif spec.get("type") == "ExternalName":
        external = spec.get("externalName", NONE)
    return [
        obj["metadata"]["name"], spec.get("type", "ClusterIP"), spec.get("clusterIP") or NONE,
        external, ",".join(ports) or NONE, age(obj), _labels(spec.get("selector")),
    ]  # fmt: skip


def _endpoints(obj: Obj) -> list[Any]:
    shown = []
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or [{}]:
            for address in subset.get("addresses") or []:
                at = f":{port['port']}" if "port" in port else ""
                shown.append(f"{address['ip']}{at}")
    text = ",".join(shown[:3]) or NONE
    if len(shown) > 3:
        text += f" + {len(shown) - 3} more..."
    return [obj["metadata"]["name"], text, age(obj)]


def _slice(obj: Obj) -> list[Any]:
    ports = ",".join(str(port.get("port", "*")) for port in obj.get("ports") or []) or "<unset>"
    found = [ip for entry in obj.get("endpoints") or [] for ip in entry["addresses"]]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    name, kind = obj["metadata"]["name"], obj.get("addressType", "IPv4")
    return [name, kind, ports, text or "<unset>", age(obj)]


def _event(obj: Obj) -> list[Any]:
    involved, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or first
    count = obj.get("count") or 1
    shown = duration(clock.age(last)) if last else "<unknown>"
    first_shown = duration(clock.age(first)) if first else "<unknown>"
    seen = f"{shown} (x{count} over {first_shown})" if count > 1 else shown
    component = source.get("component") or obj.get("reportingComponent", "")
    where = ", ".join(filter(None, (component, source.get("host"))))
    target = f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"
    return [
        seen, obj.get("type", ""), obj.get("reason", ""), target, involved.get("fieldPath", ""),
        where, str(obj.get("message", "")).strip(), first_shown, count, obj["metadata"]["name"],
    ]  # fmt: skip


def _csr(obj: Obj) -> list[Any]:
    types = [c["type"] for c in (obj.get("status") or {}).get("conditions") or []]
    word = ",".join(types) or "Pending"
    if (obj.get("status") or {}).get("certificate"):
        word += ",Issued"
    spec = obj["spec"]
    seconds = spec.get("expirationSeconds")
    wanted = duration(seconds) if seconds else NONE
    who = [spec.get("signerName") or NONE, spec.get("username", ""), wanted, word]
    return [obj["metadata"]["name"], age(obj), *who]


def _named(*pick: Callable[[Obj], Any]) -> Cells:
    return lambda obj: [obj["metadata"]["name"], *(cell(obj) for cell in pick), age(obj)]


def _count(field: str) -> Callable[[Obj], Any]:
    return lambda obj: len(obj.get(field) or ())


def _budget(obj: Obj) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    limits = [spec.get(field, "N/A") for field in ("minAvailable", "maxUnavailable")]
    return [obj["metadata"]["name"], *limits, status.get("disruptionsAllowed", 0), age(obj)]


def _created(obj: Obj) -> list[Any]:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _bound(obj: Obj) -> list[Any]:
    reference = obj.get("roleRef") or {}
    found: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or []:
        place = f"{subject['namespace']}/" if subject.get("namespace") else ""
        found.setdefault(subject["kind"], []).append(f"{place}{subject['name']}")
    wide = [", ".join(names) for names in found.values()][:3]
    role = f"{reference.get('kind')}/{reference.get('name')}"
    return [obj["metadata"]["name"], role, age(obj), *wide]


def _api_service(obj: Obj) -> list[Any]:
    service, state = obj["spec"].get("service"), condition(obj, "Available") or {}
    place = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    word = state.get("status", "Unknown")
    shown = word if word == "True" else f"{word} ({state.get('reason', '')})"
    return [obj["metadata"]["name"], place, shown, age(obj)]


def _revision(obj: Obj) -> list[Any]:
    parent = controller_of(obj)
    name = f"{parent['kind'].lower()}.apps/{parent['name']}" if parent else NONE
    return [obj["metadata"]["name"], name, obj["revision"], age(obj)]


_WORKLOAD = "Age, *Containers, *Images, *Selector"
_RBAC = "rbac.authorization.k8s.io"
_TABLES: dict[str, tuple[str, Cells]] = {
    "/nodes": ("Name, Status, Roles, Age, Version, *Internal-IP, *External-IP, *OS-Image, "
               "*Kernel-Version, *Container-Runtime", _node),
    "/pods": ("Name, Ready, Status, Restarts, Age, *IP, *Node, *Nominated Node, *Readiness Gates",
              lambda obj: pod_cells(obj, age(obj), duration)),
    "apps/deployments": (f"Name, Ready, Up-to-date, Available, {_WORKLOAD}", _deployment),
    "apps/daemonsets": ("Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, "
                        f"{_WORKLOAD}", _daemonset),
    "apps/replicasets": (f"Name, Desired, Current, Ready, {_WORKLOAD}", _replicaset),
    "apps/statefulsets": ("Name, Ready, Age, *Containers, *Images", _statefulset),
    "/services": ("Name, Type, Cluster-IP, External-IP, Port(s), Age, *Selector", _service),
    "/namespaces": ("Name, Status, Age",
                    _named(lambda obj: (obj.get("status") or {}).get("phase", "Active"))),
    "/events": ("Last Seen, Type, Reason, Object, *Subobject, *Source, Message, *First Seen, "
                "*Count, *Name", _event),
    "/configmaps": ("Name, Data, Age",
                    _named(lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ()))),
    "/secrets": ("Name, Type, Data, Age",
                 _named(lambda obj: obj.get("type", "Opaque"), _count("data"))),
    "/serviceaccounts": ("Name, Secrets, Age", _named(_count("secrets"))),
    "/endpoints": ("Name, Endpoints, Age", _endpoints),
    "discovery.k8s.io/endpointslices": ("Name, AddressType, Ports, Endpoints, Age", _slice),
    "certificates.k8s.io/certificatesigningrequests": (
        "Name, Age, SignerName, Requestor, RequestedDuration, Condition", _csr),
    "coordination.k8s.io/leases": (
        "Name, Holder, Age", _named(lambda obj: obj["spec"].get("holderIdentity", ""))),
    "apps/controllerrevisions": ("Name, Controller, Revision, Age", _revision),
    "apiregistration.k8s.io/apiservices": ("Name, Service, Available, Age", _api_service),
    "apiextensions.k8s.io/customresourcedefinitions": ("Name, Created At", _created),
    f"{_RBAC}/clusterroles": ("Name, Created At", _created),
    f"{_RBAC}/roles": ("Name, Created At", _created),
    f"{_RBAC}/clusterrolebindings": ("Name, Role, Age, *Users, *Groups, *ServiceAccounts", _bound),
    f"{_RBAC}/rolebindings": ("Name, Role, Age, *Users, *Groups, *ServiceAccounts", _bound),
    "policy/poddisruptionbudgets": (
        "Name, Min Available, Max Unavailable, Allowed Disruptions, Age", _budget),
    "networking.k8s.io/networkpolicies": (
        "Name, Pod-Selector, Age", _named(lambda obj: _selector(obj["spec"].get("podSelector")))),
}  # fmt: skip
