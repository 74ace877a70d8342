"""The runner and the gate, with made-up stages and hosts: no change outside a plan, none lost."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kitlib.command import Cmd
from kitlib.errors import (
    ApiError,
    ChecksFailed,
    CommandError,
    ConnectError,
    Interrupted,
    KitError,
    ParamsError,
    ParseError,
    PreconditionError,
)
from kitlib.fanout import Fanned
from kitlib.inventory import Inventory
from kitlib.journal import Journal
from kitlib.model import CLUSTER, Check, CommandResult, Status, Verdict
from kitlib.params import load
from kitlib.plugins import get as get_plugin
from kitlib.stages import (
    STAGES,
    Action,
    Context,
    Plan,
    Stage,
    StageRun,
    get_stage,
    position,
    run_stage,
)
from kitlib.stages.base import expect
from kitlib.stages.presence import absences

PARAMS = Path(__file__).resolve().parent.parent / "params/lab.yaml"
HOSTS = ("control-plane-1", "worker-1", "worker-2")


class FakeDoors:
    """Hosts that remember what was done to them; a command listed in `broken` fails."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.broken: dict[tuple[str, str], Exception | int] = {}
        self.forgotten = 0
        self.alone = self.ended = 0
        self.left: list[str] = []
        self.unreachable: dict[str, Exception] = {}
        self._lock = threading.Lock()

    sees_hosts = True

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        with self._lock:
            self.ran.append((host, str(cmd)))
        failure = self.broken.get((host, str(cmd)), 0)
        if isinstance(failure, BaseException):
            raise failure
        return CommandResult(host, str(cmd), "", "it broke" if failure else "", failure)

    def put(self, host: str, content: str, path: str, *, mode: int = 0o644) -> None:
        self.ran.append((host, f"put {path}"))

    def facts(self, hosts: Sequence[str], *, fresh: bool) -> Fanned:
        return Fanned(
            {}, {name: self.unreachable[name] for name in hosts if name in self.unreachable}
        )

    def forget_facts(self) -> None:
        self.forgotten += 1

    def kube(self, *, wait: float):
        raise AssertionError("no stage here needs the API")

    def forget_kube(self) -> None:
        self.ran.append((CLUSTER, "forget the connection"))

    def quietly(self, host: str, cmd: Cmd) -> CommandResult:
        return self.run(host, cmd)

    def has_cluster(self) -> bool:
        return False

    @contextlib.contextmanager
    def exclusive(self):
        self.alone += 1
        yield self.left

    def end_commands(self) -> None:
        self.ended += 1


class Made(Stage):
    """A stage whose parts the test gives."""

    name = "made"
    title = "Do what the test says"

    def __init__(
        self,
        plan: Plan | None = None,
        checks: Sequence[Check] = (),
        before: Sequence[Check] = (),
        on_check: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan or Plan(reason="nothing to do")
        self._checks = list(checks)
        self._before = list(before)
        self._on_check = on_check

    def preconditions(self, ctx: Context) -> list[Check]:
        return [*super().preconditions(ctx), *self._before]

    def plan(self, ctx: Context) -> Plan:
        return self._plan

    def check(self, ctx: Context) -> list[Check]:
        self._on_check()
        return self._checks


@pytest.fixture
def doors() -> FakeDoors:
    return FakeDoors()


@pytest.fixture
def ctx(doors: FakeDoors, tmp_path: Path) -> Context:
    params = load(PARAMS)
    return Context(
        params=params,
        plugin=get_plugin(params.plugin),
        inventory=Inventory.from_params(params),
        journal=Journal.create(tmp_path, params.cluster, {}),
        doors=doors,
    )


def events(ctx: Context, kind: str) -> list[dict]:
    lines = (ctx.journal.path / "journal.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def change(host: str, word: str) -> Action:
    return Action(host, f"do {word}", Cmd.change("do", word))


def go(stage: Stage, ctx: Context, **kw):
    taken = []
    kw.setdefault("snapshot", lambda at: taken.append(at.journal.stage))
    try:
        return run_stage(stage, ctx, **kw)
    finally:
        ctx.snapshots = taken  # type: ignore[attr-defined]


GOOD = Check("a.b", "worker-1", Status.PASS, "is well")
BAD = Check("a.b", "worker-1", Status.FAIL, "is well", got="ill", expected="well", remedy="cure")


def test_what_is_planned_is_done_recorded_and_returned(ctx, doors):
    plan = Plan((change("worker-1", "a"), change("worker-1", "b"), change("worker-2", "a")), "why")
    outcome = go(Made(plan, [GOOD]), ctx)
    assert outcome.verdict is Verdict.PASS
    assert outcome.changes == plan.changes
    assert outcome.reason == "why"
    assert sorted(doors.ran) == [("worker-1", "do a"), ("worker-1", "do b"), ("worker-2", "do a")]
    assert doors.ran.index(("worker-1", "do a")) < doors.ran.index(("worker-1", "do b"))
    planned = [(e["host"], e["data"]["what"]) for e in events(ctx, "planned")]
    done = [(e["host"], e["data"]["what"]) for e in events(ctx, "change")]
    assert planned == [(c.target, c.what) for c in plan.changes]
    assert sorted(done) == sorted(planned)
    assert {e["data"]["command"] for e in events(ctx, "change")} == {"do a", "do b"}
    (ended,) = events(ctx, "stage.ended")
    assert (ended["stage"], ended["data"]["verdict"], ended["data"]["changes"]) == (
        "made",
        "PASS",
        3,
    )
    assert ctx.snapshots == ["made"]
    assert doors.forgotten == 3, "what was read before a change is not true any more"


def test_what_closes_a_plan_comes_last_and_only_where_all_went_well(ctx, doors):
    plan = Plan(
        (change("worker-1", "a"), change("worker-2", "a")),
        closing=(change("worker-1", "close"),),
        cleanup=(change("worker-2", "end"),),
    )
    outcome = go(Made(plan, [GOOD]), ctx)
    assert outcome.changes == plan.changes
    assert doors.ran[2:] == [("worker-1", "do close"), ("worker-2", "do end")]
    doors.ran.clear()
    doors.broken["worker-2", "do a"] = 1
    with pytest.raises(CommandError):
        go(Made(plan, [GOOD]), ctx)
    assert ("worker-1", "do close") not in doors.ran
    assert doors.ran[-1] == ("worker-2", "do end")


def test_a_dry_run_performs_nothing_and_prints_the_same_plan(ctx, doors):
    plan = Plan(
        (change("worker-1", "a"), Action(CLUSTER, "make", do=lambda _: pytest.fail("done"))),
        cleanup=(change("worker-2", "end"),),
    )
    outcome = go(Made(plan, [BAD], before=[BAD]), ctx, dry_run=True)
    assert outcome.verdict is Verdict.PLANNED
    assert outcome.changes == plan.changes
    assert doors.ran == []
    assert events(ctx, "change") == []
    assert [e["data"]["what"] for e in events(ctx, "planned")] == [c.what for c in plan.changes]
    assert ctx.read_only


def test_nothing_to_do_says_why(ctx, doors):
    outcome = go(Made(Plan(reason="it is there"), [GOOD]), ctx)
    assert (outcome.verdict, outcome.changes, outcome.reason) == (Verdict.PASS, (), "it is there")
    assert doors.ran == []
    assert [e["data"]["text"] for e in events(ctx, "note")] == ["it is there"]


def test_a_failed_check_fails_the_stage_with_its_remedy(ctx):
    with pytest.raises(ChecksFailed) as caught:
        go(Made(checks=[GOOD, BAD]), ctx)
    assert str(caught.value) == (
        "made: 1 check failed\n  FAIL worker-1: is well: got ill, want well; cure"
    )
    (ended,) = events(ctx, "stage.ended")
    assert (ended["data"]["verdict"], ended["data"]["reason"]) == ("FAIL", "made: 1 check failed")
    assert [e["data"]["status"] for e in events(ctx, "check")] == ["PASS", "FAIL"]
    assert ctx.snapshots == ["made"], "the evidence is kept on failure too"


@pytest.mark.parametrize("status", [Status.WARN, Status.SKIP])
def test_a_warning_or_a_skipped_check_does_not_fail_the_stage(ctx, status):
    assert go(Made(checks=[Check("a", "h", status, "s")]), ctx).verdict is Verdict.PASS


def test_a_precondition_that_does_not_hold_stops_before_the_plan(ctx, doors):
    with pytest.raises(PreconditionError, match="made: 1 check failed"):
        go(Made(Plan((change("worker-1", "a"),)), before=[BAD]), ctx)
    assert doors.ran == []
    assert events(ctx, "planned") == []


def test_a_host_out_of_reach_is_an_error_of_its_own_kind(ctx, doors):
    doors.unreachable["worker-2"] = ConnectError("worker-2: cannot connect")
    with pytest.raises(ConnectError, match="made: worker-2: cannot connect"):
        go(Made(), ctx)
    assert [e["host"] for e in events(ctx, "error")] == ["worker-2"]


class Judging(Made):
    """A stage that judges the hosts that it can reach, as ready and verify do."""

    judges_the_rest = True

    def check(self, ctx: Context) -> list[Check]:
        return [*absences(ctx, Status.FAIL), *super().check(ctx)]


def test_a_worker_out_of_reach_fails_a_check_where_the_others_are_judged(ctx, doors):
    doors.unreachable["worker-2"] = ConnectError("worker-2 (root@10.0.0.2): no answer")
    with pytest.raises(ConnectError, match=r"1 host cannot be reached \(worker-2\)") as caught:
        go(Judging(checks=[GOOD]), ctx)
    assert "root@10.0.0.2: no answer" in str(caught.value)
    judged = [(e["host"], e["data"]["id"], e["data"]["status"]) for e in events(ctx, "check")]
    assert judged == [
        ("worker-2", "host.answers", "WARN"),
        ("worker-2", "host.answers", "FAIL"),
        ("worker-1", "a.b", "PASS"),
    ]
    assert events(ctx, "stage.ended")[-1]["data"]["verdict"] == "FAIL"
    doors.unreachable.clear()
    assert go(Judging(checks=[GOOD]), ctx).verdict is Verdict.PASS, "the next stage asks anew"


@pytest.mark.parametrize("host", ["control-plane-1", "worker-1"])
def test_nothing_is_judged_without_a_control_plane_or_with_facts_that_nobody_knows(
    ctx, doors, host
):
    kind = ConnectError if host == "control-plane-1" else ParseError
    doors.unreachable[host] = kind(f"{host}: it broke")
    with pytest.raises(kind):
        go(Judging(checks=[GOOD]), ctx)
    assert events(ctx, "check") == []


def test_a_failing_host_stops_alone_and_the_others_finish(ctx, doors):
    doors.broken["worker-1", "do a"] = 1
    plan = Plan(
        tuple(change(host, word) for host in ("worker-1", "worker-2") for word in "ab"),
        cleanup=(change("control-plane-1", "end"),),
    )
    with pytest.raises(CommandError) as caught:
        go(Made(plan, [GOOD]), ctx)
    assert str(caught.value).startswith("made: worker-1: do a: exit status 1\n  | it broke")
    assert ("worker-1", "do b") not in doors.ran
    assert [each for each in doors.ran if each[0] == "worker-2"] == [
        ("worker-2", "do a"),
        ("worker-2", "do b"),
    ]
    assert doors.ran[-1] == ("control-plane-1", "do end"), "cleaned up all the same"
    ended = {e["host"]: e["data"]["ok"] for e in events(ctx, "host.ended")}
    assert ended == {"worker-1": False, "worker-2": True}
    assert [e["host"] for e in events(ctx, "error")] == ["worker-1"]
    assert events(ctx, "stage.ended")[-1]["data"]["verdict"] == "FAIL"
    assert events(ctx, "check") == [], "what was not finished is not judged"


def test_what_a_failed_stage_made_is_undone_in_reverse_order_unless_it_is_to_be_kept(ctx, doors):
    doors.broken["worker-1", "do a"] = 1
    ends = tuple(change("control-plane-1", word) for word in ("first", "second"))
    plan = Plan((change("worker-1", "a"),), cleanup=ends)
    with pytest.raises(CommandError):
        go(Made(plan), ctx)
    assert [cmd for _, cmd in doors.ran] == ["do a", "do second", "do first"]
    doors.ran.clear()
    ctx.keep = True
    with pytest.raises(CommandError):
        go(Made(plan), ctx)
    assert [cmd for _, cmd in doors.ran] == ["do a"]
    kept = [e["data"]["text"] for e in events(ctx, "note")]
    assert kept == ["kept: no do second", "kept: no do first"]


def test_a_stage_that_may_change_something_is_alone_and_says_what_was_left(ctx, doors):
    go(Made(Plan((change("worker-1", "a"),)), [GOOD]), ctx)
    assert doors.alone > 0
    doors.alone = 0
    go(Made(Plan((change("worker-1", "a"),)), [GOOD]), ctx, dry_run=True)
    assert doors.alone == 0


def test_a_plan_made_before_a_broken_off_command_ended_is_not_applied(ctx, doors):
    run = StageRun(
        Made(Plan((change("worker-1", "a"),)), [GOOD]), ctx, dry_run=False, snapshot=lambda _: None
    )
    run.preconditions()
    run.plan()
    doors.left = ["worker-1: kubeadm join: exit status 0"]
    with pytest.raises(PreconditionError, match=r"out of date: worker-1: kubeadm join") as stale:
        run.apply()
    assert "plan again" in stale.value.remedy
    assert doors.ran == []


def test_an_interrupt_ends_the_commands_before_it_cleans_up(ctx, doors):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    order: list[str] = []
    doors.end_commands = lambda: order.append("end commands")
    plan = Plan(
        (Action("worker-1", "wait", do=interrupt),),
        cleanup=(Action("worker-2", "clean up", do=lambda _: order.append("clean up")),),
    )
    with pytest.raises(Interrupted):
        go(Made(plan), ctx)
    assert order[:2] == ["end commands", "clean up"]


def test_a_look_goes_through_a_restart_of_the_api_and_says_so(ctx):
    answers = [ApiError("API: connection refused"), ConnectError("worker-1: lost")]

    def check() -> None:
        if answers:
            raise answers.pop(0)

    assert go(Made(checks=[GOOD], on_check=check), ctx).verdict is Verdict.PASS
    said = [e["data"]["text"] for e in events(ctx, "progress")]
    assert "API: connection refused" in said[0]
    assert "worker-1: lost" in said[1]


@pytest.mark.parametrize("waited", [False, True])
def test_a_look_that_fails_for_good_or_was_waited_for_ends(ctx, waited):
    calls = []

    def check() -> None:
        calls.append(1)
        error = ApiError("API: no", status=0 if waited else 403)
        error.waited = waited
        raise error

    with pytest.raises(ApiError):
        go(Made(on_check=check), ctx)
    assert calls == [1]


def test_several_failures_are_all_told(ctx, doors):
    doors.broken["worker-1", "do a"] = 1
    doors.broken["worker-2", "do a"] = ConnectError("worker-2: gone")
    with pytest.raises(CommandError) as caught:
        go(Made(Plan((change("worker-1", "a"), change("worker-2", "a")))), ctx)
    assert "  also worker-2: gone" in str(caught.value)
    assert {e["host"] for e in events(ctx, "error")} == {"worker-1", "worker-2"}


def test_what_the_cluster_needs_comes_before_the_hosts_actions(ctx, doors):
    made = Action(CLUSTER, "make", do=lambda hands: hands.put("control-plane-1", "x", "/made"))
    go(Made(Plan((change("worker-1", "a"), made)), [GOOD]), ctx)
    assert doors.ran == [("control-plane-1", "put /made"), ("worker-1", "do a")]
    doors.ran.clear()
    fails = Action(CLUSTER, "make", do=lambda _: (_ for _ in ()).throw(KitError("cluster: no")))
    with pytest.raises(KitError, match="cluster: no"):
        go(Made(Plan((change("worker-1", "a"), fails))), ctx)
    assert doors.ran == [], "the hosts' actions rely on it"


def test_a_change_of_the_cluster_drops_the_connection_to_the_old_one(ctx, doors):
    action = Action("worker-1", "reset", Cmd.change("reset"), changes_cluster=True)
    go(Made(Plan((action,)), [GOOD]), ctx)
    assert doors.ran == [(CLUSTER, "forget the connection"), ("worker-1", "reset")]


@pytest.mark.parametrize("where", ["apply", "check"])
def test_an_interrupt_ends_the_stage_in_the_record(ctx, doors, where):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    stage = (
        Made(
            Plan((Action("worker-1", "wait", do=interrupt),), cleanup=(change("worker-2", "end"),))
        )
        if where == "apply"
        else Made(on_check=interrupt)
    )
    with pytest.raises(Interrupted) as caught:
        go(stage, ctx)
    assert caught.value.exit_code == 130
    assert "goes on from what is true" in caught.value.remedy
    (ended,) = events(ctx, "stage.ended")
    assert ended["data"]["verdict"] == "INTERRUPTED"
    if where == "apply":
        assert doors.ran == [("worker-2", "do end")], "cleaned up all the same"


def test_the_gate_refuses_every_change_of_a_reading_stage(ctx, doors):
    class Reading(Made):
        changes_nothing = True

    with pytest.raises(KitError, match="this stage may not change anything"):
        go(Reading(Plan((change("worker-1", "a"),))), ctx)
    assert doors.ran == []
    assert events(ctx, "change") == []


def test_the_gate_opens_again_for_the_next_stage(ctx, doors):
    go(Made(checks=[GOOD]), ctx, dry_run=True)
    go(Made(Plan((change("worker-1", "a"),)), [GOOD]), ctx)
    assert doors.ran == [("worker-1", "do a")]


def test_reading_refuses_commands_that_change(ctx, doors):
    with pytest.raises(KitError, match="a change outside the gate"):
        ctx.read("worker-1", Cmd.change("rm", "x"))
    assert doors.ran == []
    assert ctx.read("worker-1", Cmd.of("cat", "x")).ok


def test_a_command_must_end_well_where_it_is_expected_to():
    good = CommandResult("h", "x", "out", "", 0)
    assert expect(good) is good
    with pytest.raises(CommandError, match="exit status 2") as caught:
        expect(CommandResult("h", "x", "", "why", 2), remedy="look")
    assert caught.value.remedy == "look"


def test_the_order_of_the_stages_stands_once():
    names = [stage.name for stage in STAGES]
    assert names == ["preflight", "reset", "packages", "init", "network", "join", "ready", "verify"]
    assert position("network") < position("join"), "the plugin is there before the workers join"
    assert [s.name for s in STAGES if s.changes_nothing] == ["preflight", "ready"]
    with pytest.raises(ParamsError, match="did you mean 'packages'"):
        get_stage("package")


def test_a_defect_of_the_kit_ends_the_stage_in_the_record_too(ctx):
    def defect() -> None:
        raise ValueError("not an error of the kit")

    with pytest.raises(ValueError, match="not an error of the kit"):
        go(Made(on_check=defect), ctx)
    (ended,) = events(ctx, "stage.ended")
    assert ended["data"]["verdict"] == "FAIL"
    assert "not an error of the kit" in ended["data"]["reason"]
