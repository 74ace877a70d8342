"""The `kit` command on labs of the tests' own: parameter files, runs, and what they recorded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_help import HOSTS, Lab, running_lab, until

from kitlib import cli
from kitlib.errors import KitError
from kitlib.model import Verdict
from kitlib.session import Session
from kitlib.stages import STAGE_NAMES, STAGES
from kitlib.stages.base import Action, Context, Stage

ROOT = Path(__file__).resolve().parents[2]
KIT = (sys.executable, "-m", "kitlib.cli")
MARK = "KIT_TEST_COMMAND"
"""In the environment of every command of these tests, so that what it leaves running is found."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    run_dir: Path | None

    @property
    def text(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def record(self) -> dict[str, Any]:
        """run.json of the run that the command made."""
        assert self.run_dir is not None, f"it left no record\n{self.text}"
        loaded: dict[str, Any] = json.loads((self.run_dir / "run.json").read_text())
        return loaded

    def passed(self) -> Done:
        assert self.code == 0, self.text
        return self

    def failed(self, code: int, *words: str) -> Done:
        """Check the exit code, that each word is in the message, and that it is not PASS."""
        assert self.code == code, self.text
        for word in words:
            assert re.search(word, self.err), f"no {word!r} in:\n{self.err}"
        assert "PASS" not in self.out.splitlines()[-1:], self.out
        return self

    def kept(self, verdict: str = "FAIL") -> Done:
        """Check that the record is whole and has this verdict."""
        record = self.record
        assert record["verdict"] == verdict, record
        assert record["ended"], record
        assert record["reason"], record
        ends = [line["data"] for line in lines(self.run_dir) if line["kind"] == "run.ended"]
        assert [end["verdict"] for end in ends] == [verdict]
        return self


class Kit:
    """`kit` with one parameter file, which belongs to one lab (or to none that runs)."""

    def __init__(self, home: Path, params: Mapping[str, Any], lab: Lab | None = None) -> None:
        self.home = home
        self.lab = lab
        self.file = home / "params" / "lab.yaml"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.params = dict(params)
        self.file.write_text(yaml.safe_dump(self.params, sort_keys=False))

    @property
    def state_dir(self) -> Path:
        return self.home / ".lab"

    def with_params(self, name: str, **changes: Any) -> Kit:
        """Return a Kit on the same lab whose file differs in these keys (a dict is merged)."""
        params = dict(self.params)
        for key, value in changes.items():
            merge = isinstance(value, dict) and isinstance(params.get(key), dict)
            params[key] = {**params[key], **value} if merge else value
        other = object.__new__(Kit)
        other.home, other.lab, other.params = self.home, self.lab, params
        other.file = self.file.with_name(f"{name}.yaml")
        other.file.write_text(yaml.safe_dump(params, sort_keys=False))
        return other

    def with_text(self, name: str, text: str) -> Kit:
        """Return a Kit whose parameter file is this text."""
        other = self.with_params(name)
        other.file.write_text(text)
        return other

    # --- the command -------------------------------------------------------------------------

    def start(
        self, *args: str, wrap: tuple[str, ...] = (), program: tuple[str, ...] = KIT
    ) -> Running:
        """Start `kit ...`; a `{params}` among the arguments is this file."""
        return Running(self, (*wrap, *program, *args))

    def run(self, *args: str) -> Done:
        """Return how `kit ...` ended, as a process of its own."""
        return self.start(*args).wait()

    def build(self, *options: str) -> Done:
        return self.run("build", "{params}", *options)

    def call(self, *args: str) -> Done:
        """Return how `kit ...` ended in this process: the same, without Python's start."""
        before = self.runs()
        handler = signal.getsignal(signal.SIGTERM)
        out, err = io.StringIO(), io.StringIO()
        argv = ["kit", *(word.replace("{params}", str(self.file)) for word in args)]
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", argv)
            try:
                cli.main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                signal.signal(signal.SIGTERM, handler)
        made = self.runs() - before
        done = Done(code, out.getvalue(), err.getvalue(), made.pop() if made else None)
        assert "Traceback" not in done.text, done.text
        return done

    def stage(self, name: str, *options: str) -> Done:
        return self.call("stage", name, "{params}", *options)

    def stand(self, upto: str = "join", *, first: str = "reset", **options: Any) -> None:
        """Have the cluster stand: the stages from `first` up to that one, which must pass.

        They are run only where one of them has something to do.
        """
        wanted = STAGES[STAGE_NAMES.index(first) : STAGE_NAMES.index(upto) + 1]
        with self.session(**options) as session:
            if not _done(session, wanted):
                for stage in wanted:
                    session.stage(stage.name)
            session.finish(Verdict.PASS)

    def clean(self) -> None:
        """Have clean hosts."""
        self.stand("reset", rebuild=True)

    def runs(self) -> set[Path]:
        return {path.parent for path in (self.home / "runs").glob("*/*/run.json")}

    # --- in this process ---------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        with Session.open(self.file, **options) as session:
            yield session

    # --- the lab -----------------------------------------------------------------------------

    def on(self, host: str, command: str) -> str:
        """Return what a command printed on a lab host; it must end well."""
        assert self.lab is not None
        result = self.lab.run(command, host)
        self.lab.close()
        assert result.ok, f"{host}: {command}: {result.stdout}{result.stderr}"
        return str(result.stdout)

    def everywhere(self, command: str) -> dict[str, str]:
        return {host: self.on(host, command) for host in HOSTS}

    def kubectl(self, words: str) -> str:
        return self.on(HOSTS[0], f"kubectl --kubeconfig /etc/kubernetes/admin.conf {words}")

    def namespaces(self) -> list[str]:
        return self.kubectl("get namespaces -o name").split()


def _done(session: Session, stages: Sequence[Stage]) -> bool:
    """Return whether none of these stages has anything to do, from one reading of the hosts."""
    if stages[-1].changes_nothing:
        return False  # what it finds is what it is run for
    try:
        return not any(stage.plan(session.context).actions for stage in stages)
    except KitError:
        return False


class Running:
    """A `kit` command under way."""

    def __init__(self, kit: Kit, args: tuple[str, ...]) -> None:
        self._kit = kit
        self._before = kit.runs()
        self.token = f"{os.getpid()}-{id(self)}"
        self.tmp = Path(tempfile.mkdtemp(prefix="e2e-", dir=kit.home))
        self.process = subprocess.Popen(
            [word.replace("{params}", str(kit.file)) for word in args],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.tmp), MARK: self.token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def run_dir(self) -> Path | None:
        """The run directory that the command made; None before it did."""
        made = self._kit.runs() - self._before
        return made.pop() if len(made) == 1 else None

    def until_line(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Return when such a line is in the journal of the command's run; end it if none comes."""

        def there() -> bool:
            assert self.process.poll() is None, self.wait().text
            return any(wanted(line) for line in lines(self.run_dir))

        try:
            until(there, 180)
        except BaseException:
            self._kill()  # it would hold the lock of the lab that all tests share
            raise

    def interrupt(self, signum: int = signal.SIGINT) -> Done:
        """Send what Ctrl-C sends: to every process of the terminal's foreground group."""
        os.killpg(self.process.pid, signum)
        return self.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def left(self) -> list[str]:
        """Return the command lines of what the command started and did not end."""
        found = []
        wanted = f"{MARK}={self.token}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def wait(self, seconds: float = 300) -> Done:
        """Return how it ended; nothing of it may be left, and no traceback shown."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except BaseException:
            self._kill()
            raise
        done = Done(self.process.returncode, out, err, self.run_dir)
        assert "Traceback" not in done.text, done.text
        until(lambda: not self.left(), 5)
        sockets = [path.name for path in self.tmp.glob("kit-*")]
        assert not sockets, f"left in TMPDIR: {sockets}"
        return done


def lines(run_dir: Path | None) -> list[dict[str, Any]]:
    """Return the journal of a run; a line that is being written is left out."""
    file = run_dir / "journal.jsonl" if run_dir else Path("/nonexistent")
    if not file.is_file():
        return []
    return [
        json.loads(line) for line in file.read_text().splitlines(keepends=True) if line[-1:] == "\n"
    ]


def stage_ends(run_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Return stage -> the data of its stage.ended line (the last one of it)."""
    return {line["stage"]: line["data"] for line in lines(run_dir) if line["kind"] == "stage.ended"}


def told(run_dir: Path | None, kind: str) -> list[tuple[str, str]]:
    """Return (host, what) of the `planned` or `change` lines, probe namespaces without number."""
    return [
        (line["host"], re.sub(r"kit-diagnose-\w+", "kit-diagnose", line["data"]["what"]))
        for line in lines(run_dir)
        if line["kind"] == kind
    ]


def params_for(lab_spec: Any, **changes: Any) -> dict[str, Any]:
    """Return parameters of the shape of params/lab.yaml for a lab."""
    hosts = [
        {
            "name": host.name,
            "address": "127.0.0.1",
            "port": host.ssh_port,
            "role": host.role,
            "node_address": host.address,
        }
        for host in lab_spec.hosts
    ]
    return {
        "cluster": "test",
        "kubernetes_version": "1.22.3",
        "plugin": "flannel",
        "plugin_source": f"http://127.0.0.1:{lab_spec.manifest_port}",
        "confirm_reset": "test",
        "hosts": hosts,
        "ssh": {
            "user": "root",
            "identity_file": "../.lab/id_ed25519",
            "known_hosts": "../.lab/known_hosts",
        },
        "probe": {"samples": 10, "interval": 0.05},
        "timeouts": {"init": 120, "join": 120, "ready": 60, "verify": 60},
        **changes,
    }


@contextlib.contextmanager
def lab_kit(
    home: Path, hosts: Sequence[str] = HOSTS, time_factor: float = 0.02, **changes: Any
) -> Iterator[Kit]:
    """Start a lab and yield the `kit` for it; the lab ends afterwards."""
    with running_lab(home / ".lab", hosts=hosts, time_factor=time_factor) as lab:
        yield Kit(home, params_for(lab.spec, **changes), lab)


class Killed(BaseException):
    """The process is gone: nothing is undone."""


def by_killed_runs(
    kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    killing: Sequence[str],
    work: Callable[[Session], Any],
) -> tuple[list[str], Any]:
    """Do a work by runs that are killed one after another, and a last one that is not.

    Args:
        kit: The cluster.
        monkeypatch: What kills.
        killing: How the changes begin behind which a run is killed, in their order.
        work: What every run sets out to do.

    Returns:
        All changes that they made, and what the last run's work returned.
    """
    done: list[str] = []
    left = list(killing)
    real, dead, result = Context.perform, False, None

    def perform(ctx: Context, action: Action) -> None:
        nonlocal dead
        if dead:
            raise Killed
        real(ctx, action)
        done.append(action.what)
        if left and action.what.startswith(left[0]):
            left.pop(0)
            dead = True
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Context, "perform", perform)
        for _ in range(len(killing) + 1):
            dead = False
            with kit.session() as session, contextlib.suppress(Killed):
                result = work(session)
    assert left == []
    return done, result
