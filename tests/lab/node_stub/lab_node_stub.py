"""The smallest node emulation, for tests of the hosts themselves."""

from __future__ import annotations

import asyncio

from kitlib.lab.hostapi import Call, Handler, LabHost


async def boot(host: LabHost) -> None:
    for name in ("echo-call", "wait-for-ever", "stream", "upper", "fail"):
        host.install_command(name)
    host.log("lab", "booted")


async def echo_call(host: LabHost, call: Call) -> int:
    if "--install" in call.argv:
        host.install_command(call.argv[-1])
    if "--remove" in call.argv:
        host.remove_command(call.argv[-1])
    await call.out(f"{host.name} {host.address} {' '.join(call.argv)} in {call.cwd}")
    await call.err(f"TOKEN={call.env.get('TOKEN', '')} faults={','.join(sorted(host.faults))}")
    return 3


async def wait_for_ever(host: LabHost, call: Call) -> int:
    try:
        await host.run("sh", "-c", "echo started >> /run/waiting")
        await call.out("waiting")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await host.run("sh", "-c", "echo cancelled >> /run/waiting")
        raise
    return 0


async def stream(host: LabHost, call: Call) -> int:
    for number in range(int(call.argv[1])):
        await call.out(f"{number:08d} {'x' * 90}")
    return 0


async def upper(host: LabHost, call: Call) -> int:
    await call.out((await call.read_stdin()).upper())
    return 0


async def fail(host: LabHost, call: Call) -> int:
    raise RuntimeError("on purpose")


COMMANDS: dict[str, Handler] = {
    "echo-call": echo_call,
    "wait-for-ever": wait_for_ever,
    "stream": stream,
    "upper": upper,
    "fail": fail,
    "kubeadm": echo_call,
    "apt-get": echo_call,
}
