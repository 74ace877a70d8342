"""Table cells against what a real v1.22.3 API printed for the same objects."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kitlib.lab.api import clock, schema, tables

CASES = json.loads((Path(__file__).parents[1] / "data/api/recorded-tables.json").read_text())


def _rows(case: dict[str, Any]) -> list[list[str]]:
    resource = schema.catalogue(22).by_kind[case["kind"]]
    shown = tables.table(resource, case["objects"], {}, "None")
    names = [column["name"].upper() for column in shown["columnDefinitions"]]
    spaced = case["kind"] == "/pods"
    heads = [["NAMESPACE"] * spaced + names]
    for obj, row in zip(case["objects"], shown["rows"], strict=True):
        space = [obj["metadata"]["namespace"]] if spaced else []
        heads.append([*space, *(str(cell) for cell in row["cells"])])
    return heads


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_cells_are_those_of_the_recorded_cluster(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    when = dt.datetime.fromtimestamp(case["time"], dt.UTC)
    monkeypatch.setattr(clock, "now", lambda: when)
    recorded = [re.split(r" {2,}", line.strip()) for line in case["lines"]]
    assert _rows(case) == recorded


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"), (119, "119s"), (120, "2m"), (252, "4m12s"), (600, "10m"), (10799, "179m"),
        (10800, "3h"), (18300, "5h5m"), (28800, "8h"), (172799, "47h"), (172800, "2d"),
        (187200, "2d4h"), (10368000, "120d"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages_read_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def _pod(status: dict[str, Any], **meta: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}
    return {"metadata": {"name": "p", **meta}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        (_pod({"phase": "Pending"}), "Pending"),
        (_pod({"initContainerStatuses": [{"state": {"running": {}}}]}), "Init:0/1"),
        (
            _pod({"initContainerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
            "Init:ExitCode:2",
        ),
        (
            _pod({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "CrashLoopBackOff",
        ),
        (_pod({"phase": "Running"}, deletionTimestamp="2026-11-22T18:07:16Z"), "Terminating"),
    ],
)
def test_pod_status_words(pod: dict[str, Any], word: str) -> None:
    resource = schema.catalogue(22).by_kind["/pods"]
    assert tables.table(resource, [pod], {}, "None")["rows"][0]["cells"][2] == word


def test_custom_resources_show_their_printer_columns() -> None:
    crd = {
        "spec": {
            "group": "crd.projectcalico.org",
            "names": {"plural": "ippools", "kind": "IPPool"},
            "scope": "Cluster",
            "versions": [
                {
                    "name": "v1", "served": True, "storage": True,
                    "additionalPrinterColumns": [
                        {"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"},
                        {"name": "Ready", "type": "string",
                         "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
                    ],
                }
            ],
        }
    }  # fmt: skip
    resource = next(iter(schema.custom(crd)))
    pool = {
        "metadata": {"name": "default"},
        "spec": {"cidr": "192.168.0.0/16"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    shown = tables.table(resource, [pool], {}, "None")
    assert [column["name"] for column in shown["columnDefinitions"]] == ["Name", "CIDR", "Ready"]
    assert shown["rows"][0]["cells"] == ["default", "192.168.0.0/16", "True"]
