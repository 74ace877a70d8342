"""How a plugin is installed (manifests, a chart, or files on each host), and what can be set in it.

A setting is changed where it stands in the objects, never by replacing text in a file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from kitlib.plugins.entry import Entry, Supported

__all__ = [
    "Backend",
    "Chart",
    "Datapath",
    "Manifest",
    "Parameter",
    "PerNode",
    "Place",
    "Release",
    "Setting",
]


class Place(Entry):
    """Where an object states a value: one of key, env, argument, field and placeholder says how."""

    kind: StrictStr = ""
    """The object's kind; empty, with `placeholder`, for every object."""
    namespace: StrictStr = ""
    """The object's namespace; empty for one without."""
    name: StrictStr = ""
    """The object's name."""
    key: StrictStr = ""
    """For a ConfigMap or Secret: the data key."""
    path: StrictStr = ""
    """With `key`: the field inside its value, which is JSON or YAML, dotted (`a.b.0.c`); empty: the
    whole value."""
    env: StrictStr = ""
    """For a workload: an environment variable of its containers; absent: upstream's default."""
    argument: StrictStr = ""
    """For a workload: a flag of its containers' command, as `--cluster-cidr`."""
    field: StrictStr = ""
    """For any object: the field itself, dotted (`spec.calicoNetwork.ipPools.0.cidr`)."""
    placeholder: StrictStr = ""
    """Words inside string values that stand for it, as `__NETMASTER_IP__`."""
    form: StrictStr = "{}"
    """How it is written there: {} stands for the value, {escaped} for the value with a backslash
    before each / (upstream's script gives it to sed), all else for itself: `romana-network={}`."""

    @model_validator(mode="after")
    def _one_way(self) -> Place:
        ways = [self.key, self.env, self.argument, self.field, self.placeholder]
        if sum(bool(way) for way in ways) != 1:
            raise ValueError("exactly one of key, env, argument, field and placeholder")
        if not self.placeholder and not (self.kind and self.name):
            raise ValueError("kind and name of the object that states it")
        if self.form.count("{}") + self.form.count("{escaped}") != 1:
            raise ValueError("form: {} or {escaped}, once")
        return self

    def written(self, value: str) -> str:
        """Return a value in the form in which it stands there."""
        return self.form.replace("{escaped}", value.replace("/", r"\/")).replace("{}", value)

    def read(self, text: str) -> str:
        """Return the value that stands there; the whole text where it has another form."""
        before, _, after = self.form.replace("{escaped}", "{}").partition("{}")
        if not (text.startswith(before) and text.endswith(after)):
            return text
        inner = text[len(before) : len(text) - len(after)]
        return inner.replace(r"\/", "/") if "{escaped}" in self.form else inner


class Setting(Entry):
    """A value of the parameters that the manifest states somewhere."""

    places: tuple[Place, ...] = Field(min_length=1)
    """Every place that states it; all are set alike."""
    values: dict[StrictStr, StrictStr] = Field(default={})
    """The values that may be chosen: the parameters' word -> what is written. Empty: any."""


class Datapath(Entry):
    """What one way of getting packets to other nodes does to them, and through which device."""

    encapsulation: StrictStr = ""
    """What packets to other nodes are wrapped in; empty where they are not."""
    overhead_bytes: Annotated[StrictInt, Field(ge=0)] = 0
    """What that takes from the MTU."""
    tunnel: StrictStr = ""
    """The device that they leave through; empty when that is the host's own."""


class Backend(Setting):
    """Where the manifest states how packets get to other nodes, and what each way is."""

    datapaths: dict[StrictStr, Datapath] = Field(default={})
    """For words of `values` with which it is otherwise than the entry says."""

    @model_validator(mode="after")
    def _known_words(self) -> Backend:
        if unknown := set(self.datapaths) - set(self.values):
            raise ValueError(f"datapaths: not among the values: {', '.join(sorted(unknown))}")
        return self


class Parameter(Entry):
    """A value that only the plugin's operator can know."""

    name: Annotated[StrictStr, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Its key under `plugin_parameters`."""
    what: StrictStr
    """What it is, with an example."""
    places: tuple[Place, ...] = Field(min_length=1)
    """Every place that states it."""
    default: StrictStr = ""
    """Its value where the parameters state none; empty: it is required. {control_plane} stands for
    the first control plane's address, {pod_cidr} and {service_cidr} for the networks,
    {delegate} for the plugin that is applied before it."""
    dummy: StrictStr = ""
    """What upstream's manifest has instead of a value, such as 10.10.10.10. Where the manifest has
    something else, somebody has filled it in: a required one is then no longer missing."""
    secret: StrictBool = False
    """Whether it must not be shown or recorded."""


class Release(Entry):
    """One release of the plugin and the Kubernetes versions it is meant for."""

    version: StrictStr
    """The release tag, as it stands in the address."""
    kubernetes: Supported
    """The Kubernetes versions that this release fits."""
    addresses: tuple[StrictStr, ...] = ()
    """Its own addresses, where they are not the usual ones."""
    sha256: dict[StrictStr, Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default={}
    )
    """The last part of an address -> checksum of that file, where it is known."""
    images: dict[StrictStr, StrictStr] = Field(default={})
    """For images that the manifest names without a tag, or as `latest`: the image's path
    (`cloudnativelabs/kube-router`) -> its tag at this release."""


class Manifest(Entry):
    """What `kubectl apply -f` gets."""

    addresses: tuple[StrictStr, ...] = Field(min_length=1)
    """The addresses in the order of applying, {version} standing for the release tag. A path
    starts from the entry's own file."""
    versions: tuple[Release, ...] = Field(min_length=1)
    """The releases, newest first; the first that fits the cluster's version is taken."""


class Chart(Entry):
    """A Helm chart, rendered on the notebook machine (`helm template`) where helm is."""

    repository: StrictStr
    """The chart repository's address."""
    name: StrictStr
    """The chart's name in it."""
    namespace: StrictStr
    """The namespace that it is rendered for."""
    versions: tuple[Release, ...] = Field(min_length=1)
    """The chart's versions, newest first."""
    values: dict[StrictStr, StrictStr | StrictBool | StrictInt] = Field(default={})
    """Values that the kit sets, by dotted path; {pod_cidr}, {service_cidr} and {control_plane}
    stand for the parameters'."""


class PerNode(Entry):
    """A network without a manifest: a bridge, host-local addresses and routes, host by host."""

    file: Annotated[StrictStr, Field(pattern=r"^[\w.-]+\.conflist$")]
    """The name of the configuration in /etc/cni/net.d."""
    network: Annotated[StrictStr, Field(pattern=r"^[\w.-]+$")]
    """The network's name in it; host-local keeps its leases under it."""
    comment: Annotated[StrictStr, Field(pattern=r"^[\w:.,()/ -]+$")]
    """The comment of the masquerade rule, by which it is found again."""
