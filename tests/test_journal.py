"""The run directory: append-only by several processes, without secrets, never half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kitlib.command import MASK, Cmd, Secret
from kitlib.errors import ParamsError, RecordError
from kitlib.journal import Journal, append_line, latest_run, mask_text, utc_text
from kitlib.model import CommandResult
from kitlib.progress import read_lines
from kitlib.runs import load_run

TOKEN = "abcdef.0123456789abcdef"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIMfake\n-----END EC PRIVATE KEY-----"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path, "lab", {"plugin": "flannel"})


def lines(journal: Journal) -> list[dict]:
    return [json.loads(line) for line in (journal.path / "journal.jsonl").read_text().splitlines()]


def everything(path: Path) -> str:
    return "\n".join(file.read_text() for file in path.rglob("*") if file.is_file())


def test_a_new_run_has_its_layout_and_its_record(journal, tmp_path):
    assert journal.path.parent == tmp_path / "lab"
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", journal.path.name)
    assert {path.name for path in journal.path.iterdir()} == {
        "run.json", "journal.jsonl", "raw", "watch", "samples", "notebooks",
    }  # fmt: skip
    record = journal.record()
    assert record["plugin"] == "flannel"
    assert record["run_id"] == journal.path.name
    assert (record["verdict"], record["ended"]) == (None, None)
    assert [line["kind"] for line in lines(journal)] == ["run.started"]


def test_a_line_says_when_where_and_what(journal):
    journal.stage = "join"
    journal.event("progress", host="worker-1", text="waiting")
    journal.event("note", stage="", text="no stage")
    _, first, second = lines(journal)
    assert set(first) == {"t", "mono", "stage", "host", "kind", "data"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["t"])
    assert (first["stage"], first["host"], first["kind"]) == ("join", "worker-1", "progress")
    assert first["data"] == {"text": "waiting"}
    assert second["stage"] == ""
    assert 0 <= first["mono"] <= second["mono"]


def test_another_process_goes_on_on_the_same_clock(journal):
    again = Journal.open(journal.path)
    again.event("note")
    journal.event("note")
    clock = [line["mono"] for line in lines(journal)]
    assert clock == sorted(clock)


def test_lines_of_several_processes_and_threads_never_mix(journal):
    count, writers = 150, 4
    code = (
        "import sys; from pathlib import Path; from kitlib.journal import Journal\n"
        "journal = Journal.open(Path(sys.argv[1]))\n"
        f"for number in range({count}):\n"
        "    journal.event('note', host=sys.argv[2], number=number, text='x' * 3000)\n"
    )
    here = Path(__file__).resolve().parent.parent
    others = [
        subprocess.Popen([sys.executable, "-c", code, str(journal.path), f"p{n}"], cwd=here)
        for n in range(writers)
    ]
    with ThreadPoolExecutor(2) as pool:
        for host in ("t0", "t1"):
            pool.submit(
                lambda who: [journal.event("note", host=who, number=n) for n in range(count)], host
            )
    assert [process.wait(60) for process in others] == [0] * writers
    by_host: dict[str, list[int]] = {}
    for line in lines(journal)[1:]:
        by_host.setdefault(line["host"], []).append(line["data"]["number"])
    assert by_host == {host: list(range(count)) for host in by_host}, (
        "every line whole, each writer's in its order"
    )
    assert len(by_host) == writers + 2


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"kubeadm join --token {TOKEN} x", f"kubeadm join --token {MASK} x"),
        (f"a\n{PEM}\nb", f"a\n-----BEGIN EC PRIVATE KEY-----{MASK}\nb"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", f"-----BEGIN PRIVATE KEY-----{MASK}"),
        ("    client-key-data: LS0tLS1CRUdJTiBSU0E=", f"    client-key-data: {MASK}"),
        ("--certificate-key " + "0f" * 32, f"--certificate-key {MASK}"),
        ('{"token":"eyJhbGciOiJSUzI1NiIs.e30.x"}', f'{{"token":{MASK}}}'),
    ],
)  # fmt: skip
def test_secrets_are_masked_by_their_form(text, kept):
    assert mask_text(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "0f" * 32,
        "worker-1 192.168.100.12 10:00:00.123456",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
        "kube-flannel-ds-x7k2p.16b3a5 the token was created",
        "client-certificate-data: see above",
    ],
)
def test_what_is_no_secret_stays_readable(text):
    assert mask_text(text) == text


def test_of_two_known_secrets_the_longer_goes_first():
    for known in (["abc", "abc-long-one"], ["abc-long-one", "abc"]):
        assert mask_text("x abc-long-one y", known) == f"x {MASK} y"


def test_nothing_of_a_commands_secrets_is_on_disk(journal):
    secret, later = "hunter2-hunter2", "given-away-by-init"
    cmd = Cmd.change("kubeadm", "join", "--token", Secret(secret))
    journal.command(
        cmd,
        CommandResult("worker-1", str(cmd), f"using {secret}\n{TOKEN}", f"{PEM}\nwarn", 1, 0.5),
    )
    journal.forget(later, "")
    journal.event("note", text=f"a {later}", nested={"deep": [f"{secret}", TOKEN]}, number=3)
    journal.keep("snapshots/init/kubelet.log", f"x {later} {secret}")
    journal.end("FAIL", f"because of {secret}")
    text = everything(journal.path)
    for part in (secret, later, TOKEN, "MHcCAQEEIMfake"):
        assert part not in text
    assert MASK in text


def test_a_commands_whole_output_is_kept_and_the_journal_points_to_it(journal):
    cmd = Cmd.of("/usr/bin/kubeadm", "version")
    result = CommandResult("worker-1", str(cmd), "out 1\nout 2\n", "err 1\n", 3, 1.5)
    journal.command(cmd, result)
    journal.command(cmd, result)
    _, first, second = lines(journal)
    assert first["data"]["raw"] != second["data"]["raw"]
    assert (first["host"], first["data"]["exit_status"]) == ("worker-1", 3)
    assert first["data"]["seconds"] == 1.5
    assert "-worker-1-kubeadm-" in first["data"]["raw"]
    kept = (journal.path / first["data"]["raw"]).read_text()
    assert kept.startswith("$ /usr/bin/kubeadm version\n# host worker-1, exit status 3")
    assert "--- stdout\nout 1\nout 2\n" in kept
    assert "--- stderr\nerr 1\n" in kept


def test_a_reader_never_sees_half_a_record(journal):
    stop, broken = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                if journal.record()["plugin"] != "flannel":
                    broken.append("lost")
            except ValueError as error:
                broken.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(2) as pool:
        for name in ("a", "b"):
            pool.submit(
                lambda key: [journal.update(**{key: "x" * 20_000 + str(n)}) for n in range(60)],
                name,
            )
    stop.set()
    reader.join()
    assert broken == []
    assert journal.record()["a"].endswith("59")
    assert journal.record()["b"].endswith("59"), "no update of another thread is lost"
    left = {path.name for path in journal.path.iterdir() if path.name.startswith(".")}
    assert left == set(), "no temporary file stays"


def test_secrets_can_be_added_while_others_write(journal):
    """Every host's thread brings its own secrets while the others mask theirs."""
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(
                lambda base: [
                    (journal.forget(f"secret-{base}-{n:04}"), journal.event("note", text="x"))
                    for n in range(80)
                ],
                base,
            )
            for base in range(4)
        ]
    for future in done:
        future.result()
    for base in range(4):
        for n in range(80):
            assert mask_text(f"secret-{base}-{n:04}") == MASK


def test_a_torn_line_spoils_nothing_else(journal):
    journal.event("note", text="before")
    with (journal.path / "journal.jsonl").open("a") as handle:
        handle.write('{"t": "2026-11-22T18:')
    assert [line["kind"] for line in read_lines(journal.path / "journal.jsonl", 0)[0]] == [
        "run.started",
        "note",
    ]
    journal.event("lost", text="on the torn line")
    journal.event("note", text="after")
    found, offset = read_lines(journal.path / "journal.jsonl", 0)
    assert [line["data"].get("text") for line in found] == [None, "before", "after"]
    assert offset == (journal.path / "journal.jsonl").stat().st_size
    assert load_run(journal.path).damaged == 1


def test_the_end_is_the_last_line_and_stands_in_the_record(journal):
    journal.stage = "verify"
    journal.end("PASS")
    record, last = journal.record(), lines(journal)[-1]
    assert (record["verdict"], record["reason"]) == ("PASS", "")
    assert record["ended"] >= record["started"]
    assert (last["kind"], last["stage"], last["data"]["verdict"]) == ("run.ended", "", "PASS")


def test_only_a_run_directory_can_be_opened(tmp_path):
    with pytest.raises(ParamsError, match="a run directory is wanted"):
        Journal.open(tmp_path)


def test_the_latest_run_is_of_that_cluster(tmp_path):
    assert latest_run(tmp_path, "lab") is None
    for cluster, name in (("lab", "20260101T000000Z-a"), ("lab", "20270101T000000Z-b"),
                          ("other", "20280101T000000Z-c")):  # fmt: skip
        (tmp_path / cluster / name).mkdir(parents=True)
        (tmp_path / cluster / name / "run.json").write_text("{}")
    (tmp_path / "lab" / "20290101T000000Z-empty").mkdir()
    found = latest_run(tmp_path, "lab")
    assert found is not None
    assert found.name == "20270101T000000Z-b"


def test_times_are_utc_with_microseconds():
    assert utc_text(0.25) == "1970-01-01T00:00:00.250000Z"


def test_values_that_json_does_not_know_are_written_as_text(tmp_path):
    append_line(tmp_path / "x.jsonl", {"path": Path("/a"), "umlaut": "ü"})
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"path": "/a", "umlaut": "ü"}
    assert (tmp_path / "x.jsonl").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value


def test_a_full_disk_is_said_once_and_then_the_end_is_orderly(journal):
    """/dev/full answers every write as a full disk does."""
    file = journal.path / "journal.jsonl"
    before = len(lines(journal))
    kept = file.rename(journal.path / "kept")
    file.symlink_to("/dev/full")
    with pytest.raises(RecordError, match="No space left on device") as failure:
        journal.event("note", text="lost")
    assert "make room" in failure.value.remedy
    journal.event("note", text="while it unwinds")
    journal.update(verdict="PASS")
    journal.keep("some.txt", "text")
    assert len(kept.read_text().splitlines()) == before
    assert not (journal.path / "raw" / "some.txt").exists()
    assert journal.record()["verdict"] is None


def test_a_run_directory_that_cannot_be_made_is_a_record_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RecordError, match="cannot be written"):
        Journal.create(tmp_path / "runs", "lab", {})
