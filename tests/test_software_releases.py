"""The newest known patch of each Kubernetes minor."""

from __future__ import annotations

import pytest

from kitlib.plugins import catalogue
from kitlib.software.releases import NEWEST_PATCH, newest_patch


@pytest.mark.parametrize(
    ("version", "newest"), [("1.22", "1.22.17"), ("1.22.3", "1.22.17"), ("v1.15.0", "1.15.12")]
)
def test_a_minors_newest_patch(version: str, newest: str):
    assert newest_patch(version) == newest


@pytest.mark.parametrize("version", ["1.99", "2.22"])
def test_a_minor_that_is_not_known_has_none(version: str):
    assert newest_patch(version) == ""


def test_no_minor_is_missing_between_the_oldest_and_the_newest():
    assert sorted(NEWEST_PATCH) == list(range(min(NEWEST_PATCH), max(NEWEST_PATCH) + 1))


def test_the_newest_version_of_every_plugin_is_known():
    assert all(newest_patch(plugin.kubernetes.max) for plugin in catalogue().values())
