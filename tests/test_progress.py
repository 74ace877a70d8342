"""Progress: what the journal's lines add up to, and what a person reads of them."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from kitlib.journal import Journal
from kitlib.progress import Board, Follower, describe, read_lines


def line(kind, host="", stage="join", mono=1.0, **data):
    return {"t": "", "mono": mono, "stage": stage, "host": host, "kind": kind, "data": data}


def test_the_board_knows_who_does_what_since_when():
    board = Board()
    board.feed(line("stage.started", mono=1))
    board.feed(line("command.started", "worker-1", mono=2, command="kubeadm join"))
    board.feed(line("command.started", "worker-2", mono=3, command="kubeadm join"))
    assert board.stage == "join"
    assert {host: (a.text, a.since) for host, a in board.active.items()} == {
        "worker-1": ("kubeadm join", 2),
        "worker-2": ("kubeadm join", 3),
    }
    board.feed(line("command", "worker-1", mono=9))
    board.feed(line("host.ended", "worker-2", mono=10))
    assert not board.active
    assert board.now == 10
    board.feed(line("progress", "worker-1", mono=11, text="x"))
    board.feed(line("stage.ended", mono=12))
    assert (board.stage, board.active) == ("", {})


def test_the_same_wait_keeps_its_start_while_its_seconds_count_up():
    board = Board()
    for at, text in [(5, "NotReady: cni plugin not initialized, 0 s"),
                     (7, "NotReady: cni plugin not initialized, 2 s")]:  # fmt: skip
        board.feed(line("progress", "worker-2", mono=at, text=text))
    activity = board.active["worker-2"]
    assert (activity.since, activity.text.rsplit(", ")[-1]) == (5, "2 s")
    board.feed(line("progress", "worker-2", mono=8, text="Ready"))
    assert board.active["worker-2"].since == 8


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (line("stage.started", title="Join the workers"), "join: Join the workers"),
        (line("stage.ended", verdict="PASS", seconds=1.25, reason=""), "join: PASS in 1.2 s"),
        (line("stage.ended", verdict="FAIL", seconds=1, reason="no"), "join: FAIL in 1.0 s (no)"),
        (line("change", "worker-1", what="join it"), "  worker-1: join it"),
        (line("planned", "worker-1", what="join it"), "  worker-1: join it"),
        (line("progress", "worker-1", text="waits"), "  worker-1: waits"),
        (line("error", "worker-1", message="a\nb"), "  worker-1: FAILED: a"),
        (line("error", message=""), "  FAILED: "),
        (line("check", "w", status="FAIL", summary="s", got="g"), "  w: FAIL: s: got g"),
        (line("check", "w", status="PASS", summary="s", got="g"), ""),
        (line("command", "w"), ""),
        (line("something.new", "w"), ""),
    ],
)  # fmt: skip
def test_a_line_for_a_person(entry, text):
    assert describe(entry) == text


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal.create(tmp_path, "lab", {})
    made.stage = "ready"
    return made


def test_without_a_terminal_the_follower_prints_plain_lines_each_state_once(journal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=60)
    with Follower(journal.path, console):
        journal.event("stage.started", title="Wait", dry_run=False)
        journal.event("planned", host="cluster", what="shown when it is done")
        for seconds in range(3):
            journal.event("progress", host="worker-2", text=f"NotReady: no cni, {seconds} s")
        journal.event("progress", host="worker-2", text="Ready [bold]not markup[/bold]")
        journal.event("stage.ended", verdict="PASS", seconds=3.0, reason="")
    assert out.getvalue().splitlines() == [
        "ready: Wait",
        "  worker-2: NotReady: no cni, 0 s",
        "  worker-2: Ready [bold]not markup[/bold]",
        "ready: PASS in 3.0 s",
    ]
    assert "\x1b" not in out.getvalue()
    assert not [t for t in threading.enumerate() if t.name == "progress"]


def test_a_dry_run_shows_what_is_planned(journal):
    out = io.StringIO()
    with Follower(journal.path, Console(file=out, force_terminal=False)):
        journal.event("stage.started", title="Wait", dry_run=True)
        journal.event("planned", host="worker-1", what="would be reset")
    assert "  worker-1: would be reset" in out.getvalue()


def test_a_terminal_shows_the_live_board(journal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    journal.event("stage.started", title="Wait", dry_run=False)
    journal.event("command.started", host="worker-1", command="kubeadm join " + "x" * 200)
    with Follower(journal.path, console) as follower:
        for _ in range(200):
            if follower._board.active:
                break
            threading.Event().wait(0.01)
        console.print(follower._render())
    assert "worker-1" in out.getvalue()
    assert "kubeadm join" in out.getvalue()


def test_lines_are_read_from_where_the_last_reading_ended(journal):
    path = journal.path / "journal.jsonl"
    first, offset = read_lines(path, 0)
    assert [each["kind"] for each in first] == ["run.started"]
    assert read_lines(path, offset) == ([], offset)
    journal.event("note", text="ü")
    with path.open("ab") as handle:
        handle.write(b'{"half')
    second, offset = read_lines(path, offset)
    assert [each["data"] for each in second] == [{"text": "ü"}]
    assert read_lines(path, offset) == ([], offset)
