"""Run directories made up for tests of what reads them: any number of nodes, whole or broken."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kitlib.samples import write_samples

START = 1_795_370_800.0
STAGES = ("preflight", "reset", "packages", "init", "network", "join", "ready", "verify")
LAB = {"kind": "lab", "time_factor": 0.2}


def utc(t: float, *, fine: bool = True) -> str:
    stamp = datetime.fromtimestamp(t, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if fine else "%Y-%m-%dT%H:%M:%SZ")


class Maker:
    """Writes one run directory; `lines` and `watch` are what goes into it."""

    def __init__(self, root: Path, nodes: int = 3, *, seed: int = 7) -> None:
        self.path = root / "lab" / "20261122T180640Z-abc123"
        self.names = [f"{'control-plane-1' if i == 0 else f'worker-{i}'}" for i in range(nodes)]
        self.random = random.Random(seed)
        self.lines: list[dict[str, Any]] = []
        self.watch: dict[str, list[tuple[float, dict[str, Any]]]] = {
            "nodes": [],
            "pods": [],
            "events": [],
        }
        self.meta: dict[str, Any] = {
            "schema": 1,
            "cluster": "lab",
            "run_id": self.path.name,
            "started": utc(START),
            "ended": None,
            "verdict": None,
            "reason": "",
            "kit_version": "0.1.0",
            "params": {"cluster": "lab", "plugin": "flannel"},
            "params_file": "params/lab.yaml",
            "plugin": "flannel",
            "pod_cidr": "10.244.0.0/16",
            "kubernetes_version": "1.22.3",
            "hosts": [
                {
                    "name": name,
                    "address": f"10.77.0.{11 + i}",
                    "role": "worker" if i else "control_plane",
                }
                for i, name in enumerate(self.names)
            ],
            "provenance": LAB,
        }

    def event(self, t: float, kind: str, stage: str = "", host: str = "", **data: Any) -> None:
        self.lines.append(
            {
                "t": utc(START + t),
                "mono": t,
                "stage": stage,
                "host": host,
                "kind": kind,
                "data": data,
            }
        )

    def stage(self, name: str, t: float, seconds: float, verdict: str = "PASS") -> None:
        self.event(t, "stage.started", name)
        hosts = self.names
        hosts = hosts[:1] if name in ("init", "network", "ready", "verify") else hosts
        hosts = hosts[1:] if name == "join" else hosts
        for host in hosts:
            begins = t + 0.05
            self.event(begins, "host.started", name, host)
            if name in ("init", "join"):
                command = f"kubeadm {name} ..."
                self.event(begins, "command.started", name, host, command=command)
                self.event(begins, "change", name, host, what=f"kubeadm {name}", command=command)
            took = seconds * self.random.uniform(0.6, 0.97)
            ok = verdict == "PASS"
            if name in ("init", "join"):
                self.event(
                    begins + took, "command", name, host, command=command,
                    exit_status=0 if ok else 1, seconds=took, raw=f"raw/{name}-{host}.txt",
                )  # fmt: skip
            self.event(begins + took, "host.ended", name, host, ok=ok)
        reason = "" if verdict == "PASS" else f"{self.names[0]}: kubeadm {name}: exit status 1"
        if reason:
            self.event(t + seconds, "error", name, self.names[0], message=reason)
        else:
            self.event(
                t + seconds, "check", name, self.names[0], id=f"{name}.done", status="PASS",
                summary=f"{name} is done", got="yes", expected="yes", remedy="",
            )  # fmt: skip
        self.event(
            t + seconds, "stage.ended", name, verdict=verdict, seconds=seconds, reason=reason
        )

    def seen(self, what: str, t: float, type: str, obj: dict[str, Any]) -> None:
        self.watch[what].append((START + t, {"type": type, "object": obj}))

    def node(self, index: int, at: float, ready_at: float | None, begin_plugin: float) -> None:
        """Add a node that registers at one time and is Ready (or not) at another."""
        name, uid = self.names[index], f"node-{index}"
        role = {"node-role.kubernetes.io/control-plane": ""} if index == 0 else {}
        meta = {
            "name": name,
            "uid": uid,
            "labels": role,
            "creationTimestamp": utc(START + at, fine=False),
        }
        missing = "container runtime network not ready: NetworkReady=false "
        missing += "reason:NetworkPluginNotReady message:cni plugin not initialized"

        def node(status: str, message: str) -> dict[str, Any]:
            condition = {"type": "Ready", "status": status, "message": message}
            return {"metadata": meta, "status": {"conditions": [condition]}}

        self.seen("nodes", at, "ADDED", node("False", missing))
        self.pod(index, "agent", at=begin_plugin, running=begin_plugin + 2, plugin=True)
        if ready_at is not None:
            self.seen("nodes", ready_at, "MODIFIED", node("True", "kubelet is posting"))
            self.pod(index, "probe", at=ready_at + 0.4, running=ready_at + 1.1, plugin=False)

    def pod(self, index: int, word: str, *, at: float, running: float, plugin: bool) -> None:
        uid = f"pod-{word}-{index}"
        meta = {
            "name": f"{word}-{index}",
            "uid": uid,
            "namespace": "kube-flannel" if plugin else "probe",
            "labels": {"app": "flannel"} if plugin else {"app": "probe"},
            "creationTimestamp": utc(START + at, fine=False),
        }
        spec: dict[str, Any] = {"hostNetwork": plugin, "containers": [{"name": word}]}
        self.seen("pods", at, "ADDED", {"metadata": meta, "spec": spec, "status": {}})
        spec = {**spec, "nodeName": self.names[index]}
        pending = {"phase": "Pending"}
        self.seen(
            "pods", at + 0.02, "MODIFIED", {"metadata": meta, "spec": spec, "status": pending}
        )
        about = {"uid": uid, "fieldPath": f"spec.containers{{{word}}}"}
        pulled = {"reason": "Pulled", "involvedObject": about}
        self.seen("events", running - 0.8, "ADDED", pulled)
        state = {"running": {"startedAt": utc(START + running, fine=False)}}
        status = {"phase": "Running", "containerStatuses": [{"name": word, "state": state}]}
        self.seen("pods", running, "MODIFIED", {"metadata": meta, "spec": spec, "status": status})

    def samples(
        self,
        count: int = 20,
        *,
        loses: Iterable[tuple[str, str, int]] = (),
        slow: str = "",
        skip: Iterable[tuple[str, str]] = (),
        base: Mapping[str, float] | None = None,
    ) -> None:
        """Add a round of latency of every ordered pair on both paths."""
        lost = {(src, dst): many for src, dst, many in loses}
        left_out = set(skip)
        rows = []
        for path, usual in (("host", 0.021), ("pod", 0.043)):
            for src in self.names:
                for dst in self.names:
                    if src == dst or (src, dst) in left_out:
                        continue
                    for seq in range(1, count + 1):
                        gone = path == "pod" and seq > count - lost.get((src, dst), 0)
                        rtt = (base or {}).get(path, usual) * self.random.lognormvariate(0, 0.18)
                        rtt *= 3 if seq == 1 else 1
                        rtt += 2.4 if path == "pod" and slow in (src, dst) else 0
                        rows.append(
                            {
                                "round": 1,
                                "src": src,
                                "dst": dst,
                                "src_ip": "",
                                "dst_ip": "",
                                "path": path,
                                "seq": seq,
                                "rtt_ms": None if gone else rtt,
                                "lost": gone,
                                "warmup": seq == 1,
                                "t": START + 40 + seq / 5,
                            }
                        )
        write_samples(self.path / "samples" / "ping" / "0001.parquet", rows)

    def write(self, verdict: str | None = None, reason: str = "") -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        if verdict:
            last = self.lines[-1]["mono"] + 0.2 if self.lines else 0.2
            self.event(last, "run.ended", verdict=verdict, reason=reason)
            self.meta |= {"ended": utc(START + last), "verdict": verdict, "reason": reason}
        (self.path / "run.json").write_text(json.dumps(self.meta))
        self.lines.sort(key=lambda line: line["mono"])
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        (self.path / "journal.jsonl").write_text(text)
        (self.path / "watch").mkdir(exist_ok=True)
        for what, seen in self.watch.items():
            ordered = sorted(seen, key=lambda pair: pair[0])
            out = "".join(json.dumps({"t": t, "obj": obj}) + "\n" for t, obj in ordered)
            (self.path / "watch" / f"{what}.jsonl").write_text(out)
        return self.path


def whole_run(root: Path, nodes: int = 3, **samples: Any) -> Path:
    """Return a run in which every stage passed and every pair was measured."""
    maker = built(root, nodes)
    maker.samples(**samples)
    return maker.write("PASS")


def built(root: Path, nodes: int = 3) -> Maker:
    """Return the maker of a run in which every stage passed; it has no samples yet."""
    maker = Maker(root, nodes)
    t = 0.1
    for name, seconds in zip(STAGES, (0.9, 1.2, 2.1, 5.4, 0.8, 4.6, 3.9, 6.5), strict=True):
        maker.stage(name, t, seconds)
        t += seconds + 0.05
    for index in range(nodes):
        at = 7.4 if index == 0 else 13.5 + 0.07 * index + maker.random.uniform(0, 1.5)
        plugin = max(10.1, at + 0.1)
        maker.node(index, at, plugin + 2.6 + maker.random.uniform(0, 1), plugin)
    return maker


def failed_run(root: Path) -> Path:
    """Return a run that ended at init."""
    maker = Maker(root)
    maker.stage("preflight", 0.1, 0.9)
    maker.stage("reset", 1.1, 1.2)
    maker.stage("packages", 2.4, 2.0)
    maker.stage("init", 4.5, 3.2, "FAIL")
    return maker.write("FAIL", "control-plane-1: kubeadm init: exit status 1")


def empty_run(root: Path) -> Path:
    """Return a run that was begun and in which nothing happened."""
    maker = Maker(root)
    return maker.write()


def compared_run(
    root: Path,
    plugin: str,
    number: int,
    *,
    pod: float = 0.04,
    host: float = 0.02,
    comparison: str = "c1",
    **meta: Any,
) -> Path:
    """Return a run of a comparison that passed.

    Args:
        root: The directory of all runs.
        plugin: What was built.
        number: Its round.
        pod: The median round trip between pods, in milliseconds.
        host: That between the hosts.
        comparison: The comparison's name; empty for a run that is of none.
        meta: What else stands in run.json.
    """
    maker = Maker(root, seed=hash_of(plugin, number))
    maker.path = root / "lab" / f"2026112{number}T180640Z-{plugin}"
    for name, t in (("init", 1.0), ("join", 7.0)):
        maker.stage(name, t, 4.0)
    for index in range(len(maker.names)):
        registered = 3.0 if index == 0 else 9.0
        maker.node(index, registered, registered + 5.0, registered + 0.5)
    maker.samples(count=60, base={"pod": pod, "host": host})
    maker.meta |= {
        "run_id": maker.path.name,
        "plugin": plugin,
        "started": utc(START + 1000 * number),
        **({"comparison": {"id": comparison, "round": number}} if comparison else {}),
        **meta,
    }
    return maker.write(str(meta.get("verdict", "PASS")), str(meta.get("reason", "")))


def hash_of(plugin: str, number: int) -> int:
    """Return a seed that is the same in every process."""
    return sum(map(ord, plugin)) * 31 + number
