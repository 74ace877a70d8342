"""What the verbs share: a session opened with the options that were given, and its record named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.cli.terminal import opened
from kitlib.errors import KitError

LAB = Path(__file__).parents[1] / "params/lab.yaml"


@pytest.mark.parametrize("error", [KitError("no"), KeyboardInterrupt()])
def test_a_verb_that_breaks_off_says_where_its_record_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    options = {"runs": str(tmp_path), "plugin": None}
    with pytest.raises(type(error)), opened(LAB, options, dry_run=True) as session:
        raise error
    assert capsys.readouterr().out == f"record: {session.journal.path}\n"
    assert session.journal.path.is_relative_to(tmp_path)


def test_a_verb_that_ends_well_says_itself_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(LAB, {"runs": str(tmp_path), "plugin": "calico"}) as session:
        assert session.plugin.name == "calico"
    assert capsys.readouterr().out == ""
