"""Which resources each Kubernetes version serves by default, and what CRDs add to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kitlib.lab.api.shapes import Described, Shape
from kitlib.lab.api.store import Obj

FIRST, LAST = 15, 36

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

# plural  kind  short names  scope  subresources  [verbs]
_KINDS = """
apiservices APIService - cluster status
bindings Binding - ns - create
certificatesigningrequests CertificateSigningRequest csr cluster approval,status
clusterrolebindings ClusterRoleBinding - cluster -
clusterroles ClusterRole - cluster -
componentstatuses ComponentStatus cs cluster - get,list
configmaps ConfigMap cm ns -
controllerrevisions ControllerRevision - ns -
cronjobs CronJob cj ns status
csidrivers CSIDriver - cluster -
csinodes CSINode - cluster -
csistoragecapacities CSIStorageCapacity - ns -
customresourcedefinitions CustomResourceDefinition crd,crds cluster status
daemonsets DaemonSet ds ns status
deployments Deployment deploy ns scale,status
deviceclasses DeviceClass - cluster -
endpoints Endpoints ep ns -
endpointslices EndpointSlice - ns -
events Event ev ns -
flowschemas FlowSchema - cluster status
horizontalpodautoscalers HorizontalPodAutoscaler hpa ns status
ingressclasses IngressClass - cluster -
ingresses Ingress ing ns status
ipaddresses IPAddress ip cluster -
jobs Job - ns status
leases Lease - ns -
limitranges LimitRange limits ns -
localsubjectaccessreviews LocalSubjectAccessReview - ns - create
mutatingadmissionpolicies MutatingAdmissionPolicy - cluster -
mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding - cluster -
mutatingwebhookconfigurations MutatingWebhookConfiguration - cluster -
namespaces Namespace ns cluster finalize,status
networkpolicies NetworkPolicy netpol ns -
nodes Node no cluster status
persistentvolumeclaims PersistentVolumeClaim pvc ns status
persistentvolumes PersistentVolume pv cluster status
poddisruptionbudgets PodDisruptionBudget pdb ns status
pods Pod po ns binding,eviction,exec,log,status
podsecuritypolicies PodSecurityPolicy psp cluster -
podtemplates PodTemplate - ns -
priorityclasses PriorityClass pc cluster -
prioritylevelconfigurations PriorityLevelConfiguration - cluster status
replicasets ReplicaSet rs ns scale,status
replicationcontrollers ReplicationController rc ns scale,status
resourceclaims ResourceClaim - ns status
resourceclaimtemplates ResourceClaimTemplate - ns -
resourcequotas ResourceQuota quota ns status
resourceslices ResourceSlice - cluster -
rolebindings RoleBinding - ns -
roles Role - ns -
runtimeclasses RuntimeClass - cluster -
secrets Secret - ns -
selfsubjectaccessreviews SelfSubjectAccessReview - cluster - create
selfsubjectreviews SelfSubjectReview - cluster - create
selfsubjectrulesreviews SelfSubjectRulesReview - cluster - create
serviceaccounts ServiceAccount sa ns token
servicecidrs ServiceCIDR - cluster status
services Service svc ns status
statefulsets StatefulSet sts ns scale,status
storageclasses StorageClass sc cluster -
subjectaccessreviews SubjectAccessReview - cluster - create
tokenreviews TokenReview - cluster - create
validatingadmissionpolicies ValidatingAdmissionPolicy - cluster status
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding - cluster -
validatingwebhookconfigurations ValidatingWebhookConfiguration - cluster -
volumeattachments VolumeAttachment - cluster status
volumeattributesclasses VolumeAttributesClass vac cluster -
"""

# group/version  minors  resources (a line that begins with a space goes on)
_SERVED = """
v1 15-36 bindings componentstatuses configmaps endpoints events limitranges namespaces nodes
    persistentvolumeclaims persistentvolumes pods podtemplates replicationcontrollers
    resourcequotas secrets serviceaccounts services
admissionregistration.k8s.io/v1 16-36 mutatingwebhookconfigurations
    validatingwebhookconfigurations
admissionregistration.k8s.io/v1 30-36 validatingadmissionpolicies
    validatingadmissionpolicybindings
admissionregistration.k8s.io/v1 36-36 mutatingadmissionpolicies mutatingadmissionpolicybindings
admissionregistration.k8s.io/v1beta1 15-21 mutatingwebhookconfigurations
    validatingwebhookconfigurations
apiextensions.k8s.io/v1 16-36 customresourcedefinitions
apiextensions.k8s.io/v1beta1 15-21 customresourcedefinitions
apiregistration.k8s.io/v1 15-36 apiservices
apiregistration.k8s.io/v1beta1 15-21 apiservices
apps/v1 15-36 controllerrevisions daemonsets deployments replicasets statefulsets
apps/v1beta2 15-15 controllerrevisions daemonsets deployments replicasets statefulsets
apps/v1beta1 15-15 controllerrevisions deployments statefulsets
authentication.k8s.io/v1 15-36 tokenreviews
authentication.k8s.io/v1 28-36 selfsubjectreviews
authentication.k8s.io/v1beta1 15-21 tokenreviews
authorization.k8s.io/v1 15-36 localsubjectaccessreviews selfsubjectaccessreviews
    selfsubjectrulesreviews subjectaccessreviews
authorization.k8s.io/v1beta1 15-21 localsubjectaccessreviews selfsubjectaccessreviews
    selfsubjectrulesreviews subjectaccessreviews
autoscaling/v2 23-36 horizontalpodautoscalers
autoscaling/v1 15-36 horizontalpodautoscalers
autoscaling/v2beta1 15-24 horizontalpodautoscalers
autoscaling/v2beta2 15-25 horizontalpodautoscalers
batch/v1 15-36 jobs
batch/v1 21-36 cronjobs
batch/v1beta1 15-24 cronjobs
certificates.k8s.io/v1 19-36 certificatesigningrequests
certificates.k8s.io/v1beta1 15-21 certificatesigningrequests
coordination.k8s.io/v1 15-36 leases
coordination.k8s.io/v1beta1 15-21 leases
discovery.k8s.io/v1 21-36 endpointslices
discovery.k8s.io/v1beta1 17-24 endpointslices
events.k8s.io/v1 19-36 events
events.k8s.io/v1beta1 15-24 events
extensions/v1beta1 15-15 daemonsets deployments networkpolicies podsecuritypolicies replicasets
extensions/v1beta1 15-21 ingresses
flowcontrol.apiserver.k8s.io/v1 29-36 flowschemas prioritylevelconfigurations
flowcontrol.apiserver.k8s.io/v1beta3 26-31 flowschemas prioritylevelconfigurations
flowcontrol.apiserver.k8s.io/v1beta2 23-28 flowschemas prioritylevelconfigurations
flowcontrol.apiserver.k8s.io/v1beta1 20-25 flowschemas prioritylevelconfigurations
networking.k8s.io/v1 15-36 networkpolicies
networking.k8s.io/v1 19-36 ingresses ingressclasses
networking.k8s.io/v1 33-36 ipaddresses servicecidrs
networking.k8s.io/v1beta1 15-21 ingresses
networking.k8s.io/v1beta1 18-21 ingressclasses
node.k8s.io/v1 20-36 runtimeclasses
node.k8s.io/v1beta1 15-24 runtimeclasses
policy/v1 21-36 poddisruptionbudgets
policy/v1beta1 15-24 poddisruptionbudgets podsecuritypolicies
rbac.authorization.k8s.io/v1 15-36 clusterrolebindings clusterroles rolebindings roles
rbac.authorization.k8s.io/v1beta1 15-21 clusterrolebindings clusterroles rolebindings roles
resource.k8s.io/v1 34-36 deviceclasses resourceclaims resourceclaimtemplates resourceslices
scheduling.k8s.io/v1 15-36 priorityclasses
scheduling.k8s.io/v1beta1 15-21 priorityclasses
storage.k8s.io/v1 15-36 storageclasses volumeattachments
storage.k8s.io/v1 18-36 csidrivers
storage.k8s.io/v1 17-36 csinodes
storage.k8s.io/v1 24-36 csistoragecapacities
storage.k8s.io/v1 34-36 volumeattributesclasses
storage.k8s.io/v1beta1 15-21 storageclasses volumeattachments csidrivers csinodes
storage.k8s.io/v1beta1 21-26 csistoragecapacities
"""

# Resources that several groups serve are stored once.
_STORED_AS = {
    "extensions/daemonsets": "apps/daemonsets",
    "extensions/deployments": "apps/deployments",
    "extensions/replicasets": "apps/replicasets",
    "extensions/networkpolicies": "networking.k8s.io/networkpolicies",
    "extensions/ingresses": "networking.k8s.io/ingresses",
    "extensions/podsecuritypolicies": "policy/podsecuritypolicies",
    "events.k8s.io/events": "/events",
}

_IN_ALL = {
    "pods", "replicationcontrollers", "services", "daemonsets", "deployments", "replicasets",
    "statefulsets", "horizontalpodautoscalers", "jobs", "cronjobs",
}  # fmt: skip

CRDS = "apiextensions.k8s.io/customresourcedefinitions"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one group version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    store: str
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL
    custom: bool = False
    singular: str = ""
    list_kind: str = ""
    columns: tuple[tuple[str, str, str], ...] = ()
    categories: tuple[str, ...] = ()
    shape: Shape = field(default=Shape(), compare=False, repr=False)

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(slots=True)
class Catalogue:
    """Every resource that the server serves now, by (group, version, plural)."""

    resources: dict[tuple[str, str, str], Resource]
    by_kind: dict[str, Resource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for resource in self.resources.values():
            self.by_kind.setdefault(resource.store, resource)

    def groups(self) -> dict[str, list[str]]:
        """Return group -> versions, the preferred version first."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self.resources:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found


def builtin(minor: int) -> list[Resource]:
    """Return what Kubernetes 1.`minor` serves with no custom resources.

    Raises:
        ValueError: The version is not between 1.15 and 1.36.
    """
    if not FIRST <= minor <= LAST:
        raise ValueError(f"Kubernetes 1.{minor}: only 1.{FIRST} to 1.{LAST} can be emulated")
    kinds = {line.split()[0]: line.split() for line in _KINDS.strip().splitlines()}
    found = []
    for line in _SERVED.strip().replace("\n    ", " ").splitlines():
        group_version, minors, *plurals = line.split()
        first, last = (int(part) for part in minors.split("-"))
        if not first <= minor <= last:
            continue
        group, _, version = group_version.rpartition("/")
        for plural in plurals:
            _, kind, short, scope, subs, *verbs = kinds[plural]
            kept = f"{group}/{plural}"
            found.append(
                Resource(
                    group=group,
                    version=version,
                    plural=plural,
                    kind=kind,
                    namespaced=scope == "ns",
                    store=_STORED_AS.get(kept, kept),
                    short=() if short == "-" else tuple(short.split(",")),
                    subresources=() if subs == "-" else tuple(subs.split(",")),
                    verbs=tuple(verbs[0].split(",")) if verbs else _ALL,
                    singular=kind.lower(),
                    list_kind=f"{kind}List",
                    categories=("all",) if plural in _IN_ALL else (),
                )
            )
    return found


def custom(crd: Obj) -> Iterable[Resource]:
    """Return the resources that one CustomResourceDefinition adds, storage version first."""
    spec = crd["spec"]
    names = spec["names"]
    versions: list[dict[str, Any]] = spec.get("versions") or [
        {"name": spec.get("version", "v1"), "served": True, "storage": True}
    ]
    for version in sorted(versions, key=lambda entry: not entry.get("storage")):
        if not version.get("served", True):
            continue
        subs = version.get("subresources") or spec.get("subresources") or {}
        columns = (
            version.get("additionalPrinterColumns") or spec.get("additionalPrinterColumns") or []
        )
        yield Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec.get("scope", "Namespaced") == "Namespaced",
            store=f"{spec['group']}/{names['plural']}",
            short=tuple(names.get("shortNames") or ()),
            subresources=tuple(sorted(set(subs) & {"status", "scale"})),
            custom=True,
            singular=names.get("singular") or names["kind"].lower(),
            list_kind=names.get("listKind") or f"{names['kind']}List",
            columns=tuple(
                (col["name"], col.get("type", "string"), col.get("jsonPath") or col["JSONPath"])
                for col in columns
                if not col.get("priority")
            ),
            categories=tuple(names.get("categories") or ()),
            shape=Described(schema=_described(version, spec)),
        )


def _described(version: Obj, spec: Obj) -> Obj:
    """Return the schema of one version; v1beta1 had one for all, or none."""
    found = version.get("schema") or spec.get("validation") or {}
    return found.get("openAPIV3Schema") or {}


def catalogue(minor: int, crds: Iterable[Obj] = ()) -> Catalogue:
    """Return everything served: the version's own resources and those of the given CRDs."""
    found = builtin(minor)
    for crd in crds:
        found.extend(custom(crd))
    return Catalogue({(res.group, res.version, res.plural): res for res in found})
