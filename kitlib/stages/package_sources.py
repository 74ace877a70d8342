"""What must be known of the package sources before a host is touched: offers, keys, versions."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from urllib.request import Request, urlopen

from kitlib.command import script
from kitlib.errors import ParamsError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.facts.repository import versions
from kitlib.fanout import fan_out
from kitlib.model import Check
from kitlib.params import Params
from kitlib.software.apt import VERSIONED
from kitlib.software.openpgp import fingerprint
from kitlib.software.repository import key_address, wanted_fingerprint
from kitlib.stages.base import Context

__all__ = ["fetch_key", "offers", "standing"]

FETCH_SECONDS = 30
MAX_KEY = 200_000
LOOK_SECONDS = 300
_SHOWN = 5

_LOOK = """\
set -e
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
chmod 755 "$d"
mkdir -p "$d/lists/partial" "$d/cache/archives/partial"
apt-get update -q -o Dir::State::lists="$d/lists" -o Dir::Cache="$d/cache" >&2
apt-cache madison kubeadm -o Dir::State::lists="$d/lists" -o Dir::Cache="$d/cache"
"""
"""Asks the repositories in a directory of its own: the host's own lists stay as they are."""


def fetch_key(params: Params, kind: str) -> str:
    """Return the file of the repository's key, its fingerprint checked.

    Args:
        params: What is wanted.
        kind: `deb` or `rpm`.

    Raises:
        ParamsError: It cannot be fetched, or is no key.
        PreconditionError: It is another key than the wanted one.
    """
    where, wanted = key_address(params, kind), wanted_fingerprint(params)
    try:
        request = Request(where, headers={"User-Agent": "kit"})  # noqa: S310 - http(s) only
        with urlopen(request, timeout=FETCH_SECONDS) as answer:  # noqa: S310
            text = str(answer.read(MAX_KEY).decode())
        found = fingerprint(text)
    except (OSError, HTTPException, ValueError) as error:
        raise ParamsError(
            f"packages: the repository's key: {where}: {getattr(error, 'reason', None) or error}",
            remedy="check packages.source and packages.mirror; the address must be reachable from "
            "this machine",
        ) from error
    if found != wanted:
        raise PreconditionError(
            f"packages: the repository's key: {where}: its fingerprint is {found}, wanted is "
            f"{wanted}",
            remedy="somebody may stand between; if a mirror signs with a key of its own, compare "
            "the fingerprint with its owner's and write it as packages.key_fingerprint",
        )
    return text


def offers(ctx: Context, facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return for each host that lacks packages whether its own repositories offer the version.

    Hosts that have the packages, and other sources than `host`, are not asked. Where the lists that
    a host read last do not have the version, its repositories are asked anew, beside those lists.
    """
    params = ctx.params
    if params.packages.source != "host":
        return []
    lacking = [
        name
        for name, here in facts.items()
        if here.repository.manager == "apt-get"
        and any(here.version(package) != params.kubernetes_version for package in VERSIONED)
    ]

    def offered(name: str) -> tuple[str, ...]:
        known = facts[name].repository.offered
        if _has(known, params.kubernetes_version):
            return known
        look = script(_LOOK, timeout=LOOK_SECONDS, label="ask the repositories for kubeadm")
        result = ctx.read(name, look)
        return versions(result.stdout) if result.ok else known

    found = fan_out(offered, lacking).raise_first()
    return [_offer(name, found[name], params.kubernetes_version) for name in lacking]


def _has(offered: tuple[str, ...], version: str) -> bool:
    return any(each.startswith(f"{version}-") for each in offered)


def _offer(name: str, offered: tuple[str, ...], version: str) -> Check:
    more = f" and {len(offered) - _SHOWN} older" if len(offered) > _SHOWN else ""
    return Check.that(
        _has(offered, version),
        "packages.offered",
        name,
        "the host's repositories offer the Kubernetes version",
        got=version if _has(offered, version) else (", ".join(offered[:_SHOWN]) or "none") + more,
        expected=f"kubeadm {version}",
        remedy="choose an offered version, or have the kit use the community's repository: "
        "packages: {source: community} in the parameters",
    )


def standing(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return a failure for each host whose packages would change under a cluster that stands."""
    checks = []
    for name, here in facts.items():
        installed = here.version("kubelet")
        if here.kubeadm.clean or not installed or installed == params.kubernetes_version:
            continue
        checks.append(
            Check.that(
                False,
                "packages.upgrade",
                name,
                "no cluster runs on packages that would change",
                got=f"a node with kubelet {installed}",
                expected=f"{params.kubernetes_version}, or no cluster",
                remedy="the kit does not upgrade a cluster: use `kubeadm upgrade` there, or run "
                "the reset stage first",
            )
        )
    return checks
