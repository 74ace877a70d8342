"""What a kubeadm that did not end left is named before another one runs into it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from factory import host_facts

from kitlib.errors import PreconditionError
from kitlib.stages.broken_off import stop_where_broken_off

HALF = "/etc/kubernetes/pki/ca.crt\n/etc/kubernetes/manifests/etcd.yaml"


def context(*, read_only: bool = False, **files: str) -> Any:
    facts = {
        name: host_facts(name, sections={"kubeadm.files": text}) for name, text in files.items()
    }
    return SimpleNamespace(facts=lambda: facts, read_only=read_only)


def test_half_done_hosts_are_named_with_what_lies_there_and_the_way_out() -> None:
    ctx = context(one=HALF, two="", three="/var/lib/kubelet/config.yaml")
    with pytest.raises(PreconditionError) as stopped:
        stop_where_broken_off(ctx, ["one", "two", "three"], "join")
    assert stopped.value.message.splitlines() == [
        f"one: a kubeadm that did not end left {HALF.replace(chr(10), ', ')}",
        "three: a kubeadm that did not end left /var/lib/kubelet/config.yaml",
    ]
    assert "run the reset stage, then join" in stopped.value.remedy


def test_clean_hosts_other_hosts_and_dry_runs_go_on() -> None:
    stop_where_broken_off(context(one="", two=HALF), ["one"], "init")
    stop_where_broken_off(context(one=HALF, read_only=True), ["one"], "init")
