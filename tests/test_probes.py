"""Each probe's parser against what the tools print, recorded or worded after their sources."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitlib.errors import ParseError
from kitlib.probes import dns, http, ping

DATA = Path(__file__).parent / "data" / "probes"


def cases(probe: str) -> list[Any]:
    listed = yaml.safe_load((DATA / f"{probe}.yaml").read_text())
    return [pytest.param(case, id=case["name"]) for case in listed]


@pytest.mark.parametrize("case", cases("ping"))
def test_ping(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ParseError, match=case["error"]):
            ping.parse(case["text"], count=case["count"])
        return
    wanted = []
    for seq, rtt, *more in case["samples"]:
        duplicate = more == ["duplicate"]
        reason = more[0] if more and not duplicate else ""
        wanted.append(ping.Sample(seq, rtt, duplicate, reason))
    assert ping.parse(case["text"], count=case["count"]) == wanted


@pytest.mark.parametrize("case", cases("dns"))
def test_dns(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ParseError, match=case["error"]):
            dns.parse(case["text"])
        return
    answer = dns.parse(case["text"])
    assert answer.server == case["server"]
    assert answer.addresses == tuple(case.get("addresses", ()))
    assert answer.error == case.get("failure", "")
    assert answer.ok == ("addresses" in case)


@pytest.mark.parametrize("case", cases("http"))
def test_http(case: dict[str, Any]) -> None:
    answer = http.parse(case["stdout"], case["stderr"], case["exit_status"])
    wanted = (case["ok"], case.get("body", ""), case.get("status"), case.get("failure", ""))
    assert (answer.ok, answer.body, answer.status, answer.error) == wanted


def test_the_commands_only_read_and_end_by_themselves() -> None:
    pings = ping.command("10.244.1.2", count=3, interval=0.2, timeout=2)
    assert str(pings) == "ping -c 3 -i 0.2 -W 2 10.244.1.2"
    assert str(dns.command("kubernetes.default")) == "nslookup kubernetes.default"
    assert str(dns.command("a.b", server="10.96.0.10")) == "nslookup a.b 10.96.0.10"
    assert str(http.command("http://p2/hostname")) == "wget -qO- -T 5 http://p2/hostname"
    for cmd in (pings, dns.command("a"), http.command("http://a")):
        assert not cmd.mutates
        assert cmd.timeout is not None
    # the runner must not cut off what the command itself still waits for
    assert (pings.timeout or 0) > 3 * 0.2 + 2


def test_rows_mark_the_warm_up_and_count_time_from_the_start() -> None:
    sent = [ping.Sample(1, 0.5), ping.Sample(2, None, reason="Network is unreachable")]
    rows = ping.rows(
        sent, round=4, src="a", dst="b", src_ip="10.0.0.1", dst_ip="10.0.0.2", path="pod",
        started=1000.0, interval=0.2, warmup=1,
    )  # fmt: skip
    assert [row["warmup"] for row in rows] == [True, False]
    assert [row["lost"] for row in rows] == [False, True]
    assert [row["t"] for row in rows] == [1000.0, 1000.2]
    assert rows[1]["reason"] == "Network is unreachable"
    assert rows[1]["rtt_ms"] is None
    assert {row["round"] for row in rows} == {4}


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
        ping.Sample(seq, None, reason="Network is unreachable") for seq in (1, 2)
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
