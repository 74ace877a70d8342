"""From a manifest's objects to those that are applied, with every difference told.

The parameters' values are set, known traps are avoided, and what cannot work is refused while
nothing is touched yet. The same objects come of the same parameters each time, so that what is in
the cluster can be compared with them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from ipaddress import ip_address

from kitlib.errors import ParamsError, PreconditionError
from kitlib.manifests import traps
from kitlib.manifests.changes import Patch, shown
from kitlib.manifests.images import parse
from kitlib.manifests.objects import Obj, containers, title
from kitlib.manifests.reading import in_order, unique
from kitlib.manifests.served import in_words, newest_fitting
from kitlib.manifests.setting import put, stated
from kitlib.manifests.upgrade import upgrade
from kitlib.params import Params
from kitlib.plugins.entry import minor
from kitlib.plugins.install import Parameter, Place
from kitlib.plugins.schema import Plugin

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is applied.

    Attributes:
        objects: The objects in the order of applying.
        patches: What is applied otherwise than the manifest has it.
        told: What a person should know besides: hazards, traps, images that move.
        secret: True when an object holds a value that must not be kept anywhere.
        where: Where the manifest is from.
    """

    objects: list[Obj]
    patches: tuple[Patch, ...] = ()
    told: tuple[str, ...] = ()
    secret: bool = False
    where: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Every difference and everything told, one line each."""
        return (*dict.fromkeys(map(str, self.patches)), *dict.fromkeys(self.told))


def prepare(
    objects: list[Obj],
    plugin: Plugin,
    params: Params,
    *,
    where: str = "",
    control_plane: str = "",
) -> Prepared:
    """Return the objects as they are applied; those given stay as they are.

    Args:
        objects: The manifest's objects, as `read` returns them.
        plugin: Their plugin.
        params: What is wanted.
        where: Where the manifest is from, for messages.
        control_plane: The address of the first control plane.

    Raises:
        ParamsError: A parameter has no place in this manifest, or one that it needs is missing.
        PreconditionError: It cannot work as it stands, and only a person can say what is meant.
    """
    objects, told = unique(copy.deepcopy(objects), where)
    objects = _served(objects, plugin, params, where, told)
    work = _Work(objects, plugin, params, where, control_plane, told)
    work.pod_cidr()
    work.settings()
    work.parameters()
    work.images()
    version = params.kubernetes_version
    work.patches += traps.not_ready_tolerations(objects, plugin, version)
    work.patches += traps.control_plane_words(objects, version)
    work.patches += traps.on_control_planes(objects, plugin, version)
    work.fixed_addresses()
    work.known()
    return Prepared(in_order(objects), tuple(work.patches), tuple(work.told), work.secret, where)


def _served(
    objects: list[Obj], plugin: Plugin, params: Params, where: str, told: list[str]
) -> list[Obj]:
    """Return objects that the cluster's version serves, where the parameters allow to change them.

    Raises:
        PreconditionError: It does not serve all of them, and the parameters do not allow it.
    """
    version = params.kubernetes_version
    old = in_words(objects, version)
    if not old:
        return objects
    why = f"{plugin.title}: Kubernetes {version} does not serve {old}"
    if not params.allow_unsupported:
        fits = newest_fitting(objects)
        ways = [f"the newest Kubernetes that serves all of it is {fits}"] if fits else []
        if plugin.status.instead:
            ways.append(f"plugins that do the same work now: {', '.join(plugin.status.instead)}")
        ways.append("allow_unsupported: true goes on with the objects as the API has them now")
        raise PreconditionError(f"plugin manifest: {where}: {why}", remedy="; ".join(ways))
    told.append(f"unsupported, and allowed by allow_unsupported: {why}")
    objects, notes = upgrade(objects, version)
    told += notes
    return objects


@dataclass
class _Work:
    """The objects under way, and what was done to them so far."""

    objects: list[Obj]
    plugin: Plugin
    params: Params
    where: str
    control_plane: str
    told: list[str]
    patches: list[Patch] = field(default_factory=list)
    secret: bool = False

    @property
    def own_file(self) -> bool:
        """Whether a person named this very manifest: what it says is meant so."""
        return bool(self.params.plugin_manifest)

    def pod_cidr(self) -> None:
        """Set the pod CIDR; in a person's own manifest only say that it says otherwise."""
        place, wanted = self.plugin.pod_cidr.stated_in, str(self.params.effective_pod_cidr)
        if place is None:
            return
        found = [str(each) for each in stated(self.objects, place)]
        if all(each == wanted for each in found or [str(self.plugin.pod_cidr.default)]):
            return
        if self.own_file and found:
            raise PreconditionError(
                f"plugin manifest: {self.where}: it states the pod CIDR {found[0]}, the cluster's "
                f"is {wanted}",
                remedy=f'set pod_cidr: "{found[0]}", or change it in the file: what '
                "plugin_manifest names is applied as its author meant it",
            )
        self._set(place, wanted, "pod_cidr")

    def settings(self) -> None:
        """Set MTU and backend where the parameters state them."""
        params, plugin = self.params, self.plugin
        if params.pod_mtu and plugin.mtu:
            for place in plugin.mtu.places:
                self._set(place, params.pod_mtu, "pod_mtu")
        if params.plugin_backend and plugin.backend:
            for place in plugin.backend.places:
                value = plugin.backend.values.get(params.plugin_backend, params.plugin_backend)
                self._set(place, value, "plugin_backend")

    def parameters(self) -> None:
        """Set what only the plugin's operator knows."""
        given, missing = self.params.plugin_parameters, []
        for each in self.plugin.parameters:
            value = given.get(each.name) or each.default.format(
                control_plane=self.control_plane,
                pod_cidr=self.params.effective_pod_cidr,
                service_cidr=self.params.service_cidr,
                delegate=self.plugin.needs.delegate,
            )
            if not value and (self._is_dummy(each) if each.dummy else not self.own_file):
                missing.append(f"plugin_parameters: {each.name}: required: {each.what}")
            elif value:
                self.secret |= each.secret
                for place in each.places:
                    self._set(place, value, each.name, secret=each.secret, must=not self.own_file)
        if missing:
            raise ParamsError("\n".join(missing))

    def _is_dummy(self, parameter: Parameter) -> bool:
        """Return whether the manifest still has upstream's dummy where the value belongs."""
        found = {str(each) for place in parameter.places for each in stated(self.objects, place)}
        return any(parameter.dummy in each for each in found)

    def _set(
        self, place: Place, value: str | int, why: str, *, secret: bool = False, must: bool = True
    ) -> None:
        there, patches = put(self.objects, place, value, why, secret=secret)
        self.patches += patches
        if not there and must and not place.placeholder:
            way = place.key or place.env or place.argument or place.field
            raise ParamsError(
                f"plugin manifest: {self.where}: {why}: no {place.kind} "
                f"{place.namespace or 'default'}/{place.name} with {way} to set it in",
                remedy="it is another manifest than the catalogue knows: leave the parameter out, "
                "or name the manifest that fits as plugin_manifest",
            )

    def images(self) -> None:
        """Give images a tag and a registry; say which still move, and refuse what is no image."""
        params = self.params
        release = self.plugin.release_for(
            params.kubernetes_version, nearest=params.allow_unsupported
        )
        tags = release.images if release and not self.own_file else {}
        wrong = []
        for item in self.objects:
            for container in containers(item):
                old = container.get("image")
                if not isinstance(old, str) or not old:
                    continue
                try:
                    image = parse(old)
                except ValueError:
                    wrong.append(f"{title(item)}: {shown(old)}")
                    continue
                pinned = image.pinned(tags)
                if pinned != image:
                    self._image(item, container, str(pinned), "it had no tag that stays")
                elif image.moves:
                    self.told.append(
                        f"{title(item)}: image {old} has no tag that stays: what runs is what the "
                        "registry holds that day"
                    )
                if params.image_registry:
                    moved = str(pinned.at(params.image_registry))
                    self._image(item, container, moved, "image_registry")
        if wrong:
            raise PreconditionError(
                f"plugin manifest: {self.where}: not an image reference: "
                f"{', '.join(dict.fromkeys(wrong))}",
                remedy="a placeholder that nobody filled in is the usual cause: fill it in in a "
                "copy, and name that as plugin_manifest",
            )

    def _image(self, item: Obj, container: Obj, new: str, why: str) -> None:
        old = container["image"]
        if new != old:
            container["image"] = new
            self.patches.append(Patch(title(item), "image", old, new, why))

    def fixed_addresses(self) -> None:
        """Refuse Services whose fixed address is outside of the Service range."""
        services, wanted = self.params.service_cidr, self.plugin.needs.service_cidr
        outside = []
        for item in self.objects:
            address = str((item.get("spec") or {}).get("clusterIP", ""))
            if item["kind"] == "Service" and address not in ("", "None"):
                try:
                    inside = ip_address(address) in services
                except ValueError:
                    inside = False
                if not inside:
                    outside.append(f"{title(item)} at {address}")
        if outside:
            meant = f'set service_cidr: "{wanted}"' if wanted else "choose a service_cidr with it"
            raise PreconditionError(
                f"plugin manifest: {self.where}: fixed addresses outside of service_cidr "
                f"{services}: {', '.join(outside)}",
                remedy=f"{meant}, or change the addresses in a copy and name that as "
                "plugin_manifest",
            )

    def known(self) -> None:
        """Tell what the catalogue knows of this plugin."""
        hazards = self.plugin.hazards
        who = self.plugin.title
        if hazards.moves_host_address:
            self.told.append(
                f"{who} moves the host's own address to a bridge, which can cut SSH off: each host "
                "gets a way back before, which puts the address back by itself"
            )
        if hazards.cni_directory:
            self.told.append(f"{who}: other plugins' files: {hazards.cni_directory}")
        if hazards.private_images:
            self.told.append(
                f"{who}: its images are in no public registry: load them on the hosts, or name "
                "your own registry as image_registry"
            )
        now = minor(self.params.kubernetes_version)
        for trap in self.plugin.traps:
            if trap.since is None or minor(trap.since) <= now:
                self.told.append(f"known trap: {trap.what} - {trap.handled}")
