"""Programs of the package kubernetes-cni that a network plugin took away from /opt/cni/bin.

Some plugins empty that directory when they are installed; to the package manager the package is
there all the same, and the next plugin finds nothing to call.
"""

from __future__ import annotations

from kitlib.facts import HostFacts
from kitlib.params import Params

__all__ = ["PACKAGE", "lost"]

PACKAGE = "kubernetes-cni"
_PROGRAMS = ("bridge", "host-local", "loopback", "portmap")
"""Those of its programs that plugins of the catalogue call."""


def lost(here: HostFacts, params: Params) -> tuple[str, ...]:
    """Return the package's programs that the wanted plugin calls and that are gone from a host."""
    have = here.cni.binaries
    if have is None or not here.version(PACKAGE):
        return ()
    wanted = params.wanted_plugin.cni.binaries
    return tuple(name for name in _PROGRAMS if name in wanted and name not in have)
