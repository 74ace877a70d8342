"""Who is in the cluster that a control-plane host belongs to, as its API says, where it answers.

Not one of the facts that are read of every host: only a host with an administrator's kubeconfig can
be asked, and only a cluster that may be in the way is worth the question.
"""

from __future__ import annotations

from kitlib.command import Cmd, script

__all__ = ["command", "parse"]

_SCRIPT = """
export KUBECONFIG=/etc/kubernetes/admin.conf
if [ -r "$KUBECONFIG" ] && command -v kubectl >/dev/null; then
  timeout 10 kubectl get nodes -o name --request-timeout=5s
fi
"""


def command() -> Cmd:
    """Return the command that asks; it prints nothing where there is nobody to ask."""
    return script(_SCRIPT.strip(), timeout=20, label="ask the cluster for its nodes")


def parse(text: str) -> tuple[str, ...]:
    """Return the names of the cluster's nodes; empty when it did not answer."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line.removeprefix("node/") for line in lines if line.startswith("node/"))
