"""The stages of a build, in their order: the one place where the order stands."""

from __future__ import annotations

from difflib import get_close_matches

from kitlib.errors import ParamsError
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.init import Init
from kitlib.stages.join import Join
from kitlib.stages.network import Network
from kitlib.stages.packages import Packages
from kitlib.stages.preflight import Preflight
from kitlib.stages.ready import Ready
from kitlib.stages.reset import Reset
from kitlib.stages.runner import StageRun, run_stage
from kitlib.stages.verify import Verify

__all__ = [
    "FIRST_RECORDED",
    "STAGES",
    "STAGE_NAMES",
    "Action",
    "Context",
    "Plan",
    "Stage",
    "StageRun",
    "get_stage",
    "position",
    "run_stage",
]

STAGES: tuple[Stage, ...] = (
    Preflight(),
    Reset(),
    Packages(),
    Init(),
    Network(),
    Join(),
    Ready(),
    Verify(),
)
"""The source procedure applies the plugin before `kubeadm init`; there is no API then. Its intent,
the plugin before the workers join, is kept: network comes before join."""

STAGE_NAMES = tuple(stage.name for stage in STAGES)

FIRST_RECORDED = "init"
"""From this stage on the API is watched: before it, an answer would be another cluster's."""


def get_stage(name: str) -> Stage:
    """Return the stage of that name.

    Raises:
        ParamsError: There is none; the message lists those that there are.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    close = get_close_matches(name, STAGE_NAMES, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ParamsError(f"unknown stage {name!r}: the stages are {', '.join(STAGE_NAMES)}{meant}")


def position(name: str) -> int:
    """Return where a stage stands in the order, from 0."""
    return STAGE_NAMES.index(get_stage(name).name)
