"""A slow node is one finding on that node, and a noisy but whole machine gives none."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kitlib import frames
from kitlib.diagnosis import latency
from kitlib.model import Check, Status

SAMPLES = 20


def noisy(
    nodes: int, seed: int, *, slow: dict[str, dict[str, float]] | None = None, rounds: int = 3
) -> pd.DataFrame:
    """Return the samples of a lab on two busy cores.

    Every path takes its time (0.03 to 0.2 ms) with a long tail. Now and then somebody else takes
    the cores for a while: then whatever is measured waits milliseconds more, for one pair or three.

    Args:
        nodes: How many nodes.
        seed: What the noise is drawn with.
        slow: Node -> path -> milliseconds that it adds to each packet.
        rounds: How often each pair is measured.
    """
    draw = np.random.default_rng(seed)
    names = [f"n{number}" for number in range(1, nodes + 1)]
    parts = []
    busy = 0
    for number in range(rounds):
        for src, dst in permutations(names, 2):
            busy = busy - 1 if busy else int(draw.integers(1, 4)) if draw.random() < 0.08 else 0
            for path, base in (("pod", 0.08), ("host", 0.04)):
                times = base * draw.lognormal(0, 0.5, SAMPLES)
                times += np.where(draw.random(SAMPLES) < 0.05, draw.exponential(2.0, SAMPLES), 0)
                if busy:
                    times += draw.exponential(4.0, SAMPLES)
                for end in (src, dst):
                    times += (slow or {}).get(end, {}).get(path, 0.0)
                parts.append((number, src, dst, path, times))
    table = pd.DataFrame(parts, columns=["round", "src", "dst", "path", "rtt_ms"])
    table = table.explode("rtt_ms", ignore_index=True).astype({"rtt_ms": float})
    return table.assign(lost=False, warmup=False, duplicate=False, reordered=False)


def found(samples: pd.DataFrame) -> list[Check]:
    names = sorted(set(samples["src"]))
    checks = latency.checks(frames.latency_summary(samples), names)
    return [check for check in checks if check.status in (Status.FAIL, Status.WARN)]


@pytest.mark.parametrize("nodes", [2, 3, 4, 6])
def test_noise_is_no_finding(nodes: int) -> None:
    told = [str(check) for seed in range(12) for check in found(noisy(nodes, seed))]
    assert told == []


BOTH = {"pod": 4.0, "host": 4.0}


@pytest.mark.parametrize("nodes", [3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_a_slow_node_is_one_finding(nodes: int, seed: int) -> None:
    (check,) = found(noisy(nodes, seed, slow={"n2": BOTH}))
    assert (check.id, check.target) == ("latency.node", "n2")
    assert "the node or its link" in check.got
    assert check.remedy


def test_a_node_whose_pods_alone_are_slow_has_the_plugin_named() -> None:
    (check,) = found(noisy(4, 1, slow={"n3": {"pod": 4.0}}))
    assert (check.id, check.target) == ("latency.node", "n3")
    assert "the plugin's part" in check.got


def test_of_five_nodes_two_slow_ones_are_two_findings() -> None:
    checks = found(noisy(5, 1, slow={"n2": BOTH, "n4": BOTH}))
    assert [(check.id, check.target) for check in checks] == [
        ("latency.node", "n2"),
        ("latency.node", "n4"),
    ]


def test_a_slow_pair_is_no_slow_node() -> None:
    samples = noisy(4, 1)
    pair = samples["src"].isin(["n1", "n2"]) & samples["dst"].isin(["n1", "n2"])
    samples.loc[pair & (samples["path"] == "pod"), "rtt_ms"] += 4.0
    assert {check.id for check in found(samples)} == {"latency.slow-pair", "latency.overhead"}


def test_with_two_nodes_nobody_can_say_which_is_slow() -> None:
    summary = frames.latency_summary(noisy(2, 1, slow={"n2": BOTH}))
    checks = {check.id: check for check in latency.checks(summary, ["n1", "n2"])}
    assert checks["latency.node"].status is Status.SKIP
    assert "3 nodes" in checks["latency.node"].summary


def test_zones_far_apart_are_no_slow_nodes() -> None:
    samples = noisy(8, 1)
    far = samples["src"].isin(["n7", "n8"]) != samples["dst"].isin(["n7", "n8"])
    samples.loc[far, "rtt_ms"] += 3.0
    assert not [check for check in found(samples) if check.id == "latency.node"]


def lossy(**lost: Any) -> list[Check]:
    samples = noisy(4, 1, rounds=1)
    hurt = (samples["src"] == "n2") | (samples["dst"] == "n2")
    samples.loc[hurt & (samples["path"] == "pod"), ["lost", "rtt_ms"]] = [True, float("nan")]
    pairs = set(zip(samples["src"][hurt], samples["dst"][hurt], strict=True))
    explained = dict.fromkeys(pairs, "connectivity.tunnel") if lost.get("explained") else {}
    summary = frames.latency_summary(samples)
    return [
        check
        for check in latency.checks(summary, ["n1", "n2", "n3", "n4"], explained=explained)
        if check.id == "latency.loss"
    ]


def test_a_node_that_gets_no_reply_is_one_finding() -> None:
    (check,) = lossy()
    assert (check.status, check.target) == (Status.FAIL, "n2")
    assert "120 of 120 packets lost between n2 and n1, n3, n4" in check.got


def test_silence_that_connectivity_explains_is_not_told_again() -> None:
    (check,) = lossy(explained=True)
    assert check.status is Status.PASS
    assert "see connectivity.tunnel" in check.got
