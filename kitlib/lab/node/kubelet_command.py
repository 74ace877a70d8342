"""The kubelet as a command: people ask it for its version; its unit runs the real emulation."""

from __future__ import annotations

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.packages import upstream
from kitlib.lab.node.state import state_of

__all__ = ["kubelet"]


async def kubelet(host: LabHost, call: Call) -> int:
    """Print the version; any other call is refused, for the unit already runs a kubelet."""
    if "--version" in call.argv[1:]:
        await call.out(f"Kubernetes v{upstream(state_of(host).packages['kubelet'])}")
        return 0
    await call.err(
        'E "command failed" err="listen tcp 0.0.0.0:10250: bind: address already in use"'
    )
    return 1
