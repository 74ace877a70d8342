"""Facts for tests: healthy hosts as text, changed section by section, then really parsed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kitlib import facts
from kitlib.facts import HostFacts
from kitlib.facts.sections import split
from kitlib.plugins import Catalogue, Plugin, catalogue, get

CASES = Path(__file__).parent / "data/facts"
SUBJECTS = {
    "host": "debian",
    "links": "worker",
    "routes": "worker",
    "kernel": "good",
    "packages": "installed",
    "kubeadm": "after-reset",
    "cni": "flannel",
    "runtime": "not-ready-network",
    "leftovers": "flannel",
    "setup": "kept",
    "containerd": "debian-12",
    "repository": "lab",
    "names": "debian",
    "clock": "good",
}


@cache
def case(subject: str, name: str) -> dict[str, Any]:
    """Return one golden case."""
    loaded: dict[str, Any] = yaml.safe_load((CASES / subject / f"{name}.yaml").read_text())
    return loaded


def host_facts(
    name: str = "worker-1",
    *,
    at: tuple[float, float] | None = None,
    sections: Any = None,
    known: Catalogue | None = None,
    **cases: str,
) -> HostFacts:
    """Return a host's facts.

    Args:
        name: The host's name.
        at: The asking machine's time before and after.
        sections: Section name -> text that replaces it.
        known: The plugins by which files and devices are told apart; None is the kit's.
        cases: Subject -> name of the golden case to take instead of the healthy one.
    """
    chosen = {**SUBJECTS, **cases}
    text = "".join(case(subject, which)["stdout"] for subject, which in chosen.items())
    found = {part: (each.text, each.status) for part, each in split(text).items()}
    found.setdefault("ports", ("", 0))
    found["host.hostname"] = (f"{name}\n", 0)
    found["host.machine-id"] = (f"id-of-{name}\n", 0)
    found["host.product-uuid"] = (f"uuid-of-{name}\n", 0)
    for part, body in (sections or {}).items():
        found[part] = (body, 0)
    whole = "".join(f"@@ {part}\n{body}\n@@ = {rc}\n" for part, (body, rc) in found.items())
    return facts.parse(name, whole, known or catalogue(), at=at)


def plugin_like(name: str, changes: Any = None) -> Plugin:
    """Return a plugin of the catalogue with other values laid over its own, part by part."""
    return Plugin.model_validate(_over(get(name).model_dump(), changes or {}))


def _over(under: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **under,
        **{
            key: _over(under[key], value)
            if isinstance(value, dict) and isinstance(under.get(key), dict)
            else value
            for key, value in changes.items()
        },
    }
