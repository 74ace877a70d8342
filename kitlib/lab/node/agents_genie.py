"""CNI-Genie's containers: the one that installs its file, and its admission controller.

It makes no network. Its file sorts before every other, and the emulated kubelet does what it says:
it calls the plugin that a pod's annotation names, or several, or the default one.
"""

from __future__ import annotations

import json

from kitlib.lab.node import agent
from kitlib.lab.node.images import Program, idle, register

__all__ = ["config_of"]

_FILE, _KUBECONFIG = "00-genie.conf", "genie-kubeconfig"
_API = ("10.96.0.1", "443")


def config_of(text: str, node: str) -> str:
    """Return Genie's configuration with its placeholders filled in; the lab has no token for it."""
    for word, value in (
        ("__KUBERNETES_NODE_NAME__", node),
        ("__SERVICEACCOUNT_TOKEN__", ""),
        ("__KUBERNETES_SERVICE_HOST__", _API[0]),
        ("__KUBERNETES_SERVICE_PORT__", _API[1]),
    ):
        text = text.replace(word, value)
    return text


@register("genie-plugin", images=("huawei-cni-genie/genie-plugin",), agent=True)
async def install(program: Program) -> int:
    """Put Genie's program and file on the host, and stay until stopped."""
    agent.install(["genie"], "CNI-Genie")
    agent.CNI_DIR.mkdir(parents=True, exist_ok=True)
    (agent.CNI_DIR / _KUBECONFIG).write_text("# Kubeconfig file for CNI-Genie plugin.\n")
    text = config_of(program.env["CNI_NETWORK_CONFIG"], program.host.name)
    agent.configure(_FILE, json.loads(text))
    program.log(f"Wrote CNI config: {_FILE}")
    return await idle(program)


register("genie-helper", images=("huawei-cni-genie/genie-admission-controller",))(idle)
