"""How checks are told in a terminal: the worst first, once for all hosts, commands unbroken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kitlib.errors import ChecksFailed, ConnectError
from kitlib.findings import as_json, count, grouped, show
from kitlib.model import CLUSTER, Check, Status
from kitlib.stages import get_stage

COMMAND = "swapoff -a && sed -i -E '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' /etc/fstab" * 2


def swap(host: str, got: str = "/swapfile") -> Check:
    return Check("preflight.swap", host, Status.FAIL, "swap is off", got, "none", COMMAND)


CHECKS = [
    Check("a", "m1", Status.PASS, "enough memory", "4096 MiB"),
    Check("a", "w1", Status.PASS, "enough memory", "4096 MiB"),
    Check("a", "w2", Status.PASS, "enough memory", "8192 MiB"),
    Check("zone", CLUSTER, Status.PASS, "one time zone", "UTC"),
    Check("name", "m1", Status.WARN, "its name", "debian", "m1", "hostnamectl set-hostname m1"),
    Check("sync", "m1", Status.SKIP, "kept by NTP", "unknown"),
    swap("w1"),
    swap("w2"),
]


def printed(width: int, checks: list[Check] = CHECKS) -> str:
    stream = io.StringIO()
    show(checks, Console(file=stream, width=width, highlight=False, markup=False))
    return stream.getvalue()


def test_hosts_that_say_the_same_are_one_finding() -> None:
    found = {each.check.id: each.targets for each in grouped(CHECKS[4:])}
    assert found["preflight.swap"] == ("w1", "w2")
    assert len(grouped([swap("w1"), swap("w2", "/dev/sda2")])) == 2
    assert grouped([]) == []


def test_count() -> None:
    assert count(CHECKS) == (
        "8 checks: 2 failed, 1 to know about, 4 passed, 1 not applicable or not known"
    )
    assert count([]) == "no checks"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_worst_comes_first_and_a_command_is_never_broken(width: int) -> None:
    text = printed(width)
    lines = text.splitlines()
    assert lines[0] == "FAIL  w1, w2: swap is off"
    assert f"      do    {COMMAND}" in lines
    order = [text.index(word) for word in ("FAIL", "WARN", "passed", "not applicable")]
    assert order == sorted(order)


def test_what_passed_is_one_line_for_all_hosts_within_the_width() -> None:
    lines = printed(80).splitlines()
    assert "enough memory  3 hosts  4096 MiB; 8192 MiB" in lines
    assert "one time zone  cluster  UTC" in lines
    long = [Check("a", "m1", Status.PASS, "free ports", "9" * 200)]
    assert max(map(len, printed(80, long).splitlines())) == 80


def test_what_was_found_is_wrapped_under_itself() -> None:
    words = " ".join(["word"] * 40)
    lines = printed(60, [swap("w1", words)]).splitlines()
    assert lines[1].startswith("      got   word")
    assert lines[2].startswith("            word")
    assert max(len(line) for line in lines[1:4]) <= 60


def test_json_has_every_check_in_its_order() -> None:
    told = as_json(CHECKS)
    assert [each["target"] for each in told] == [each.target for each in CHECKS]
    assert told[-1] == {
        "id": "preflight.swap",
        "target": "w2",
        "status": "FAIL",
        "summary": "swap is off",
        "got": "/swapfile",
        "expected": "none",
        "remedy": COMMAND,
    }


def test_a_host_out_of_reach_is_an_error_of_its_own_kind() -> None:
    stage = get_stage("preflight")
    error = stage.failure([swap("w1")])
    assert isinstance(error, ChecksFailed)
    assert error.message.startswith("preflight: 1 check failed\n")
    gone = [Check("host.answers", each, Status.FAIL, "answers", "refused") for each in ("w2", "w3")]
    error = stage.failure([*gone, swap("w1")])
    assert isinstance(error, ConnectError)
    first, *rest = error.message.splitlines()
    assert first == "preflight: 2 hosts cannot be reached (w2, w3); 3 checks failed"
    assert len(rest) == 3
