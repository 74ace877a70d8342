"""Each probe's parser against what the tools print, recorded or worded after their sources."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from probekit import PARSERS

from kitlib.errors import ParseError
from kitlib.probes import curl, dig, dns, fping, http, iperf3, mtu, ping, routes, tcp, tools
from kitlib.probes.timed import Sample, rows
from kitlib.samples import PROBES

TEXTS = int(os.environ.get("KIT_FUZZ", "150"))
DATA = Path(__file__).parent / "data" / "probes"


@lru_cache
def cases(*tools: str) -> list[Any]:
    found = []
    for path in sorted(DATA.glob("*/*.yaml")):
        tool = path.parent.name
        for case in yaml.safe_load(path.read_text()) if not tools or tool in tools else ():
            found.append(pytest.param(tool, case, id=f"{tool}/{path.stem}: {case['name']}"))
    return found


@pytest.mark.parametrize(("tool", "case"), cases())
def test_what_was_printed_is_read_as_what_it_says(tool: str, case: dict[str, Any]) -> None:
    assert case["printed_by"], "a case says which release printed it, or that it is made by hand"
    if "error" in case:
        with pytest.raises(ParseError, match=case["error"]):
            PARSERS[tool](case)
        return
    assert PARSERS[tool](case) == case["expect"]


def test_every_tool_has_cases_and_every_parser_one_that_it_refuses() -> None:
    tools_there = {path.name for path in DATA.iterdir()}
    assert tools_there == set(PARSERS)
    refused = {case.values[0] for case in cases() if "error" in case.values[1]}
    assert refused == set(PARSERS) - {"iperf3_server"}  # whatever it says is why


ALTERED = st.tuples(
    st.sampled_from(["drop", "twice", "cut", "replace"]),
    st.integers(0, 10_000),
    st.text(st.sampled_from("0123456789.:-~#() usecmqtrip=\n"), max_size=12),
)


def altered(text: str, change: tuple[str, int, str]) -> str:
    """Return a text with a line left out or twice, broken off, or something else put in."""
    what, place, words = change
    lines = text.splitlines(keepends=True)
    if not lines:
        return words
    at = place % len(lines)
    if what == "drop":
        return "".join(lines[:at] + lines[at + 1 :])
    if what == "twice":
        return "".join(lines[: at + 1] + lines[at:])
    spot = place % len(text)
    return text[:spot] if what == "cut" else text[:spot] + words + text[spot + len(words) :]


@pytest.mark.parametrize("tool", sorted(PARSERS))
@given(data=st.data())
@settings(
    max_examples=TEXTS,
    deadline=None,  # a loaded machine is slow, not wrong
    derandomize=TEXTS <= 1000,
    database=None,
)
def test_no_text_is_a_traceback_and_no_number_comes_from_nowhere(tool: str, data: Any) -> None:
    case = dict(data.draw(st.sampled_from([each.values[1] for each in cases(tool)])))
    key = "stderr" if tool == "wget" else "text"
    case[key] = (
        data.draw(st.text(max_size=200))
        if data.draw(st.integers(0, 9)) == 0
        else altered(case[key], data.draw(ALTERED))
    )
    try:
        told = PARSERS[tool](case)
    except ParseError:
        return
    for line in _times(told) if tool != "curl" else ():
        ms = float(line.split()[1])
        said = {f"{float(each):g}" for each in re.findall(r"\d+(?:\.\d+)?", case[key])}
        assert f"{ms:g}" in said or f"{ms * 1000:g}" in said, f"{line}: not in the text"


def _times(told: Any) -> list[str]:
    """Return the timed samples of ping, fping and dig. (curl's are differences.)"""
    if isinstance(told, dict):
        told = told["times"] if "times" in told else [x for v in told.values() for x in _list(v)]
    return [each for each in _list(told) if re.match(r"\d+ \d[\d.]*(?: |$)", str(each))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def test_the_commands_only_read_and_end_by_themselves() -> None:
    pings = ping.command("10.244.1.2", count=3, interval=0.2, timeout=2)
    assert str(pings) == "ping -c 3 -i 0.2 -W 2 10.244.1.2"
    assert str(dns.command("kubernetes.default")) == "nslookup kubernetes.default"
    assert str(dns.command("a.b", server="10.96.0.10")) == "nslookup a.b 10.96.0.10"
    assert str(http.command("http://p2/hostname")) == "timeout 5 wget -qO- http://p2/hostname"
    listed = [
        pings, dns.command("a"), http.command("http://a"), tools.command(),
        fping.command(["10.0.0.1"], count=3), tcp.command("10.0.0.1", 80),
        curl.command("http://10.0.0.1/", count=20, timeout=2),
        dig.command("a.b", "10.96.0.10", count=20, timeout=2),
        mtu.command("10.0.0.1"), routes.command(["10.0.0.1"]),
        iperf3.server(5201, seconds=9), iperf3.command("10.0.0.1", 5201, seconds=3),
    ]  # fmt: skip
    for cmd in listed:
        assert not cmd.mutates
        assert cmd.timeout is not None
    # the runner must not cut off what the command itself still waits for
    assert (pings.timeout or 0) > 3 * 0.2 + 2
    assert (curl.command("http://a/", count=20, timeout=2).timeout or 0) > 20 * 2
    assert (dig.command("a", "b", count=20, timeout=2).timeout or 0) > 20 * 2
    assert (iperf3.command("a", 1, seconds=3).timeout or 0) > iperf3.WARM_UP + 3


def test_rows_mark_the_warm_up_and_count_time_from_the_start() -> None:
    sent = [Sample(1, 0.5), Sample(2, None, reason="Network is unreachable")]
    made = rows(
        sent, round=4, src="a", dst="b", src_ip="10.0.0.1", dst_ip="10.0.0.2", path="pod",
        started=1000.0, interval=0.2, warmup=1,
    )  # fmt: skip
    assert [row["warmup"] for row in made] == [True, False]
    assert [row["lost"] for row in made] == [False, True]
    assert [row["t"] for row in made] == [1000.0, 1000.2]
    assert made[1]["reason"] == "Network is unreachable"
    assert made[1]["rtt_ms"] is None
    assert {row["round"] for row in made} == {4}


PINGED = """\
PING {0} ({0}) 56(84) bytes of data.
64 bytes from {0}: icmp_seq=1 ttl=62 time=0.545 ms
64 bytes from {0}: icmp_seq=2 ttl=62 time=0.168 ms

--- {0} ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 204ms
"""


def test_a_sweep_pings_every_address_whatever_becomes_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really run, with a ping that fails for one address and says so on standard error.

    More addresses than are pinged side by side, each with a text that comes in pieces.
    """
    program = tmp_path / "ping"
    text = PINGED.replace("{0}", "$7")
    program.write_text(
        '#!/bin/sh\n[ "$*" = "-c 2 -i 0.2 -W 1 $7" ] || exit 9\n'
        'if [ "$7" = 10.0.0.2 ]; then\n'
        '  echo "ping: sendmsg: Network is unreachable" >&2; exit 2\nfi\n'
        f'while IFS= read -r line; do echo "$line"; done <<END\n{text}END\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    addresses = [f"10.0.0.{number}" for number in range(1, 2 * ping.AT_A_TIME + 4)]
    cmd = ping.sweep(addresses, count=2)
    done = subprocess.run(cmd.render(), shell=True, capture_output=True, text=True, check=True)
    found = ping.parse_sweep(done.stdout, count=2)
    assert sorted(found) == sorted(addresses)
    assert found.pop("10.0.0.2") == [
        Sample(seq, None, reason="Network is unreachable") for seq in (1, 2)
    ]
    for samples in found.values():
        assert [sample.rtt_ms for sample in samples] == [0.545, 0.168]
    assert cmd.timeout is not None
    assert cmd.timeout > 3 * 2 * 0.2
    assert not cmd.mutates
    assert "10.0.0.1" not in cmd.brief


def test_a_sweep_that_was_cut_short_says_only_what_it_did() -> None:
    whole = "# 10.0.0.1\n" + PINGED.replace("{0}", "10.0.0.1")
    assert list(ping.parse_sweep(whole, count=2)) == ["10.0.0.1"]
    assert ping.parse_sweep("", count=2) == {}
    with pytest.raises(ParseError, match="no statistics line"):
        ping.parse_sweep(whole + "# 10.0.0.2\nPING 10.0.0.2 (10.0.0.2) 56(84)\n", count=2)


def test_every_probe_of_a_record_has_a_tool_and_every_choice_a_module_that_is_there() -> None:
    assert set(tools.CHOICES) == set(PROBES)
    for row in tools.CHOICES.values():
        for each in row:
            module = importlib.import_module(f"kitlib.probes.{each.module}")
            assert callable(module.command)
            assert callable(module.parse)


def test_the_page_of_probes_names_each_with_its_tools() -> None:
    page = (Path(__file__).parents[1] / "docs/probes.md").read_text()
    lines = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    by = {name: cells[4] for cells in lines for name in re.findall(r"`(\w+)`", cells[1])}
    assert set(by) == set(PROBES)
    for probe, row in tools.CHOICES.items():
        named = re.findall(r"\b(" + "|".join(each.tool for each in row) + r")\b", by[probe])
        assert named == [each.tool for each in row], probe
        assert by[probe].count("yes or no") == sum(not each.timed for each in row) or probe in (
            "routes", "policy",
        ), probe  # fmt: skip


def test_of_several_tools_the_first_choice_is_taken_and_none_has_a_remedy() -> None:
    everything = {each.tool for row in tools.CHOICES.values() for each in row}
    chosen = tools.choose("http", everything)
    assert chosen is not None
    assert (chosen.tool, chosen.timed) == ("curl", True)
    chosen = tools.choose("http", {"wget", "ping"})
    assert chosen is not None
    assert (chosen.tool, chosen.timed) == ("wget", False)
    assert tools.choose("tcp_rr", {"wget", "nc"}) is None
    said = tools.remedy("dns_cluster_udp", "an.image:1")
    assert said.startswith("set diagnose.image to one that has dig or nslookup; an.image:1 ")


def test_where_a_limit_could_not_have_been_seen_the_row_says_so() -> None:
    told = {}
    for _, case in (each.values for each in cases("mtu")):
        if "expect" in case:
            found = mtu.parse(case["text"])
            row = mtu.row(found, round=1, src="a", dst="b", path="pod", started=1.0)
            assert set(row) == set(PROBES["mtu"].columns)
            told[case["printed_by"].split()[0], case["name"]] = row["reason"]
    assert told["iputils", "healthy"] == ""
    assert told["BusyBox", "healthy"] == (
        "this ping cannot forbid fragments (BusyBox): a smaller limit would not be seen"
    )
    assert (
        told["BusyBox", "black hole above 1400"] == told["iputils", "black hole above 1400"] == ""
    )


def test_an_answer_without_a_time_is_not_lost() -> None:
    (row,) = rows(
        [Sample(1, None, untimed=True, server="worker-1")], round=1, src="a", dst="b", src_ip="",
        dst_ip="10.0.0.2", path="pod", started=1.0, side_by_side=2,
    )  # fmt: skip
    assert (row["lost"], row["rtt_ms"], row["server"], row["side_by_side"]) == (
        False, None, "worker-1", 2,
    )  # fmt: skip
    assert set(row) == set(PROBES["http"].columns)
