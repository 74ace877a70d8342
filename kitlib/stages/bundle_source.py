"""The bundle of `packages: {source: directory}` beside the hosts: does it fit, what is there."""

from __future__ import annotations

from collections.abc import Mapping

from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.model import CLUSTER, Check
from kitlib.params import Params
from kitlib.software import directory
from kitlib.software.bundle import Bundle, read
from kitlib.stages.base import Context, expect

__all__ = ["bundle_fits", "bundle_of", "images_there", "inside"]


def bundle_of(ctx: Context) -> Bundle | None:
    """Return the bundle that the parameters name; None for other sources.

    Raises:
        ParamsError: The directory is no bundle.
    """
    packages = ctx.params.packages
    if packages.source != "directory" or packages.directory is None:
        return None
    return read(packages.directory)


def bundle_fits(
    bundle: Bundle | None, facts: Mapping[str, HostFacts], params: Params
) -> list[Check]:
    """Return whether a bundle is for the wanted cluster, and for each host's system."""
    if bundle is None:
        return []
    wanted = f"Kubernetes {params.kubernetes_version}, {params.plugin}"
    got = f"Kubernetes {bundle.kubernetes_version}, {bundle.plugin}"
    remedy = "make a bundle with these parameters: `kit bundle`"
    found = [
        Check.that(
            got == wanted,
            "packages.bundle",
            CLUSTER,
            "the bundle is for the wanted cluster",
            got=got,
            expected=wanted,
            remedy=remedy,
        )
    ]
    for name, here in facts.items():
        system = f"{here.host.os_id} {here.host.os_version}"
        found.append(
            Check.that(
                system == bundle.system and (not bundle.emulated or here.is_lab),
                "packages.bundle-system",
                name,
                "the bundle is for the host's system",
                got=f"a bundle for {bundle.system}, made in a lab"
                if bundle.emulated and not here.is_lab
                else f"a bundle for {bundle.system}",
                expected=system,
                remedy="make the bundle on a host of that system: `kit bundle --host`",
            )
        )
    return found


def inside(ctx: Context, name: str, bundle: Bundle) -> directory.Here:
    """Return what a host has of a bundle, read now."""
    return directory.Here.parse(expect(ctx.read(name, directory.installed_command(bundle))).stdout)


def images_there(ctx: Context, bundle: Bundle) -> list[Check]:
    """Return for each host whether it has every image of a bundle."""
    names = [host.name for host in ctx.hosts]
    got = fan_out(lambda name: inside(ctx, name, bundle), names).raise_first()
    return [
        Check.that(
            not (lacks := directory.missing_images(got[name], bundle)),
            "packages.images",
            name,
            "the images of the bundle are there",
            got=f"{len(bundle.images)} images"
            if not lacks
            else "without " + ", ".join(each.name for each in lacks),
            expected=f"{len(bundle.images)} images",
            remedy="run the packages stage; `ctr -n k8s.io images ls` shows what is there",
        )
        for name in names
    ]
