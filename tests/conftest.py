"""What every test gets: nothing of this machine's own configuration, and no silent skip in CI."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitlib import masking

sys.path.append(str(Path(__file__).parent / "lab"))  # apikit serves both folders

REQUIRE_ALL = "KIT_REQUIRE_ALL"
"""Set to 1, a test whose real part is missing fails instead of being skipped.

Other people's files, which are no part of the project (the marker `upstream`), are no such part."""

# A shell starts what it puts into the background with Ctrl-C ignored, and so its children: here and
# in the commands that the tests interrupt it must count.
signal.signal(signal.SIGINT, signal.default_int_handler)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_UNSET = ("KUBECONFIG", "SSH_AUTH_SOCK", "KIT_TRACEBACK", "FORCE_COLOR", "NO_COLOR", "CLICOLOR")


@pytest.fixture(autouse=True)
def own_surroundings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty home (so no SSH configuration), no kubeconfig, no proxy, no remembered secrets."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    fonts = tmp_path_factory.getbasetemp() / "matplotlib"  # one font cache for all kernels
    monkeypatch.setenv("MPLCONFIGDIR", str(fonts))
    monkeypatch.setattr(masking, "_remembered", {})  # other tests' secrets


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    required = os.environ.get(REQUIRE_ALL) == "1" and not item.get_closest_marker("upstream")
    if report.skipped and required:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, and {REQUIRE_ALL} is set: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[pytest.CollectReport]:
    report = yield
    if report.skipped and os.environ.get(REQUIRE_ALL) == "1":
        report.outcome = "failed"
        report.longrepr = (
            f"{collector.nodeid}: skipped, and {REQUIRE_ALL} is set: {_reason(report)}"
        )
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr
    return str(where[2]) if isinstance(where, tuple) else str(where)


@pytest.fixture
def repo() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent
