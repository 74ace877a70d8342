"""`kit preflight` on a lab: silent on what is good, right about faults, whole with hosts down."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kit_help import Done, Kit, params_for, told
from lab_help import HOSTS, free_spec

from kitlib.lab import verbs

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS


def judged(done: Done) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(done.out)
    assert loaded["run_dir"] == str(done.run_dir)
    return loaded


def bad(done: Done) -> set[tuple[str, str, str]]:
    """Return (status, id, target) of what failed and what stands out."""
    return {
        (each["status"], each["id"], each["target"])
        for each in judged(done)["checks"]
        if each["status"] in ("FAIL", "WARN")
    }


def look(kit: Kit, *options: str) -> Done:
    return kit.call("preflight", "{params}", "--format", "json", *options)


def test_good_hosts_pass_without_a_word_of_blame(kit: Kit) -> None:
    kit.clean()
    done = kit.call("preflight", "{params}").passed().kept("PASS")
    assert "FAIL" not in done.out
    assert "WARN" not in done.out
    assert re.search(r"^preflight: PASS \(\d+ checks", done.out.splitlines()[-1])
    assert f"record: {done.run_dir}" in done.out
    assert not told(done.run_dir, "change")
    identities = kit.everywhere("cat /sys/class/dmi/id/product_uuid /etc/machine-id")
    assert len(set(identities.values())) == len(HOSTS)
    known = {each["id"] for each in judged(look(kit))["checks"] if each["status"] == "PASS"}
    assert {f"preflight.unique.{what}" for what in ("hostname", "machine-id", "mac")} <= known
    assert {"preflight.unique.product-uuid", "preflight.time-zone", "preflight.reach"} <= known


def test_every_fault_is_found_by_its_check_and_the_remedy_mends_it(kit: Kit) -> None:
    kit.clean()
    verbs.break_(kit.state_dir, "duplicate-hostname", WORKER_1)
    verbs.break_(kit.state_dir, "clock-skew", WORKER_2)
    verbs.break_(kit.state_dir, "swap-on", WORKER_2)
    done = look(kit)
    assert done.code == 8
    assert bad(done) == {
        ("FAIL", "preflight.unique.hostname", "cluster"),
        ("WARN", "preflight.hostname", WORKER_1),
        ("WARN", "preflight.resolves-itself", WORKER_1),
        ("FAIL", "preflight.clock", WORKER_2),
        ("WARN", "preflight.time-sync", WORKER_2),
        ("WARN", "preflight.swap", WORKER_2),
    }
    failed = {each["id"]: each for each in judged(done)["checks"] if each["status"] == "FAIL"}
    clock, name = failed["preflight.clock"], failed["preflight.unique.hostname"]
    assert float(clock["got"].split()[0]) == pytest.approx(90, abs=20)
    host, _, command = name["remedy"].removeprefix("on ").partition(": ")
    kit.on(host, command)
    kit.on(WORKER_2, clock["remedy"])
    kit.on(WORKER_2, "swapoff -a")
    assert bad(look(kit).passed()) == set()


def test_hosts_out_of_reach_are_all_named_and_the_others_judged(kit: Kit) -> None:
    kit.clean()
    verbs.break_(kit.state_dir, "host-down", WORKER_1)
    verbs.break_(kit.state_dir, "host-down", CONTROL_PLANE)
    verbs.break_(kit.state_dir, "swap-on", WORKER_2)
    done = look(kit).failed(4, "2 hosts cannot be reached", WORKER_1, CONTROL_PLANE).kept()
    assert judged(done)["unreachable"] == [CONTROL_PLANE, WORKER_1]
    assert bad(done) == {
        ("FAIL", "host.answers", CONTROL_PLANE),
        ("FAIL", "host.answers", WORKER_1),
        ("WARN", "preflight.swap", WORKER_2),
    }
    lost = next(each for each in judged(done)["checks"] if each["target"] == WORKER_1)
    assert lost["got"].endswith("; 0 of 1 other hosts reach it at 10.77.0.12")
    shown = kit.call("preflight", "{params}")
    assert shown.code == 4
    assert f"out of reach: {CONTROL_PLANE}, {WORKER_1}" in shown.out
    assert shown.out.index("FAIL") < shown.out.index("passed")
    kit.stage("preflight").failed(4, CONTROL_PLANE, WORKER_1).kept()
    dry = kit.stage("preflight", "--dry-run").passed()
    assert "swap is off" in dry.out


def test_a_cluster_in_the_way_is_named_with_its_nodes(kit: Kit) -> None:
    """And an API whose host has a clock that is ahead stamps what it makes with that clock."""
    kit.stand("init", rebuild=True)
    other = kit.with_params("other", cluster="mine", confirm_reset="")
    done = look(other)
    assert done.code == 8
    (found,) = [each for each in judged(done)["checks"] if each["id"] == "preflight.cluster"][:1]
    assert found["status"] == "FAIL"
    assert found["got"].endswith(f", nodes {CONTROL_PLANE}")
    assert "confirm_reset" in found["remedy"]
    assert not told(done.run_dir, "change")
    assert ("FAIL", "preflight.cluster", CONTROL_PLANE) not in bad(look(kit))

    verbs.break_(kit.state_dir, "clock-skew", CONTROL_PLANE)
    kit.kubectl("create namespace later")
    stamp = kit.kubectl("get namespace later -o jsonpath='{.metadata.creationTimestamp}'")
    made = datetime.fromisoformat(stamp.strip())
    assert made - datetime.now(UTC) > timedelta(seconds=30)
    kit.kubectl("delete namespace later --wait=false")


def test_hosts_of_a_lab_that_does_not_run(tmp_path: Path) -> None:
    done = Kit(tmp_path, params_for(free_spec())).call("preflight", "{params}")
    done.failed(4, "3 hosts cannot be reached", "kit lab up").kept()
    assert f"out of reach: {', '.join(HOSTS)}" in done.out


def test_wrong_parameters(kit: Kit) -> None:
    kit.call("preflight", "{params}", "--plugin", "nonsense").failed(2, "--plugin", "flannel")
    kit.call("preflight", "nowhere.yaml").failed(2, "no such file")
