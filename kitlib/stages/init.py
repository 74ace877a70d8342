"""Stage 4: `kubeadm init` on the control plane, with the pod network that the plugin needs."""

from __future__ import annotations

from kitlib.command import Cmd
from kitlib.errors import ApiError
from kitlib.model import CLUSTER, Check
from kitlib.software.proxy import environment
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.broken_off import stop_where_broken_off
from kitlib.stages.configuration import KIT_DIRECTORY, init_configuration
from kitlib.stages.situation import missing_of_init, wants_kube_proxy

__all__ = ["Init"]

CONFIG = f"{KIT_DIRECTORY}/kubeadm.yaml"
KUBE_PROXY_PHASE = "addon/kube-proxy"
"""The phase that is left out for a plugin that does kube-proxy's work itself."""


class Init(Stage):
    """The first control plane of the cluster."""

    name = "init"
    title = "Start the control plane with kubeadm init"

    def plan(self, ctx: Context) -> Plan:
        """Return `kubeadm init`; nothing where the control plane runs."""
        name = ctx.administrator.name
        here = ctx.facts()[name]
        if here.kubeadm.initialised:
            return Plan(reason=f"{name} is the control plane of cluster {here.kubeadm.cluster}")
        stop_where_broken_off(ctx, [name], self.name)
        config = init_configuration(ctx.params, ctx.control_plane, here)
        command = Cmd.change(
            "kubeadm",
            "init",
            "--config",
            CONFIG,
            *([] if wants_kube_proxy(ctx.plugin) else [f"--skip-phases={KUBE_PROXY_PHASE}"]),
            env=environment(ctx.params),
            timeout=ctx.params.timeouts.init,
        )

        without = "" if wants_kube_proxy(ctx.plugin) else f", no kube-proxy: {ctx.plugin.title}"

        def write(hands: Hands) -> None:
            hands.run(name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
            hands.put(name, config, CONFIG)
            hands.journal.keep("kubeadm.yaml", config)

        return Plan(
            (
                Action(name, f"write the kubeadm configuration to {CONFIG}", do=write),
                Action(
                    name,
                    f"start the control plane of cluster {ctx.params.cluster}, "
                    f"pod CIDR {ctx.params.effective_pod_cidr}{without}",
                    command,
                    changes_cluster=True,
                ),
            )
        )

    def check(self, ctx: Context) -> list[Check]:
        """Return whether the API answers, and that it is the wanted cluster's."""
        name, params = ctx.administrator.name, ctx.params
        here = ctx.facts()[name].kubeadm
        missing: tuple[str, ...] = ()
        try:
            kube = ctx.kube(wait=60)
            version = str(kube.get("/version")["gitVersion"])
            missing = missing_of_init(kube, ctx.plugin)
        except ApiError as error:
            version = error.message
        return [
            Check.that(
                version == f"v{params.kubernetes_version}",
                "init.api",
                CLUSTER,
                "the Kubernetes API answers in the wanted version",
                got=version,
                expected=f"v{params.kubernetes_version}",
                remedy="if an init was broken off here, run the reset stage, then this one; else "
                "look at the kubelet's journal on the control plane, kept in the record",
            ),
            Check.that(
                not missing,
                "init.finished",
                CLUSTER,
                "what kubeadm init makes last is in the cluster",
                got=f"no {', no '.join(missing)}" if missing else "all",
                expected="its configuration and addons",
                remedy="an init was broken off here, or they were deleted: run the reset stage, "
                "then this one; `kit build` does both",
            ),
            Check.that(
                here.cluster == params.cluster,
                "init.cluster",
                name,
                "the control plane is that of the wanted cluster",
                got=f"{here.cluster} {here.ca_hash}",
                expected=params.cluster,
                remedy="run the reset stage first",
            ),
        ]
