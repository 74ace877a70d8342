"""Upstream's own manifests against the lab's API: which version takes each, and what refuses it.

`make upstream` writes docs/manifests.md with it. The manifests are data that lies beside the
project (../shared/plugins/manifests); without it there is nothing to do.
"""

from __future__ import annotations

# ruff: noqa: T201 - a program whose output is a table
import argparse
import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

import apikit  # noqa: E402
from upstreamkit import MANIFESTS  # noqa: E402

from kitlib.lab.api.schema import FIRST, LAST, Resource, builtin, custom  # noqa: E402

PAGE = ROOT / "docs/manifests.md"

Obj = dict[str, Any]
Kind = tuple[str, str]
"""apiVersion and kind."""

ANNOTATION_LIMIT = 262144
"""Bytes that the annotations of one object may have; `kubectl apply` keeps the object in one."""

_MANAGER = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: managers.tf.tungsten.io}
spec:
  group: tf.tungsten.io
  scope: Namespaced
  names: {plural: managers, kind: Manager}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def _space(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


# What is for clusters with another Service range than the others.
_SERVICES = {"romana/romana-kops.yml": "100.64.0.0/13"}

# What must be there before: other manifests, or what upstream makes by other means (in our words).
_FIRST: dict[str, tuple[str, ...]] = {
    "calico/custom-resources-bpf.yaml": ("calico/operator-crds.yaml",),
    "calico/custom-resources.yaml": ("calico/operator-crds.yaml",),
    "contrail/tf-operator-base_contrail_tf.yaml": (_space("tf"), _MANAGER),
    "contrail/tf-operator-base_operator_operator.yaml": (_space("tf"),),
    "contrail/tf-operator-base_operator_role-binding.yaml": (_space("tf"),),
    "contrail/tf-operator-base_operator_role.yaml": (_space("tf"),),
    "contrail/tf-operator-base_operator_service-account.yaml": (_space("tf"),),
    "ovn/helm-v1.3.0-templates_rbac-ovnkube-db.yaml": (_space("ovn-kubernetes"),),
}


def documents(text: str) -> list[Obj]:
    """Return the objects of a manifest, Lists opened; none when it is not a manifest.

    Raises:
        yaml.YAMLError: It is not YAML: a template.
    """
    found: list[Obj] = []
    for each in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if each is None:
            continue
        if not isinstance(each, dict) or "kind" not in each or "apiVersion" not in each:
            return []
        found += each["items"] if each["kind"] == "List" else [each]
    return [each for each in found if "metadata" in each]


@dataclass(frozen=True)
class Manifest:
    """One of upstream's files."""

    name: str
    objects: list[Obj] = field(repr=False)

    @property
    def path(self) -> Path:
        """Where it is."""
        return MANIFESTS / self.name

    @property
    def kinds(self) -> list[Kind]:
        """What it holds, each once."""
        return list(dict.fromkeys((each["apiVersion"], each["kind"]) for each in self.objects))

    @property
    def too_long(self) -> bool:
        """Whether an object is too long for the annotation of a client-side apply."""
        return any(
            len(json.dumps(each, separators=(",", ":"))) > ANNOTATION_LIMIT for each in self.objects
        )

    @property
    def before(self) -> list[str]:
        """The manifests, as text, that must be applied before."""
        given = _FIRST.get(self.name, ())
        return [each if "\n" in each else (MANIFESTS / each).read_text() for each in given]

    @cached_property
    def minors(self) -> list[int]:
        """The versions of Kubernetes that serve everything in it (1.N)."""
        return [minor for minor in range(FIRST, LAST + 1) if not self.missing(minor)]

    def missing(self, minor: int) -> list[Kind]:
        """Return what 1.`minor` does not serve, once all before it is applied."""
        served = _served(minor)
        known = [*self.objects, *(each for text in self.before for each in documents(text))]
        for each in known:
            if each["kind"] == "CustomResourceDefinition" and _kind(each) in served:
                served |= {(res.api_version, res.kind) for res in custom(each)}
        wanted = [_kind(each) for each in known]
        return list(dict.fromkeys(kind for kind in wanted if kind not in served))

    @property
    def applied_on(self) -> int:
        """The newest version that serves all of it."""
        return self.minors[-1]

    @property
    def refused_on(self) -> int | None:
        """The nearest version that does not: the next one, else the one before the oldest."""
        near = (self.minors[-1] + 1, self.minors[0] - 1)
        return next((minor for minor in near if FIRST <= minor <= LAST), None)


def _kind(obj: Obj) -> Kind:
    return (obj["apiVersion"], obj["kind"])


def _served(minor: int) -> set[Kind]:
    resources: Iterable[Resource] = builtin(minor)
    return {(each.api_version, each.kind) for each in resources}


def manifests() -> list[Manifest]:
    """Return every file that is a manifest; templates and values of charts are not."""
    found = []
    for path in sorted(MANIFESTS.glob("*/*.y*ml")):
        try:
            objects = documents(path.read_text())
        except yaml.YAMLError:
            continue
        if objects:
            found.append(Manifest(f"{path.parent.name}/{path.name}", objects))
    return found


@dataclass(slots=True)
class Row:
    """What became of one manifest."""

    manifest: Manifest
    applied: str = "-"
    """Empty when everything went as it must."""
    refused: str = "-"
    """kubectl's reasons."""


def apply(api: apikit.Api, one: Manifest) -> str:
    """Apply, apply again and delete one manifest; return what went wrong, or nothing."""
    side = ["--server-side"] if one.too_long else []
    for text in one.before:
        done = api.kubectl("apply", "--server-side", "-f", "-", stdin=text)
        if done.returncode:
            return f"before it: {done.stderr}"
    told = (_apply(api, one, side), _delete(api, one))
    return " ".join(filter(None, told))


def _delete(api: apikit.Api, one: Manifest) -> str:
    """Delete a manifest and what was before it, and see that nothing of it is left.

    Without kubectl's own waiting: it asks five times a second, for one object at a time.
    """
    files = [("-f", str(one.path), ""), *(("-f", "-", text) for text in reversed(one.before))]
    for *argv, text in files:
        done = api.kubectl("delete", "--ignore-not-found", "--wait=false", *argv, stdin=text)
        if done.returncode and "no matches for kind" not in done.stderr:
            return f"delete: {done.stderr}"
    deadline = time.monotonic() + 20
    while left := api.kubectl("get", "--ignore-not-found", "-f", str(one.path)).stdout:
        if time.monotonic() > deadline:
            return f"not deleted: {left}"
        time.sleep(0.05)
    return ""


def _apply(api: apikit.Api, one: Manifest, side: list[str]) -> str:
    if side:
        done = api.kubectl("apply", "-f", str(one.path))
        if "metadata.annotations: Too long" not in done.stderr:
            return f"apply without --server-side was not refused: {done.stderr}"
    done = api.kubectl("apply", *side, "-f", str(one.path))
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(one.objects):
        return f"apply: {len(lines)} of {len(one.objects)}: {done.stderr}"
    first = _live(api, one)
    for wanted, live in zip(one.objects, first, strict=True):
        given = plain(wanted)
        if "namespace" not in live["metadata"]:  # what is of no namespace loses it, as in earnest
            given["metadata"].pop("namespace", None)
        if not within(given, live):
            return f"not as given: {wanted['kind']} {wanted['metadata']['name']}"
    if one.applied_on >= 16:  # 1.15 has no server-side apply
        # What is one value as a whole and has a default (fieldRef) conflicts on real clusters too.
        side = ["--server-side", "--field-manager=kit", "--force-conflicts"]
    done = api.kubectl("apply", *side, "-f", str(one.path))
    if done.returncode:
        return f"applied again: {done.stderr.splitlines()[0]}"
    # kubectl says "configured" of what has nulls, a status or a budget's selector, on real
    # clusters too: what counts is that nothing became another.
    for before, after in zip(first, _live(api, one), strict=True):
        if settled(before) != settled(after):
            return f"not as before: {before['kind']} {before['metadata']['name']}"
    return ""


def _live(api: apikit.Api, one: Manifest) -> list[Obj]:
    found = json.loads(api.ok("get", "-f", str(one.path), "-o", "json"))
    items: list[Obj] = found.get("items", [found])
    return items


def settled(obj: Obj) -> Obj:
    """Return an object without what its controllers write."""
    meta = {
        key: value
        for key, value in obj["metadata"].items()
        if key not in ("resourceVersion", "managedFields", "annotations")
    }
    kept = {key: value for key, value in obj.items() if key not in ("status", "secrets")}
    return {**kept, "metadata": meta}


def plain(value: Any) -> Any:
    """Return an object without what stands for nothing (nulls, empty objects and texts)."""
    if isinstance(value, dict):
        found = {key: plain(item) for key, item in value.items() if key != "status"}
        return {key: item for key, item in found.items() if item not in (None, {}, "", [])}
    return [plain(item) for item in value] if isinstance(value, list) else value


def within(part: Any, whole: Any) -> bool:
    """Return whether everything in `part` is in `whole` too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            within(item, whole.get(key)) for key, item in part.items()
        )
    if isinstance(part, list):
        pairs = zip(part, whole or [], strict=False)
        return len(part) == len(whole or []) and all(within(a, b) for a, b in pairs)
    return bool(part == whole)


def refusal(api: apikit.Api, one: Manifest) -> str:
    """Return the reasons for which a version refuses (a part of) a manifest, in kubectl's words."""
    for text in one.before:
        api.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    done = api.kubectl("apply", "-f", str(one.path))
    if problem := _delete(api, one):
        return problem
    if not done.returncode:
        return ""
    found = re.findall(r'no matches for kind "\w+" in version "[\w./]+"', done.stderr)
    return "; ".join(dict.fromkeys(found)) or done.stderr.strip()


def run(chosen: list[Manifest], directory: Path) -> Iterator[Row]:
    """Try manifests on the versions that take and refuse them, one API process a version."""
    rows = {one.name: Row(one) for one in chosen}
    work: dict[tuple[int, str], list[tuple[bool, Manifest]]] = defaultdict(list)
    for one in chosen:
        services = _SERVICES.get(one.name, "10.96.0.0/12")
        work[one.applied_on, services].append((True, one))
        if one.refused_on is not None:
            work[one.refused_on, "10.96.0.0/12"].append((False, one))

    def version(cluster: tuple[int, str]) -> None:
        minor, services = cluster
        place = directory / f"{minor}-{services.partition('/')[0]}"
        with apikit.running(place, f"1.{minor}.0", "--service-cidr", services) as api:
            for takes, one in work[cluster]:
                if takes:
                    rows[one.name].applied = apply(api, one)
                else:
                    rows[one.name].refused = refusal(api, one)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(version, sorted(work, key=lambda cluster: -len(work[cluster]))))
    yield from rows.values()


_HEAD = """# Upstream's manifests and the versions that take them

Written by `make upstream`. Every manifest of the plugins' projects that is plain YAML (the others
are templates) is given to the real kubectl on the lab's API: of the newest version that serves all
its kinds, where it must be applied whole, be found as it was given, be unchanged when it is
applied again (server-side and by another manager, where that exists), and be deleted; and of the
nearest version that does not, where it must be refused.
The API is the lab's, which serves the groups of Kubernetes 1.{first} to 1.{last} as the real one
does: that a version takes a manifest does not say that the plugin works there.

| manifest | objects | served | applied on | refused on | reason |
| --- | ---: | --- | --- | --- | --- |
"""
_TAIL = """
\\* server-side: an object is too long for the annotation in which `kubectl apply` would keep it,
and is refused so.
"""


def page(rows: Iterable[Row]) -> str:
    """Return the table as a page."""
    lines = []
    for row in rows:
        one = row.manifest
        first, last = one.minors[0], one.minors[-1]
        star = "\\*" if one.too_long else ""
        taken = f"1.{one.applied_on}{star}" if not row.applied else f"FAILED: {row.applied}"
        refused = "-" if one.refused_on is None else f"1.{one.refused_on}"
        cells = [one.name, str(len(one.objects)), f"1.{first} - 1.{last}", taken, refused]
        reason = row.refused.replace("no matches for kind ", "no kind ") or "NOT REFUSED"
        lines.append(f"| {' | '.join([*cells, reason])} |")
    return _HEAD.format(first=FIRST, last=LAST) + "\n".join(lines) + "\n" + _TAIL


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page to write; without it, print")
    args = parser.parse_args()
    found = manifests()
    if not found:
        print(f"{MANIFESTS}: no manifests here; nothing is written.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        rows = list(run(found, Path(name)))
    text = page(rows)
    if args.write:
        args.write.write_text(text)
    else:
        print(text)
    bad = [row for row in rows if row.applied or (row.manifest.refused_on and not row.refused)]
    for row in bad:
        print(f"{row.manifest.name}: {row.applied or 'not refused'}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
