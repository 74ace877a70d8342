"""How a plugin is installed (manifests, a chart, or files on each host), and what can be set in it.

A setting is changed where it stands in the objects, never by replacing text in a file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from kitlib.plugins.entry import Entry, Supported

__all__ = ["Chart", "Manifest", "Parameter", "PerNode", "Place", "Release", "Setting"]


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

    @model_validator(mode="after")
    def _one_way(self) -> Place:
        ways = [self.key, self.env, self.argument, self.field, self.placeholder]
        if sum(bool(way) for way in ways) != 1:
            raise ValueError("exactly one of key, env, argument, field and placeholder")
        if not self.placeholder and not (self.kind and self.name):
            raise ValueError("kind and name of the object that states it")
        return self


class Setting(Entry):
    """A value of the parameters that the manifest states somewhere."""

    places: tuple[Place, ...] = Field(min_length=1)
    """Every place that states it; all are set alike."""
    values: dict[StrictStr, StrictStr] = Field(default={})
    """The values that may be chosen: the parameters' word -> what is written. Empty: any."""


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
    the first control plane's address, {pod_cidr} and {service_cidr} for the networks."""
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

    file: StrictStr
    """The name of the configuration in /etc/cni/net.d."""
    network: StrictStr
    """The network's name in it; host-local keeps its leases under it."""
    comment: StrictStr
    """The comment of the masquerade rule, by which it is found again."""
