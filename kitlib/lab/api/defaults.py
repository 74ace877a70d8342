"""What the real API fills in when an object is written without it."""

from __future__ import annotations

import base64
from typing import Any

from kitlib.lab.api.schema import CRDS
from kitlib.lab.api.store import Obj

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""The annotation in which apps/v1 keeps what is a field of DaemonSets in extensions/v1beta1."""
_GRACE = 30
_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}


def apply_defaults(kind: str, obj: Obj, minor: int) -> None:
    """Fill in the defaults of an object of a storage kind, in place."""
    if kind == "/namespaces":
        _namespace(obj, minor)
    elif kind == "/pods":
        pod_spec(obj.setdefault("spec", {}))
    elif kind == "/services":
        _service(obj.setdefault("spec", {}), minor)
        obj.setdefault("status", {"loadBalancer": {}})
    elif kind == "/secrets":
        _secret(obj)
    elif kind == "/endpoints":
        for subset in obj.get("subsets") or []:
            _ports(subset.get("ports"))
    elif kind in _WORKLOADS:
        _workload(kind, obj, minor)
    elif kind == "batch/jobs":
        _job(obj["spec"])
    elif kind in _BINDINGS:
        _binding(obj)
    elif kind == CRDS:
        _definition(obj.setdefault("spec", {}))


_BINDINGS = (
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/rolebindings",
)
_WORKLOADS = (
    "apps/deployments",
    "apps/daemonsets",
    "apps/replicasets",
    "apps/statefulsets",
    "/replicationcontrollers",
)


def _namespace(obj: Obj, minor: int) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")
    if minor >= 21:
        labels = obj["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    for key, text in (obj.pop("stringData", None) or {}).items():
        data = obj.setdefault("data", {}) or {}
        data[key] = base64.b64encode(text.encode()).decode()
        obj["data"] = data


_OLD = ("extensions/v1beta1", "apps/v1beta1")
"""The versions that took selector and labels of a workload from its template."""
_NO_LIMIT = 2**31 - 1


def _workload(kind: str, obj: Obj, minor: int) -> None:
    spec = obj.setdefault("spec", {})
    template = spec.setdefault("template", {})
    if isinstance(template.get("spec"), dict):
        pod_spec(template["spec"])
    template.setdefault("metadata", {}).setdefault("creationTimestamp", None)
    version = obj.get("apiVersion")
    labels = template["metadata"].get("labels")
    if version in _OLD and labels:
        spec.setdefault("selector", {"matchLabels": dict(labels)})
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)
    if kind != "apps/daemonsets":
        spec.setdefault("replicas", 1)
    if kind == "apps/deployments":
        _deployment(spec, str(version))
    elif kind == "apps/daemonsets":
        _daemon_set(obj, spec, minor)
    elif kind == "apps/statefulsets":
        spec.setdefault("podManagementPolicy", "OrderedReady")
        spec.setdefault("revisionHistoryLimit", 10)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
        spec.setdefault("updateStrategy", {"type": "OnDelete"} if version in _OLD else rolling)


def _deployment(spec: Obj, version: str) -> None:
    portion: Any = 1 if version == "extensions/v1beta1" else "25%"
    kept = {"extensions/v1beta1": _NO_LIMIT, "apps/v1beta1": 2}.get(version, 10)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        strategy["rollingUpdate"] = {"maxUnavailable": portion, "maxSurge": portion, **rolling}
    spec.setdefault("revisionHistoryLimit", kept)
    limit = _NO_LIMIT if version == "extensions/v1beta1" else 600
    spec.setdefault("progressDeadlineSeconds", limit)


def _daemon_set(obj: Obj, spec: Obj, minor: int) -> None:
    old = obj.get("apiVersion") == "extensions/v1beta1"
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "OnDelete" if old else "RollingUpdate") == "RollingUpdate":
        rolling = {"maxUnavailable": 1, **({"maxSurge": 0} if minor >= 21 else {})}
        strategy["rollingUpdate"] = {**rolling, **(strategy.get("rollingUpdate") or {})}
    spec.setdefault("revisionHistoryLimit", 10)
    generation = spec.pop("templateGeneration", 1) if old else 1
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations.setdefault(TEMPLATE_GENERATION, str(generation))


def _job(spec: Obj) -> None:
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    if isinstance(spec.get("template", {}).get("spec"), dict):
        pod_spec(spec["template"]["spec"])


def _binding(obj: Obj) -> None:
    reference = obj.setdefault("roleRef", {})
    reference.setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _definition(spec: Obj) -> None:
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("listKind", f"{names['kind']}List")
        names.setdefault("singular", names["kind"].lower())
    spec.setdefault("scope", "Namespaced")
    spec.setdefault("conversion", {"strategy": "None"})
    if spec.get("version") and not spec.get("versions"):  # v1beta1's single version
        spec["versions"] = [{"name": spec["version"], "served": True, "storage": True}]


def _service(spec: Obj, minor: int) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] == "ExternalName":
        return
    if minor >= 20:
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    if minor >= 22:
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")


def pod_spec(spec: Obj) -> None:
    """Fill in the defaults of a pod specification, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", _GRACE)
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _container(container: Obj, *, host_network: bool) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    latest = tag in ("", "latest") and "@" not in image
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    limits = container["resources"].get("limits")
    if limits:
        container["resources"]["requests"] = {
            **limits,
            **(container["resources"].get("requests") or {}),
        }
    _ports(container.get("ports"))
    for port in container.get("ports") or []:
        if host_network:
            port.setdefault("hostPort", port.get("containerPort"))
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name):
            _probe(container[name])


def _probe(probe: Obj) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    if probe.get("httpGet"):
        probe["httpGet"].setdefault("scheme", "HTTP")
        probe["httpGet"].setdefault("path", "/")


def _ports(ports: list[Obj] | None) -> None:
    for port in ports or []:
        port.setdefault("protocol", "TCP")


def _volume(volume: Obj) -> None:
    for name in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(name), dict):
            volume[name].setdefault("defaultMode", 420)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")


def admit_pod(obj: Obj, suffix: str, minor: int, token_secret: str = "") -> None:
    """Add what admission adds to a new pod: account, token volume, tolerations, priority, QoS."""
    spec = obj["spec"]
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    name = spec.get("priorityClassName")
    spec.setdefault("priority", _PRIORITIES.get(name, 0))
    if minor >= 19:
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    mirror = "kubernetes.io/config.mirror" in (obj["metadata"].get("annotations") or {})
    if not mirror:
        _tolerate(spec)
        if spec.get("automountServiceAccountToken", True):
            _mount_token(spec, suffix, minor, token_secret)
    status = obj.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos(spec))


def _tolerate(spec: Obj) -> None:
    tolerations = spec.setdefault("tolerations", []) or []
    spec["tolerations"] = tolerations
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        covered = any(
            entry.get("effect") in (None, "", "NoExecute")
            and (entry.get("key") == key or not entry.get("key"))
            for entry in tolerations
        )
        if not covered:
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )


def _mount_token(spec: Obj, suffix: str, minor: int, token_secret: str) -> None:
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    volume: dict[str, Any]
    if minor >= 21:
        name = f"kube-api-access-{suffix}"
        certificate = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": certificate},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ]
        volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
    elif token_secret:
        name = token_secret
        volume = {"name": name, "secret": {"secretName": name, "defaultMode": 420}}
    else:
        return
    needed = False
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        mounts = container.setdefault("volumeMounts", []) or []
        container["volumeMounts"] = mounts
        if not any(mount.get("mountPath") == path for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": path})
            needed = True
    if needed:
        spec["volumes"] = [*(spec.get("volumes") or []), volume]


def qos(spec: Obj) -> str:
    """Return the quality-of-service class of a pod specification."""
    guaranteed = True
    anything = False
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        anything = anything or bool(limits or requests)
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
