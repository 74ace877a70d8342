"""Measuring agents: what is put into a cluster, commands in it, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentkit import NODES, FakeContext, FakeKube, cluster
from podkit import Pod

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, ChecksFailed, DeadlineError, KitError, PreconditionError
from kitlib.journal import utc_text
from kitlib.rights import RIGHTS
from kitlib.runlock import Owner
from kitlib.stages import agent_space
from kitlib.stages import agents as module
from kitlib.stages.agent_objects import EXPIRES, LABELS, OWNER
from kitlib.stages.agent_space import sweep
from kitlib.stages.agents import AgentSet, agents

pytestmark = pytest.mark.timeout(120)

READ = ("get", "list", "watch")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_space, "AGAIN", 0.01)
    monkeypatch.setattr(module, "AGAIN", 0.01)
    monkeypatch.setattr(module, "EVERY", 0.01)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[tuple[Any, FakeKube, Pod]]:
    with cluster(tmp_path) as found:
        yield found


@pytest.fixture
def ctx(tmp_path: Path) -> Any:
    """A context whose agents have no shells: no command runs in them."""
    return FakeContext(FakeKube(), tmp_path)


def wanted(ctx: Any, **how: Any) -> AgentSet:
    return AgentSet.of(ctx, **{"server": False, **how})


# --- What is made ----------------------------------------------------------------------------


def test_what_is_put_into_the_cluster(tmp_path: Path) -> None:
    own = {
        "namespace": "measuring",
        "image": "registry.example.net/tools:1",
        "port": 2000,
        "resources": {"limits": {"memory": "64Mi"}},
        "tolerations": ({"key": "a", "operator": "Exists"},),
    }
    ctx: Any = FakeContext(FakeKube(), tmp_path, **own)
    made: dict[str, Any] = {}
    ctx.api.after = lambda number, method, path: made.update(ctx.api.objects)
    planned = AgentSet.of(ctx, ("w-1",), host_network=True)
    planned.create.do(FakeHands(ctx))
    agent_space.forget(planned.namespace)
    assert planned.namespace.startswith("measuring-")
    space = made[f"/api/v1/namespaces/{planned.namespace}"]["metadata"]
    assert space["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert json.loads(space["annotations"][OWNER])["pid"] == os.getpid()
    assert utc_text() < space["annotations"][EXPIRES] < utc_text(time.time() + 7200)
    sets = f"/apis/apps/v1/namespaces/{planned.namespace}/daemonsets"
    pod_set, host_set = made[f"{sets}/agent-pod"], made[f"{sets}/agent-host"]
    assert host_set["spec"]["template"]["spec"]["hostNetwork"] is True
    assert host_set["spec"]["selector"] != pod_set["spec"]["selector"], "two sets of pods"
    spec = pod_set["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is False
    assert spec["tolerations"] == [{"key": "a", "operator": "Exists"}]
    (container,) = spec["containers"]
    assert container["image"] == "registry.example.net/tools:1"
    assert container["resources"] == {"limits": {"memory": "64Mi"}}
    assert container["command"][-1] == "2000"
    service = made[f"/api/v1/namespaces/{planned.namespace}/services/agents"]["spec"]
    assert service["ports"] == [{"port": 80, "targetPort": 2000, "protocol": "TCP"}]
    labels = pod_set["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert (
        not service["selector"].items()
        <= host_set["spec"]["template"]["metadata"]["labels"].items()
    )


class FakeHands:
    def __init__(self, ctx: Any) -> None:
        self.kube, self.doors, self.journal = ctx.kube, ctx.doors, ctx.journal


def test_the_agents_server_answers_with_its_nodes_name(tmp_path: Path) -> None:
    """The script that agents run, with a server that notes how it was started."""
    from kitlib.stages.agent_objects import daemon_set

    tools = tmp_path / "bin"
    tools.mkdir()
    note = f'echo "$@" >>{tmp_path}/asked; cp "$5"/index.html {tmp_path}/; '
    (tools / "httpd").write_text(f"#!/bin/sh\n{note} exit 1\n")
    (tools / "python3").write_text(f"#!/bin/sh\necho python3 $* >>{tmp_path}/asked; kill $PPID\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    made = daemon_set("pod", ["w-1"], "x", port=18765, resources={}, tolerations=[])
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "NODE_NAME": "w-1", "TMPDIR": str(tmp_path)}
    subprocess.run(command, env=env, check=False, timeout=20)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0].startswith("-f -p 18765 -h /")
    assert asked[1].startswith("python3 -m http.server 18765 --directory /")
    assert (tmp_path / "index.html").read_text() == "w-1\n"


def test_the_rights_that_are_asked_for_are_enough_and_none_too_many(whole, monkeypatch) -> None:
    """The ClusterRole that is printed against what agents ask the API for."""
    given = {
        (right.group, right.resource, verb)
        for right in RIGHTS
        if not right.optional
        for verb in right.verbs
    }
    ctx, kube, _ = whole
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(module, "SERVING_SECONDS", 0.1)
    ctx.params.timeouts.verify = 0.1
    with agents(ctx, AgentSet.of(ctx, ("w-1", "gone"), host_network=True)) as used:
        used.run("w-1", Cmd.of("true"))
    monkeypatch.setattr(kube, "_place", lambda *_: None)
    use_nothing = wanted(ctx, nodes=("w-1",))
    with agents(ctx, use_nothing):
        pass
    asked = {each for call in kube.calls for each in rights(*call)}
    assert asked <= given
    record = {("", kind, verb) for kind in ("nodes", "pods", "events") for verb in READ}
    assert given - asked <= record | {("", "pods/exec", "create")}, "since 1.35 its GET needs that"


def rights(method: str, path: str) -> set[tuple[str, str, str]]:
    """Return the rights that a request needs, as (group, resource, verb)."""
    if path == "/readyz":
        return set()
    if method == "EXEC":
        return {("", "pods/exec", "get")}
    words = path.split("/")[1:]
    group, words = (words[1], words[3:]) if words[0] == "apis" else ("", words[2:])
    if len(words) > 2 and words[0] == "namespaces":
        words = words[2:]
    verb = {"POST": "create", "PUT": "update", "DELETE": "delete"}.get(method, "")
    return {(group, words[0], verb or ("get" if len(words) == 2 else "list"))}


def test_a_refusal_says_where_the_rights_are_listed(ctx) -> None:
    ctx.api.before = failing(2, ApiError("POST: forbidden", status=403))
    with pytest.raises(ApiError) as caught:
        use(ctx)
    assert "kit diagnose --rights" in caught.value.remedy


# --- Agents that run -------------------------------------------------------------------------


def test_commands_run_in_the_agent_of_a_node(whole) -> None:
    ctx, kube, _ = whole
    planned = wanted(ctx, host_network=True)
    with agents(ctx, planned) as found:
        assert found.nodes == NODES
        assert set(found.addresses("host")) == set(NODES)
        assert found.agent("w-1", "host").pod == "agent-host-1"
        for path in ("pod", "host"):
            for _ in range(3):
                assert found.run("w-1", Cmd.of("echo", path), path).stdout == f"{path}\n"
        assert found.run("w-2", Cmd.of("false")).exit_status == 1
        assert found.run("w-2", Cmd.of("echo")).host == "w-2"
    execs = [path for method, path in kube.calls if method == "EXEC"]
    assert execs == [
        f"{planned.namespace}/{pod}" for pod in ("agent-pod-1", "agent-host-1", "agent-pod-2")
    ]
    assert kube.namespaces == []


def test_no_shell_is_opened_once_the_agents_go(whole) -> None:
    """As by a thread of a measurement that was interrupted."""
    ctx, kube, _ = whole
    with agents(ctx, wanted(ctx)) as found:
        assert found.run("w-1", Cmd.of("true")).ok
    for node in ("w-1", "w-2"):
        with pytest.raises(ApiError, match=f"{node}: the agents are being removed"):
            found.run(node, Cmd.of("true"))
    assert sum(method == "EXEC" for method, _ in kube.calls) == 1


def test_each_agent_is_asked_once_for_its_tools(whole) -> None:
    ctx, kube, _ = whole
    with agents(ctx, wanted(ctx, host_network=True)) as found:
        there = {tool for tool in ("ping", "curl", "dig", "iperf3", "ip") if shutil.which(tool)}
        for _ in range(2):
            assert found.tools("w-1") & {"ping", "curl", "dig", "iperf3", "ip"} == there
        assert found.tools("w-1", "host") == found.tools("w-1")
    assert sum(method == "EXEC" for method, _ in kube.calls) == 2


def test_only_reading_commands_run_in_agents(whole) -> None:
    ctx, _, _ = whole
    with agents(ctx, wanted(ctx)) as found, pytest.raises(KitError, match="a defect of the kit"):
        found.run("w-1", Cmd.change("rm", "-r", "/"))


def test_servers_are_waited_for(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with cluster(tmp_path, port=port) as (ctx, _, _), agents(ctx, AgentSet.of(ctx)) as found:
            assert found.service_address == "10.96.0.77"
            assert found.port == port
            assert all(found.serves(node) for node in NODES)
            assert not found.serves("w-1", "host"), "there is no such agent"


def test_an_agent_without_a_server_is_known_as_such(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SERVING_SECONDS", 0.2)
    with cluster(tmp_path, port=1025) as (ctx, _, _), agents(ctx, AgentSet.of(ctx)) as found:
        assert not any(found.serves(node) for node in NODES)


PULLING = {
    "phase": "Pending",
    "containerStatuses": [
        {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    ],
}
UNPLACED = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}],
}


@pytest.mark.parametrize(
    ("status", "told", "remedy"),
    [
        (PULLING, "w-1: no agent runs: ErrImagePull: no such image", "diagnose.image"),
        (UNPLACED, "w-1: no agent runs: not scheduled: Insufficient cpu", "verify stage"),
        ({"phase": "Pending"}, "w-1: no agent runs: Pending", "verify stage"),
    ],
)
def test_an_agent_that_does_not_run_is_named_with_the_reason(ctx, status, told, remedy) -> None:
    ctx.params.timeouts.verify = 0.1
    ctx.api.pod_status["w-1"] = status
    with agents(ctx, wanted(ctx)) as found:
        assert set(found.addresses()) == {"cp-1", "w-2"}
        with pytest.raises(PreconditionError, match=told) as caught:
            found.require()
        assert remedy in caught.value.remedy
        with pytest.raises(PreconditionError, match=told):
            found.run("w-1", Cmd.of("true"))
    assert ctx.api.namespaces == []


def test_a_node_that_got_no_pod_is_told_why(ctx) -> None:
    ctx.params.timeouts.verify = 0.1
    with agents(ctx, wanted(ctx, nodes=("w-1", "gone"))) as found:
        assert found.missing == {("gone", "pod"): "there is no Node of that name"}


def test_what_the_daemon_sets_pods_were_refused_for_is_told(ctx, monkeypatch) -> None:
    ctx.params.timeouts.verify = 0.1
    monkeypatch.setattr(ctx.api, "_place", lambda *_: None)

    def event(number: int, method: str, path: str) -> None:
        if method == "POST" and path.endswith("daemonsets"):
            space = path.split("/")[5]
            ctx.api.objects[f"/api/v1/namespaces/{space}/events/1"] = {
                "reason": "FailedCreate", "message": "exceeded quota: pods",
            }  # fmt: skip

    ctx.api.after = event
    with agents(ctx, wanted(ctx, nodes=("w-1",))) as found:
        assert found.missing == {("w-1", "pod"): "exceeded quota: pods"}


def test_an_api_that_is_away_while_the_agents_start_is_waited_for(ctx) -> None:
    lost: list[int] = []

    def before(number: int, method: str, path: str) -> None:
        if path.endswith("/pods") and len(lost) < 3:
            lost.append(number)
            raise ApiError("no answer")

    ctx.api.before = before
    with agents(ctx, wanted(ctx)) as found:
        found.require()
    assert len(lost) == 3


# --- Nothing is left -------------------------------------------------------------------------


def use(ctx: Any) -> None:
    with agents(ctx, wanted(ctx, host_network=True)) as found:
        assert found.addresses()
        ctx.api.get("/readyz")  # the use


def requests_of(tmp_path: Path) -> int:
    ctx: Any = FakeContext(FakeKube(), tmp_path)
    use(ctx)
    return len(ctx.api.calls)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ApiError("no answer")])
def test_nothing_is_left_whatever_request_fails(tmp_path: Path, when: str, error: Any) -> None:
    """At every request in turn, before and after the API has done it."""
    for at in range(requests_of(tmp_path)):
        ctx: Any = FakeContext(FakeKube(), tmp_path)
        setattr(ctx.api, when, failing(at, error))
        with contextlib.suppress(KeyboardInterrupt, ApiError):
            use(ctx)
        assert ctx.api.namespaces == [], (at, ctx.api.calls[at])


def test_a_refusal_of_the_removal_itself_is_said_with_what_to_do(tmp_path: Path) -> None:
    left_there = 0
    for at in range(requests_of(tmp_path)):
        ctx: Any = FakeContext(FakeKube(), tmp_path)
        ctx.api.before = failing(at, ApiError("forbidden", status=403))
        with pytest.raises(ApiError) as caught:
            use(ctx)
        for name in ctx.api.namespaces:
            left_there += 1
            assert f"kubectl delete namespace {name}" in caught.value.remedy
    assert left_there == 2, "the connection's check, and the removal"


def failing(at: int, error: BaseException) -> Any:
    """Return what fails the request of that number."""

    def fail(number: int, method: str, path: str) -> None:
        if number == at:
            raise error

    return fail


def test_an_interrupt_stays_one(tmp_path: Path) -> None:
    for at in range(requests_of(tmp_path)):
        ctx: Any = FakeContext(FakeKube(), tmp_path)
        ctx.api.before = failing(at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            use(ctx)
        assert ctx.api.namespaces == []


def test_a_namespace_whose_making_comes_late_is_removed_too(ctx) -> None:
    """The person interrupts while the request is on its way; the API does it a moment later."""
    late: list[Any] = []
    create = ctx.api._create

    def slowly(path: str, body: Any) -> Any:
        if body["kind"] == "Namespace":
            late.append((path, body))
            raise KeyboardInterrupt
        return create(path, body)

    def come(number: int, method: str, path: str) -> None:
        if method == "DELETE" and late:
            create(*late.pop())

    ctx.api._create, ctx.api.after = slowly, come
    with pytest.raises(KeyboardInterrupt):
        use(ctx)
    assert ctx.api.namespaces == []


def test_an_error_of_the_use_goes_first(ctx) -> None:
    with pytest.raises(ChecksFailed, match="lost"), agents(ctx, wanted(ctx)):
        raise ChecksFailed("lost")
    assert ctx.api.namespaces == []


def test_with_keep_those_of_a_failure_stay(ctx) -> None:
    ctx.keep = True
    with pytest.raises(ChecksFailed), agents(ctx, wanted(ctx)):
        raise ChecksFailed("lost")
    (kept,) = ctx.api.namespaces
    assert ("note", f"kept: namespace {kept}") in ctx.said
    ctx.keep = False
    use(ctx)
    assert ctx.api.namespaces == [], "the next agents take them along"


def lose(ctx: Any, requests: int = 10**9, error: BaseException | None = None) -> None:
    """Let the API not answer for so many requests from now on; then raise the error, if any."""
    left = iter(range(requests))

    def refuse(number: int, method: str, path: str) -> None:
        if next(left, None) is not None:
            raise ApiError("GET /readyz: no answer from https://cp:6443: refused")

    ctx.api.before = refuse
    if error is not None:
        raise error


def test_an_api_that_comes_back_in_time_is_waited_for(ctx) -> None:
    with agents(ctx, wanted(ctx)):
        lose(ctx, 5)
    assert ctx.api.namespaces == []
    assert any("removing namespace" in text for _, text in ctx.said)


def test_an_api_that_stays_away_is_said_with_what_to_do(ctx, monkeypatch) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.2)
    planned = wanted(ctx)
    with pytest.raises(ApiError) as caught, agents(ctx, planned):
        lose(ctx)
    assert f"namespace {planned.namespace} is not removed: GET /readyz" in caught.value.message
    assert f"kubectl delete namespace {planned.namespace}" in caught.value.remedy
    assert caught.value.exit_code == 5


def test_an_error_of_the_use_says_too_what_is_left(ctx, monkeypatch) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.2)
    planned = wanted(ctx)
    with pytest.raises(ApiError, match="lost in use") as caught, agents(ctx, planned):
        lose(ctx, error=ApiError("lost in use", remedy="look at the API"))
    assert caught.value.remedy.startswith("look at the API\n")
    assert f"kubectl delete namespace {planned.namespace}" in caught.value.remedy


def test_an_api_that_was_waited_for_in_vain_is_not_waited_for_as_long_again(ctx, monkeypatch):
    monkeypatch.setattr(module, "INTERRUPTED_SECONDS", 0.2)
    error = ApiError("no answer")
    error.waited = True
    with pytest.raises(ApiError, match="no answer") as caught, agents(ctx, wanted(ctx)):
        lose(ctx, error=error)
    assert "kubectl delete namespace" in caught.value.remedy


def test_an_interrupt_with_an_api_that_is_away_says_what_is_left(ctx, monkeypatch) -> None:
    monkeypatch.setattr(module, "INTERRUPTED_SECONDS", 0.2)
    planned = wanted(ctx)
    with pytest.raises(KeyboardInterrupt) as caught, agents(ctx, planned):
        lose(ctx, error=KeyboardInterrupt())
    assert f"kubectl delete namespace {planned.namespace}" in str(caught.value)


def test_a_second_interrupt_ends_at_once_and_says_what_may_be_left(ctx) -> None:
    planned = wanted(ctx)

    with pytest.raises(KeyboardInterrupt) as caught, agents(ctx, planned):
        interrupt_twice(ctx)
    assert f"kubectl delete namespace {planned.namespace}" in str(caught.value)


def interrupt_twice(ctx: Any) -> None:
    def again(number: int, method: str, path: str) -> None:
        raise KeyboardInterrupt

    ctx.api.before = again
    raise KeyboardInterrupt


def test_a_namespace_that_does_not_go_is_a_failure(ctx, monkeypatch) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.5)
    kept = ctx.api._do

    def stuck(method: str, path: str, body: Any) -> Any:
        if method == "DELETE":
            why = {"status": "True", "message": "metrics.k8s.io is unavailable"}
            ctx.api.objects[path]["status"] = {"conditions": [why]}
            return {}
        return kept(method, path, body)

    ctx.api._do = stuck
    with pytest.raises(DeadlineError, match=r"last seen: metrics\.k8s\.io is una") as caught:
        use(ctx)
    assert "kubectl delete namespace" in caught.value.remedy


# --- What others left ------------------------------------------------------------------------


def left(ctx: Any, name: str, owner: Owner | None, seconds: float = 600) -> None:
    annotations = {EXPIRES: utc_text(time.time() + seconds)}
    if owner is not None:
        annotations[OWNER] = owner.text
    ctx.api.objects[f"/api/v1/namespaces/{name}"] = {
        "metadata": {"name": name, "labels": LABELS, "annotations": annotations}
    }


def ended_owner() -> Owner:
    """Return a process of this machine that has ended."""
    text = "from kitlib.runlock import Owner; print(Owner.here('run-0', 'agents', 'now').text)"
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    owner = Owner.parse(told.stdout)
    assert owner is not None
    return owner


@pytest.fixture
def others(ctx) -> Iterator[set[str]]:
    """What runs left; yields the names of those that must stay."""
    parent = subprocess.Popen(
        [sys.executable, "-c", "from kitlib.runlock import Owner; "
         "print(Owner.here('run-0', 'agents', 'now').text, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        living = Owner.parse(parent.stdout.readline())
        elsewhere = Owner("run-9", "agents", "ann", "elsewhere", 1, "now", "boot pid:[1] 77")
        left(ctx, "living-here", living)
        left(ctx, "living-elsewhere", elsewhere)
        left(ctx, "ended-here", ended_owner())
        left(ctx, "silent-elsewhere", elsewhere, seconds=-1)
        left(ctx, "nobodys", None)
        left(ctx, "this-process", Owner.here("run-1", "agents", "now"))
        yield {"living-here", "living-elsewhere", "nobodys"}
        parent.communicate("\n")


def test_new_agents_sweep_what_ended_runs_left_and_nothing_else(ctx, others) -> None:
    use(ctx)
    assert set(ctx.api.namespaces) == others


def test_sweeping_leaves_the_living_and_those_in_use_here(ctx, others) -> None:
    planned = wanted(ctx)
    with agents(ctx, planned):
        sweep(ctx)
        assert set(ctx.api.namespaces) == {*others, planned.namespace}


def test_a_sign_of_life_is_given_while_commands_run(tmp_path: Path, monkeypatch) -> None:
    with cluster(tmp_path) as (ctx, kube, _):
        planned = wanted(ctx)
        path = f"/api/v1/namespaces/{planned.namespace}"
        with agents(ctx, planned) as found:
            first = kube.objects[path]["metadata"]["annotations"][EXPIRES]
            found.run("w-1", Cmd.of("true"))
            assert ("PUT", path) not in kube.calls
            monkeypatch.setattr(module, "RENEW_SECONDS", 0.0)
            found.run("w-1", script("true"))
            assert kube.objects[path]["metadata"]["annotations"][EXPIRES] > first
