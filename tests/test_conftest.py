"""The promise of CI: with KIT_REQUIRE_ALL=1 what would be skipped fails, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="no sshd here")
def test_marked():
    pass

def test_inside():
    pytest.skip("no user namespaces here")

def test_real():
    pass
"""
MODULE = 'import pytest\npytest.importorskip("no_such_package_at_all")\n'


@pytest.mark.parametrize(("required", "status"), [("1", 1), ("", 0)])
def test_skips_become_failures_where_everything_is_required(tmp_path, required, status):
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "test_module.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-rsfE", "--color=no",
         "--continue-on-collection-errors", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "KIT_REQUIRE_ALL": required, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    words = "1 passed, 1 failed, 2 error" if required else "1 passed, 3 skipped"
    counted = done.stdout.splitlines()[-1]
    for word in words.split(", "):
        assert word in counted
    for reason in ("no sshd here", "no user namespaces here", "no_such_package_at_all"):
        assert reason in done.stdout
