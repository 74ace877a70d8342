"""The preflight stage with made-up doors: every host gets its judgement, whatever happens to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from factory import host_facts

from kitlib.command import Cmd
from kitlib.errors import ConnectError, HostKeyError, KitError, ParseError, RecordError
from kitlib.facts import HostFacts
from kitlib.fanout import Fanned
from kitlib.inventory import Host, Inventory, Role
from kitlib.journal import Journal
from kitlib.model import Check, CommandResult, Status, failed
from kitlib.params import load
from kitlib.plugins import get as get_plugin
from kitlib.stages import Context, get_stage, run_stage

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params/lab.yaml"
MANIFEST = ROOT / "kitlib/lab/manifests/flannel.yaml"


class Doors:
    """Hosts that answer with golden facts, or fail as they are told."""

    def __init__(self, names: Sequence[str], errors: dict[str, Exception]) -> None:
        self.errors = errors
        self.facts_of = {name: host_facts(name) for name in names}
        self.said: dict[str, str | Exception] = {}
        self.asked: list[tuple[str, str]] = []

    def facts(self, hosts: Sequence[str], *, fresh: bool) -> Fanned[str, HostFacts]:
        assert fresh, "what is judged is read now"
        good = {name: self.facts_of[name] for name in hosts if name not in self.errors}
        return Fanned(good, {name: self.errors[name] for name in hosts if name in self.errors})

    def run(self, host: str, cmd: Cmd) -> CommandResult:
        assert not cmd.mutates
        assert host not in self.errors, "who did not answer is not asked again"
        self.asked.append((host, cmd.brief))
        said = self.said.get(host, "")
        if isinstance(said, Exception):
            raise said
        return CommandResult(host, str(cmd), said, "", 0)


def context(
    tmp_path: Path, count: int, errors: dict[str, Exception], manifest: Path = MANIFEST
) -> Context:
    params = load(PARAMS, {"plugin_manifest": str(manifest)})
    hosts = tuple(
        Host(
            f"node-{n}",
            "192.0.2.1",
            port=n + 1000,
            role=Role.WORKER if n else Role.CONTROL_PLANE,
            node_address=f"10.77.0.{n + 10}",
        )
        for n in range(count)
    )
    params = replace(params, hosts=hosts)
    return Context(
        params=params,
        plugin=get_plugin(params.plugin),
        inventory=Inventory.from_params(params),
        journal=Journal.create(tmp_path, params.cluster, {}),
        doors=Doors([host.name for host in hosts], errors),  # type: ignore[arg-type]
    )


def of(found: Sequence[Check], id: str) -> dict[str, Check]:
    return {each.target: each for each in found if each.id == id}


def test_twenty_hosts_out_of_reach_are_named_at_once(tmp_path: Path) -> None:
    errors: dict[str, Exception] = {
        f"node-{n}": ConnectError(f"node-{n} (root@192.0.2.1:{n}): cannot connect: timed out")
        for n in range(5, 25)
    }
    errors["node-7"] = HostKeyError("node-7: the host key is unknown", remedy="kit trust x.yaml")
    ctx = context(tmp_path, 30, errors)
    found = get_stage("preflight").check(ctx)
    answers = of(found, "host.answers")
    assert {name for name, each in answers.items() if each.status is Status.FAIL} == set(errors)
    assert len(answers) == 30
    assert answers["node-5"].got == (
        "root@192.0.2.1:5: cannot connect: timed out; 0 of 10 other hosts reach it at 10.77.0.15"
    )
    assert answers["node-7"].remedy == "kit trust x.yaml"
    assert len(of(found, "preflight.root")) == 10
    with pytest.raises(ConnectError, match="20 hosts cannot be reached") as error:
        run_stage(get_stage("preflight"), ctx, snapshot=lambda _: None)
    assert all(name in str(error.value) for name in errors)


def test_nobody_answers(tmp_path: Path) -> None:
    errors: dict[str, Exception] = {
        f"node-{n}": ConnectError(f"node-{n}: refused") for n in range(3)
    }
    found = get_stage("preflight").check(context(tmp_path, 3, errors))
    assert [each.got for each in of(found, "host.answers").values()] == ["refused"] * 3
    assert of(found, "preflight.plugin-version")["cluster"].status is Status.PASS


def test_answers_that_nobody_understands_are_no_lost_connection(tmp_path: Path) -> None:
    ctx = context(tmp_path, 2, {"node-1": ParseError("facts links: not JSON: Oops")})
    found = get_stage("preflight").check(ctx)
    assert of(found, "host.facts")["node-1"].got == "facts links: not JSON: Oops"
    assert not isinstance(get_stage("preflight").failure(failed(found)), ConnectError)


def test_a_record_that_cannot_be_written_is_no_hosts_fault(tmp_path: Path) -> None:
    ctx = context(tmp_path, 3, {"node-1": RecordError("runs/x: No space left on device")})
    with pytest.raises(RecordError, match="No space left"):
        get_stage("preflight").check(ctx)


def test_a_connection_that_dies_while_others_are_tried(tmp_path: Path) -> None:
    ctx = context(tmp_path, 2, {})
    assert isinstance(ctx.doors, Doors)
    ctx.doors.said = {"node-0": "10.77.0.11 ping\n", "node-1": ConnectError("node-1: gone")}
    found = of(get_stage("preflight").check(ctx), "preflight.reach")
    assert found["node-0"].status is Status.PASS
    assert (found["node-1"].status, found["node-1"].got[:9]) == (Status.FAIL, "not tried")


def test_only_who_has_a_cluster_is_asked_for_its_nodes(tmp_path: Path) -> None:
    ctx = context(tmp_path, 3, {})
    assert isinstance(ctx.doors, Doors)
    for name, case in (("node-0", "control-plane"), ("node-1", "worker")):
        ctx.doors.facts_of[name] = host_facts(name, kubeadm=case)
    ctx.doors.said = {"node-0": "node/m1\nnode/w1\n"}
    found = of(get_stage("preflight").check(ctx), "preflight.cluster")
    asked = [host for host, what in ctx.doors.asked if "ask the cluster" in what]
    assert asked == ["node-0"]
    assert found["node-1"].got.endswith("nodes m1, w1")
    assert found["node-2"].got == "in no cluster"


def test_a_dry_run_shows_what_it_finds_and_fails_nothing(tmp_path: Path) -> None:
    errors: dict[str, Exception] = {"node-1": KitError("node-1: something")}
    ctx = context(tmp_path, 2, errors)
    outcome = run_stage(get_stage("preflight"), ctx, dry_run=True, snapshot=lambda _: None)
    assert outcome.verdict.value == "PLANNED"
    assert of(outcome.checks, "host.facts")["node-1"].status is Status.FAIL


def test_the_manifest_is_judged_before_anything_is_touched(tmp_path: Path) -> None:
    (good,) = of(
        get_stage("preflight").check(context(tmp_path, 1, {})), "preflight.manifest"
    ).values()
    assert good.status is Status.PASS
    assert good.got == f"6 objects of {MANIFEST}"
    file = tmp_path / "old.yaml"
    file.write_text("apiVersion: extensions/v1beta1\nkind: DaemonSet\nmetadata: {name: d}\n")
    ctx = context(tmp_path, 1, {}, manifest=file)
    (bad,) = of(get_stage("preflight").check(ctx), "preflight.manifest").values()
    assert bad.status is Status.FAIL
    assert "does not serve extensions/v1beta1 (gone since 1.16): DaemonSet d" in bad.got
    assert "the newest Kubernetes that serves all of it is 1.15" in bad.remedy
    file.write_text("{{ template }}: {{")
    (bad,) = of(get_stage("preflight").check(ctx), "preflight.manifest").values()
    assert "not YAML but a template" in bad.got, "a file is read anew"
    kubenet = get_plugin("kubenet")
    ctx.plugin = kubenet
    assert of(get_stage("preflight").check(ctx), "preflight.manifest") == {}
