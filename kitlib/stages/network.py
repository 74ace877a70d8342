"""Stage 5: `kubectl apply` of the network plugin, from its address or from a file here.

The manifest is fetched and prepared on this machine before anything is touched; every difference to
what was fetched stands in the plan. Both are kept in the record, and the prepared one is written to
the control plane and applied there. The workers join later; this stage judges only what can run on
the nodes that exist.
"""

from __future__ import annotations

from collections.abc import Sequence

from kitlib import checks
from kitlib.kube import Obj
from kitlib.model import CLUSTER, Check, Status, failed
from kitlib.stages import marks, per_node, way_back
from kitlib.stages.applying import apply_actions, missing, remove_files
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.fetching import prepared
from kitlib.stages.observe import Steady, in_the_cluster, wait_for_workloads, workload_objects

__all__ = ["Network", "manifest_check"]

_NO_MANIFEST = (
    "{} has no manifest: the ready stage writes it on each host, which then has a podCIDR"
)


class Network(Stage):
    """The plugin's objects in the cluster."""

    name = "network"
    title = "Apply the network plugin"
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return the apply; nothing where every object is there as the manifest has it.

        Raises:
            ParamsError: The manifest cannot be fetched, is not YAML, or a parameter has no place
                in it.
            PreconditionError: It cannot work in this cluster; a person must say what is meant.
        """
        if ctx.plugin.per_node is not None:
            return Plan(reason=_NO_MANIFEST.format(ctx.plugin.title))
        ctx.manifest = None  # a file may have been mended since the last plan
        manifest = prepared(ctx)
        lacking = missing(ctx, manifest.objects)
        labels = marks.plugin_labels(ctx)
        if not lacking and not labels:
            # A run that was broken off may have left the hosts' way back armed.
            done = way_back.call_offs(ctx, way_back.armed(ctx))
            return Plan(
                tuple(done), f"every object of {manifest.where} is in the cluster as wanted"
            )
        hosts = in_the_cluster(ctx) or [ctx.administrator.name]
        return Plan(
            (
                *way_back.arms(ctx, hosts),
                *labels,
                *(apply_actions(ctx, manifest, lacking) if lacking else ()),
            ),
            closing=tuple(way_back.call_offs(ctx, hosts)),
            cleanup=remove_files(ctx, manifest) if lacking else (),
            notices=manifest.lines,
        )

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:
        """Return the turns: what the other hosts need before the plugin comes is theirs first."""
        return way_back.turns(targets, ctx.administrator.name)

    def check(self, ctx: Context) -> list[Check]:
        """Return whether every object is there and what can run on the nodes that exist runs."""
        if ctx.plugin.per_node is not None:
            why = _NO_MANIFEST.format(ctx.plugin.title)
            return [Check("network.applied", CLUSTER, Status.SKIP, "the plugin is applied", why)]
        early = [load for load in ctx.plugin.workloads if load.starts_on_not_ready]
        plugin = ctx.plugin.model_copy(update={"workloads": tuple(early)})
        applied = manifest_check(ctx)
        judged_labels = marks.plugin_label_checks(ctx)
        seconds = ctx.params.timeouts.ready if applied.status is Status.PASS else 0
        judged = checks.workloads(wait_for_workloads(ctx, early, seconds=seconds), plugin)
        if not failed(judged):
            # Available may be a moment between two crashes: judged again when it has lasted.
            steady = Steady(ctx).end()
            judged = [*checks.workloads(workload_objects(ctx.kube(), early), plugin), *steady]
        return [applied, *judged_labels, *judged]


def manifest_check(ctx: Context) -> Check:
    """Return whether every object of the plugin's manifest is in the cluster as it stands there.

    A manifest of which only a part was accepted leaves nodes Ready and pods without addresses.
    """
    if ctx.plugin.per_node is not None:
        return per_node.check(ctx)
    lacking = missing(ctx, prepared(ctx).objects)
    return Check.that(
        not lacking,
        "network.applied",
        CLUSTER,
        "every object of the plugin's manifest is in the cluster",
        got=f"not there, or not as in the manifest: {_names(lacking)}" if lacking else "all",
        expected="all of them",
        remedy="run the network stage; its record has kubectl's own message. A kind that this "
        "Kubernetes no longer serves needs a newer manifest",
    )


def _names(objects: list[Obj]) -> str:
    shown = [f"{item['kind']} {item['metadata']['name']}" for item in objects]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
