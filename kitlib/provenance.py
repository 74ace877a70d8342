"""Where a run's numbers come from, as the hosts (or pods on them) say it: written into run.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from kitlib.command import script
from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.journal import Journal
from kitlib.stages import STAGE_NAMES, position
from kitlib.stages.agents import Agent, Agents

__all__ = ["Origins"]

_BEFORE_THE_PLUGIN = STAGE_NAMES[: position("network")]
"""In these stages, what a host says of its datapath is of the plugin that was there before."""


_RELEASE = script("cat /etc/lab-release 2>/dev/null || true")


class Origins:
    """Notes where the numbers of a run come from.

    Args:
        journal: The run's record.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: Mapping[str, object] = {}
        self._built = False

    def note(self, facts: Mapping[str, HostFacts]) -> None:
        """Take what hosts say of themselves.

        What stands in for what is known when the plugin runs. What one that is replaced said goes
        with it; what was said of the one that was measured stays when it is removed afterwards.
        """
        if not facts:
            return
        known = self._known or self._journal.record().get("provenance") or {}
        said = known or _of_release(next(iter(facts.values())).host.lab)
        stands_in = "; ".join(sorted({here.host.stands_in for here in facts.values()} - {""}))
        before = self._journal.stage in _BEFORE_THE_PLUGIN
        self._built = self._built or not before
        if stands_in or (before and not self._built):  # a reset may follow what was built here
            said = {key: value for key, value in said.items() if key != "stands_in"}
            said |= {"stands_in": stands_in} if stands_in else {}
        self._known = said
        if said != known:
            self._journal.update(provenance=said)

    def ask(self, agents: Agents) -> None:
        """Take what /etc/lab-release says in agents, where no host can be asked.

        Real hosts' pods have no such file. Agents that do not answer say nothing.
        """
        if self._known or self._journal.record().get("provenance"):
            return

        def read(agent: Agent) -> str:
            return agents.run(agent.node, _RELEASE, agent.path).stdout

        releases = fan_out(read, [each for each in agents.running if each.path == "pod"]).values
        if not releases:
            return
        said = _of_release(next(iter(releases.values())))
        stand_ins = {_words(text).get("DATAPATH", "") for text in releases.values()} - {""}
        said |= {"stands_in": "; ".join(sorted(stand_ins))} if stand_ins else {}
        self._known = said
        self._journal.update(provenance=said)


def _of_release(release: str) -> dict[str, object]:
    """Return the provenance that /etc/lab-release states; without one the hosts are real."""
    if not release.strip():
        return {"kind": "hosts"}
    said = _words(release)
    return {
        "kind": "lab",
        "time_factor": float(said.get("LAB_TIME_FACTOR", "nan")),
        "emulated": said.get("LAB_EMULATED", ""),
    }


def _words(release: str) -> dict[str, str]:
    return {k: v for k, _, v in (word.partition("=") for word in shlex.split(release))}
