"""The recorder, against the lab's API: nothing missed, gaps marked, one recorder a run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apikit
import pytest
import yaml

from kitlib.errors import ApiError
from kitlib.journal import Journal
from kitlib.kube import Kube, WatchExpired
from kitlib.recorder import KINDS, Recorder, write_once

NODES = KINDS["nodes"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[list[apikit.Api]]:
    """The running server, in a list: a test may put another in its place."""
    held = [apikit.launch(tmp_path / "api")]
    yield held
    if held[0].process.poll() is None:
        held[0].stop()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "runs", "lab", {})


class Links:
    """Opens and ends a recorder's connection as a session does, and counts."""

    def __init__(self, api: list[apikit.Api]) -> None:
        self._api = api
        self._kube: Kube | None = None
        self.opened = 0

    def connect(self) -> Kube:
        self.disconnect()
        kube = Kube(yaml.safe_load(self._api[0].kubeconfig().read_text()))
        try:
            kube.text("/readyz")
        except ApiError:
            kube.close()
            raise
        self.opened += 1
        self._kube = kube
        return kube

    def disconnect(self) -> None:
        """End the reads: as when the SSH connection closes, the server's side goes away."""
        if self._kube is not None:
            self._kube.close()
            self._kube = None


@pytest.fixture
def recorder(api: list[apikit.Api], journal: Journal) -> Iterator[Recorder]:
    links = Links(api)
    made = Recorder(journal, links.connect, links.disconnect)
    yield made
    if api[0].process.poll() is None:
        api[0].stop()  # watches end with it: the recorder must not wait for their time
    made.stop()


def lines(journal: Journal, kind: str = "nodes") -> list[dict]:
    file = journal.path / "watch" / f"{kind}.jsonl"
    if not file.exists():
        return []
    *whole, _ = file.read_text().split("\n")  # a line is there when its end is
    return [json.loads(line) for line in whole]


def happenings(journal: Journal) -> list[tuple]:
    """Return the nodes' file as short tuples."""
    found: list[tuple] = []
    for line in lines(journal):
        if "obj" in line:
            name = line["obj"]["object"]["metadata"]["name"]
            found.append((line["obj"]["type"], name, line.get("listed", False)))
        else:
            found.append(("gap" if "gap" in line else "relist",))
    return found


def wait_until(true: Callable[[], object]) -> None:
    for _ in range(2000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


def admin(api: list[apikit.Api]) -> Kube:
    return Kube(yaml.safe_load(api[0].kubeconfig().read_text()))


def test_what_was_there_and_what_happens_is_written(api, journal, recorder):
    with admin(api) as kube:
        kube.create(NODES, apikit.node("early"))
        assert recorder.start()
        assert recorder.recording
        wait_until(lambda: ("ADDED", "early", True) in happenings(journal))
        kube.create(NODES, apikit.node("late"))
        kube.delete(f"{NODES}/late")
        wait_until(lambda: ("DELETED", "late", False) in happenings(journal))
    seen = happenings(journal)
    assert seen[0] == ("relist",)
    assert seen.index(("ADDED", "late", False)) < seen.index(("DELETED", "late", False))
    assert ("gap",) not in seen
    for line in lines(journal):
        assert line["t"] > 1e9
        # of a Node that was there already they say when its fields were written
        assert ("managedFields" in json.dumps(line)) <= bool(line.get("listed"))


def test_it_waits_for_an_api_that_is_not_there_yet(api, journal, recorder):
    port, directory = api[0].port, api[0].directory
    api[0].stop()
    assert recorder.start()
    api[0] = apikit.launch(directory, port=port)
    wait_until(lambda: happenings(journal)[:1] == [("relist",)])
    assert ("gap",) not in happenings(journal), "before the first answer nothing was missed"


def test_a_killed_api_leaves_a_marked_gap_and_nothing_is_missed(api, journal, recorder):
    port, directory = api[0].port, api[0].directory
    with admin(api) as kube:
        for name in ("stays", "goes"):
            kube.create(NODES, apikit.node(name))
        recorder.start()
        listed = {("ADDED", name, True) for name in ("stays", "goes")}
        wait_until(lambda: listed <= set(happenings(journal)))
    known = len(lines(journal))
    before = lines(journal)[-1]["t"]
    api[0].process.kill()
    api[0].process.wait()
    api[0] = apikit.launch(directory, port=port)
    with admin(api) as kube:
        kube.delete(f"{NODES}/goes")
        kube.create(NODES, apikit.node("new"))
        wait_until(
            lambda: {"goes", "new"} <= {each[1] for each in happenings(journal)[known:] if each[1:]}
        )
    after = happenings(journal)[known:]
    assert after[:2] == [("gap",), ("relist",)]
    types = {each[1]: each[0] for each in after[2:]}
    assert types["goes"] == "DELETED"
    assert types["new"] in ("ADDED", "MODIFIED")
    gap = lines(journal)[known]["gap"]
    assert gap["since"] == pytest.approx(before)
    assert gap["why"]
    with admin(api) as kube:  # and it goes on watching
        kube.create(NODES, apikit.node("after"))
        wait_until(lambda: ("ADDED", "after", False) in happenings(journal))


def test_an_expired_watch_is_listed_again_over_the_same_link(api, journal):
    """The other kinds' watches go on: a new link would tear them all down."""
    links = Links(api)
    recorder = Recorder(journal, links.connect, links.disconnect)
    expired = threading.Event()
    real = Kube.watch

    def watch(self, path, version, **kw):
        if path == NODES and not expired.is_set():
            expired.set()
            raise WatchExpired(f"watch {path}: too old resource version", status=410)
        return real(self, path, version, **kw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kube, "watch", watch)
        recorder.start()
        try:
            wait_until(lambda: happenings(journal).count(("relist",)) == 2)
            assert [each[0] for each in happenings(journal)] == ["relist", "gap", "relist"]
            assert links.opened == 1
        finally:
            api[0].stop()
            recorder.stop()


def test_only_one_recorder_writes_a_run(api, journal, recorder):
    assert recorder.start()
    assert recorder.start(), "starting twice is starting once"
    other = Recorder(Journal.open(journal.path), Links(api).connect, lambda: None)
    assert not other.start()
    assert not other.recording
    code = (
        "import sys; from pathlib import Path; from kitlib.journal import Journal\n"
        "from kitlib.recorder import Recorder\n"
        "other = Recorder(Journal.open(Path(sys.argv[1])), None, None)\n"
        "sys.exit(3 if not other.start() else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(journal.path)], cwd=apikit.REPO, check=False
    )
    assert done.returncode == 3
    wait_until(lambda: lines(journal))
    api[0].stop()
    recorder.stop()
    assert not recorder.recording
    links = Links(api)
    after = Recorder(Journal.open(journal.path), links.connect, links.disconnect)
    assert after.start(), "the lock is free again"
    after.stop()


def test_stopping_leaves_no_thread(api, journal):
    links = Links(api)
    recorder = Recorder(journal, links.connect, links.disconnect)
    recorder.start()
    wait_until(lambda: lines(journal))
    api[0].stop()
    recorder.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("watch-")]


def test_stopping_while_there_is_no_api_leaves_no_thread(api, journal, recorder):
    api[0].stop()
    recorder.start()
    recorder.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("watch-")]
    assert lines(journal) == []


def test_one_reading_writes_every_kind(api, journal):
    with admin(api) as kube:
        kube.create(NODES, apikit.node("one"))
        write_once(journal, kube)
    assert ("ADDED", "one", True) in happenings(journal)
    for kind in KINDS:
        assert lines(journal, kind)[0]["relist"] is True


class Listing:
    """An API with one pod of somebody's, and nothing else."""

    def get(self, path: str) -> dict:
        told = {
            "env": [{"name": "DB", "value": "pw-1"}],
            "command": ["run", "--key=pw-2"],
            "args": ["pw-3"],
            "livenessProbe": {"httpGet": {"httpHeaders": ["pw-4"]}},
        }
        applied = {"kubectl.kubernetes.io/last-applied-configuration": "pw-5", "team": "shop"}
        container = {"name": "app", "image": "shop:1", **told}
        spec = {"nodeName": "w-1", "containers": [container], "initContainers": [container]}
        pod = {"metadata": {"name": "shop", "uid": "1", "annotations": applied}, "spec": spec}
        return {"items": [pod] if path == KINDS["pods"] else []}


def test_what_programs_of_pods_are_told_is_not_recorded(journal):
    write_once(journal, Listing())
    text = (journal.path / "watch" / "pods.jsonl").read_text()
    assert "pw-" not in text
    (pod,) = [line["obj"]["object"] for line in lines(journal, "pods") if "obj" in line]
    kept = [{"name": "app", "image": "shop:1"}]
    assert pod["spec"] == {"nodeName": "w-1", "containers": kept, "initContainers": kept}
    assert pod["metadata"]["annotations"] == {"team": "shop"}
