"""Upstream's own manifests through the real kubectl, on versions that take and refuse them."""

from __future__ import annotations

from pathlib import Path

import apikit
import pytest
import upstream
from upstreamkit import MARKS

pytestmark = [
    pytest.mark.skipif(apikit.find_kubectl() is None, reason="kubectl is not installed"),
    *MARKS,
]


@pytest.fixture(scope="module")
def found() -> list[upstream.Manifest]:
    """Every manifest; reading them takes seconds."""
    return upstream.manifests()


def _every_kind_once(found: list[upstream.Manifest]) -> list[upstream.Manifest]:
    """Return few manifests that hold every kind of every version that any of them does."""
    chosen = []
    left = {kind for one in found if not one.before for kind in one.kinds}
    while left:
        best = max(found, key=lambda one: (len(left.intersection(one.kinds)), -len(one.objects)))
        left.difference_update(best.kinds)
        chosen.append(best)
    return chosen


def _shown(rows: list[upstream.Row]) -> str:
    """Print the table (`pytest -s` shows it), and return what went wrong."""
    print(upstream.page(rows))  # noqa: T201 - pytest shows it
    wrong = [f"{row.manifest.name}: {row.applied}" for row in rows if row.applied]
    for row in rows:
        one = row.manifest
        if one.refused_on is None:
            continue
        own = [kind for kind in one.missing(one.refused_on) if kind in one.kinds]
        told = [f'no matches for kind "{kind}" in version "{version}"' for version, kind in own]
        if row.refused != "; ".join(told):
            wrong.append(f"{one.name}: refused because of {row.refused}, not {told}")
    return "\n".join(wrong)


def test_every_kind_of_upstreams_manifests_is_taken_and_refused_by_version(
    found: list[upstream.Manifest], tmp_path: Path
) -> None:
    chosen = _every_kind_once(found)
    rows = list(upstream.run(chosen, tmp_path))
    assert _shown(rows) == ""
    assert any('"DaemonSet" in version "extensions/v1beta1"' in row.refused for row in rows)


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_every_manifest_of_upstream_is_taken_and_refused_by_version(
    found: list[upstream.Manifest], tmp_path: Path
) -> None:
    rows = list(upstream.run(found, tmp_path))
    assert _shown(rows) == ""
    assert upstream.page(rows) == upstream.PAGE.read_text(), "`make upstream` writes it again"


def test_the_page_names_every_manifest(found: list[upstream.Manifest]) -> None:
    lines = [line for line in upstream.PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [one.name for one in found]
    assert len(found) > 70
