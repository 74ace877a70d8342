"""What a kubeadm that did not end leaves on a host, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

from kitlib.errors import PreconditionError
from kitlib.stages.base import Context

__all__ = ["stop_where_broken_off"]


def stop_where_broken_off(ctx: Context, hosts: Iterable[str], verb: str) -> None:
    """Stop before kubeadm is run over what a kubeadm before it left half-done.

    kubeadm itself refuses that with a list of files and ports. In a dry run nothing is said: the
    reset stage has its own line for it there.

    Raises:
        PreconditionError: It names the hosts and what lies there.
    """
    facts = ctx.facts()
    left = {name: facts[name].kubeadm.files for name in hosts if not facts[name].kubeadm.clean}
    if left and not ctx.read_only:
        raise PreconditionError(
            "\n".join(
                f"{name}: a kubeadm that did not end left {', '.join(files)}"
                for name, files in left.items()
            ),
            remedy=f"run the reset stage, then {verb}; `kit build` does both",
        )
