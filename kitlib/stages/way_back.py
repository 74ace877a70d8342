"""Plugins that move the host's own address can cut SSH off: every host gets a way back first.

Before such a plugin comes to a host, a timer is armed there that puts the address back by itself;
it is called off once the plugin's pods run there and a new SSH connection to the host works. What
the host's network was is kept until the plugin is taken out, because that moves the address too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from shlex import quote

from kitlib.command import Cmd
from kitlib.errors import ApiError, ConnectError, DeadlineError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.model import CLUSTER
from kitlib.retry import Deadline
from kitlib.software import units
from kitlib.software.way_back import (
    FIRED,
    NETWORK,
    TIMER,
    UNIT,
    call_off,
    network_script,
    own_network,
    shown,
    timer_script,
    timer_unit,
)
from kitlib.stages.base import Action, Context, Hands
from kitlib.stages.configuration import KIT_DIRECTORY, api_address
from kitlib.stages.observe import plugin_pods

__all__ = ["armed", "arms", "call_offs", "is_needed", "stop_where_taken", "turns"]

EVERY = 1.0
SETTLED_SECONDS = 5.0
"""How long the host must stay within reach: some agents move the address after they are Ready."""


def is_needed(ctx: Context) -> bool:
    """Return whether the wanted plugin moves the host's own address."""
    return ctx.plugin.hazards.moves_host_address


def armed(ctx: Context) -> list[str]:
    """Return the hosts on which the timer is armed (or has put the address back)."""
    return [name for name, here in ctx.facts().items() if UNIT in (here.leftovers.units or ())]


def arms(ctx: Context, names: Iterable[str]) -> list[Action]:
    """Return the arming of the timer on these hosts; nothing for a plugin that needs none.

    Raises:
        PreconditionError: It is not known what carries a host's address.
    """
    if not is_needed(ctx):
        return []
    facts = ctx.facts()
    hosts = {host.name: host for host in ctx.hosts}
    return [_arm(ctx, hosts[name], facts[name]) for name in names if name in facts]


def call_offs(ctx: Context, names: Iterable[str]) -> list[Action]:
    """Return the end of the timer on these hosts, once all is well there."""
    if not is_needed(ctx):
        return []
    what = (
        f"call the way back off, once {ctx.plugin.title}'s pods run there and a new SSH connection "
        f"works: stop and remove {UNIT}"
    )
    return [Action(name, what, call_off(), do=_caller(ctx, name)) for name in names]


def stop_where_taken(ctx: Context, names: Iterable[str]) -> None:
    """Refuse to work on hosts whose way back was taken: their kubelet is stopped.

    Raises:
        PreconditionError: It names the first one, and what helps.
    """
    for name in {*armed(ctx)} & {*names}:
        if ctx.read(name, Cmd.of("test", "-e", FIRED)).ok:
            raise _was_taken(ctx, name)


def turns(targets: Sequence[str], last: str) -> list[list[str]]:
    """Return the turns in which every host is armed before the plugin is applied from the last."""
    others = [name for name in targets if name not in (CLUSTER, last)]
    return [others, [CLUSTER], [last]]


def _arm(ctx: Context, host: Host, here: HostFacts) -> Action:
    seconds = ctx.params.timeouts.revert
    address = api_address(host, here)
    own = own_network(address, here.links, here.routes)
    kept = ctx.read(host.name, Cmd.of("cat", NETWORK)).stdout
    # On another device than before, the address was moved already: what was kept still holds.
    if kept and (own is None or f"dev={quote(own.device)}\n" not in kept):
        text, words = kept, "as it was before the plugin came"
    elif own is not None:
        text, words = network_script(own), shown(own)
    else:
        raise PreconditionError(
            f"{host.name}: no device carries {address}: there would be no way back from "
            f"{ctx.plugin.title}, which moves it",
            remedy="state the host's own address as node_address",
        )

    def do(hands: Hands) -> None:
        taken = ctx.read(host.name, Cmd.of("test", "-e", FIRED)).ok
        hands.run(host.name, call_off())
        hands.run(host.name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
        hands.put(host.name, text, NETWORK)
        hands.put(host.name, timer_script(ctx.plugin, seconds), TIMER)
        hands.put(host.name, timer_unit(ctx.plugin), units.unit_path("way-back"))
        hands.run(host.name, units.start_unit("way-back"))
        if taken:  # it had stopped the kubelet
            hands.run(host.name, Cmd.change("systemctl", "start", "kubelet"))

    what = (
        f"arm a way back, since {ctx.plugin.title} moves the host's address and can cut SSH off: "
        f"after {seconds:g} s, or at the next start, {UNIT} stops the plugin here and puts back "
        f"{words}"
    )
    return Action(host.name, what, do=do)


def _caller(ctx: Context, name: str) -> Callable[[Hands], None]:
    def do(hands: Hands) -> None:
        stop_where_taken(ctx, [name])
        deadline = Deadline(
            min(ctx.params.timeouts.ready, ctx.params.timeouts.revert / 2),
            f"{name}: {ctx.plugin.title}'s pods",
        )
        while why := _not_running(ctx, name):
            if deadline.left < EVERY:
                raise DeadlineError(
                    f"{name}: {why}, after {deadline.seconds:g} s; the way back stays armed",
                    remedy="kubectl describe says what the pod waits for; the host's own address "
                    f"is put back within {ctx.params.timeouts.revert:g} s of the arming",
                )
            ctx.waiting(name, f"before the way back is called off: {why}")
            deadline.sleep(EVERY)
        for pause in (0.0, SETTLED_SECONDS):
            Deadline(pause + 1, "settled").sleep(pause)
            try:
                ctx.doors.reach_anew(name)
            except ConnectError as error:
                error.message += (
                    f"\n  {ctx.plugin.title} may have cut it off; its way back stays armed, and "
                    f"puts the address back within {ctx.params.timeouts.revert:g} s of the arming"
                )
                raise
        hands.run(name, call_off())

    return do


def _not_running(ctx: Context, name: str) -> str:
    """Return why the plugin does not run on a host yet; empty when its pods there are Ready."""
    try:
        pods = [p for p in plugin_pods(ctx.kube(wait=5), ctx.plugin)
                if p["spec"].get("nodeName") == name]  # fmt: skip
    except ApiError as error:
        if not error.retryable:
            raise
        return f"the API does not answer: {error.message}"
    if not pods:
        return "no pod of it is there"
    for pod in pods:
        conditions = (pod.get("status") or {}).get("conditions") or []
        met = {each["type"]: each["status"] for each in conditions}
        if met.get("Ready") != "True":
            return f"pod {pod['metadata']['name']} is not Ready"
    return ""


def _was_taken(ctx: Context, name: str) -> PreconditionError:
    return PreconditionError(
        f"{name}: its way back from {ctx.plugin.title} was taken: the plugin was stopped there, "
        "with the kubelet, and the host's own address put back",
        remedy=f"journalctl -u {UNIT} on the host; kit stage reset makes it clean, or the network "
        "stage tries again with a longer timeouts.revert",
    )
