"""Each probe's command really run, against a network whose state is known: two hosts, one router.

A tool that is missing here skips its tests; with KIT_REQUIRE_ALL they fail.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import netkit
import pytest
from netkit import NO_ROUTE, NOBODY, ODD, SERVER, Net

import kitlib
from kitlib.command import Cmd
from kitlib.probes import curl, dig, dns, fping, http, iperf3, mtu, ping, routes, tcp, tools
from kitlib.probes.timed import Sample

LAB = """{name}() {{ {python} -SE -c "import sys; sys.path.insert(0, '{root}');
from kitlib.lab.applets.{name} import main; sys.exit(main(sys.argv[1:]))" "$@"; }}; """
pytestmark = pytest.mark.lab

PAGES, SILENT, CLOSED, BULK = 8000, 8001, 8002, 5201


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    needs("unshare", "nsenter", "ip", "nft", "ping")
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    with netkit.net() as made:
        made.answer("http", SERVER, str(PAGES))
        made.answer("silent", SERVER, str(SILENT))
        made.answer("dns", SERVER)
        yield made


@pytest.fixture(autouse=True)
def healthy(net: Net) -> Iterator[None]:
    """Leave the network as it was."""
    yield
    net.rule("")
    net.mtu(1500)
    net.forget()


def needs(*programs: str) -> None:
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def needs_applet(name: str) -> None:
    needs("busybox")
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    if name not in listed.stdout.split():
        pytest.skip(f"this busybox has no {name}")


def answered(samples: list[Sample], count: int) -> bool:
    """Return whether all came, each in a time that a path inside one machine can have."""
    times = [sample.rtt_ms for sample in samples]
    return len(times) == count and all(ms is not None and 0.001 < ms < 1000 for ms in times)


def lost(samples: list[Sample]) -> set[str]:
    """Return why samples were lost, of which all were."""
    assert samples
    assert all(sample.lost for sample in samples), samples
    return {sample.reason for sample in samples}


BOTH = pytest.mark.parametrize("busybox", [(), ("ping", "ip")], ids=["iputils", "busybox"])


@BOTH
def test_ping(net: Net, busybox: tuple[str, ...]) -> None:
    if busybox:
        needs_applet("ping")

    def pinged(address: str, count: int) -> list[Sample]:
        cmd = ping.command(address, count=count, timeout=1)
        return ping.parse(net.probe(cmd, busybox=busybox), count=count)

    assert answered(pinged(SERVER, 3), 3)
    assert lost(pinged(NO_ROUTE, 1)) == {"Network is unreachable"}
    for how, marks in (("duplicate", (True, False)), ("reorder", (False, True))):
        server = net.answer("odd", ODD, how)
        samples = pinged(ODD, 5)
        server.kill()
        told = (
            any(sample.duplicate for sample in samples),
            any(sample.reordered for sample in samples),
        )
        assert told == marks, samples
        assert len([sample for sample in samples if not sample.duplicate]) == 5
    net.rule("ip protocol icmp drop")
    assert lost(pinged(SERVER, 1)) == {""}


def test_a_sweep_by_fping_says_of_each_address_what_ping_would(net: Net) -> None:
    needs("fping")
    found = fping.parse(net.probe(fping.command([SERVER, NOBODY, NO_ROUTE], count=2)), count=2)
    assert answered(found[SERVER], 2)
    assert lost(found[NOBODY]) == lost(found[NO_ROUTE]) == {""}
    server = net.answer("odd", ODD, "reorder")
    samples = fping.parse(net.probe(fping.command([ODD], count=4)), count=4)[ODD]
    server.kill()
    assert any(sample.reordered for sample in samples)


def exchanges(
    net: Net, port: int, *, address: str = SERVER, count: int = 3, kept: bool = False
) -> list[curl.Exchange]:
    cmd = curl.command(f"http://{address}:{port}/", count=count, timeout=1, kept=kept)
    return curl.parse(net.probe(cmd), count=count)


def test_curl_times_connecting_the_first_byte_and_the_whole(net: Net) -> None:
    needs("curl")
    fresh = exchanges(net, PAGES)
    for part in (curl.connects(fresh), curl.responses(fresh), curl.wholes(fresh)):
        assert answered(part, 3)
        assert {sample.server for sample in part} == {"worker-1"}
    for each in fresh:
        assert each.total_ms is not None
        assert (each.connect_ms or 0) + (each.response_ms or 0) <= each.total_ms + 0.002
    kept = exchanges(net, PAGES, kept=True)
    assert [each.kept for each in kept] == [False, True, True]
    assert len(curl.connects(kept)) == 1
    assert answered(curl.responses(kept), 3)


def test_curl_says_why_a_connection_did_not_come(net: Net) -> None:
    needs("curl")
    assert lost(curl.connects(exchanges(net, CLOSED))) == {"Connection refused"}
    unreachable = exchanges(net, PAGES, address=NO_ROUTE)
    assert lost(curl.connects(unreachable)) == {"Network is unreachable"}
    silent = exchanges(net, SILENT, count=1)
    assert answered(curl.connects(silent), 1)
    assert lost(curl.responses(silent)) == {"timed out waiting for the answer"}
    net.rule(f"tcp dport {PAGES} drop")
    assert lost(curl.connects(exchanges(net, PAGES, count=1))) == {"timed out connecting"}


@pytest.mark.parametrize("busybox", [(), ("nc",)], ids=["nc", "busybox"])
def test_nc_says_whether_a_port_can_be_reached(net: Net, busybox: tuple[str, ...]) -> None:
    if busybox:
        needs_applet("nc")
    needs("nc")

    def tried(port: int) -> Sample:
        return tcp.parse(net.probe(tcp.command(SERVER, port, timeout=1), busybox=busybox))

    assert tried(PAGES) == tried(SILENT) == Sample(1, None, untimed=True)
    assert lost([tried(CLOSED)]) == {"Connection refused"}
    net.rule(f"tcp dport {PAGES} drop")
    assert lost([tried(PAGES)]) == {"timed out"}


@pytest.mark.parametrize("program", ["wget", "busybox"])
def test_wget_says_whether_a_page_came(net: Net, program: str) -> None:
    if program == "busybox":
        needs_applet("wget")
    needs("wget", "timeout")

    def fetched(port: int) -> http.Answer:
        argv = http.command(f"http://{SERVER}:{port}/", timeout=1).argv
        *before, wget, quiet, url = map(str, argv)
        called = [program, wget] if program == "busybox" else [wget]
        done = net.run("client", *before, *called, quiet, url)
        return http.parse(done.stdout, done.stderr, done.returncode)

    assert fetched(PAGES) == http.Answer(True, "worker-1\n")
    assert fetched(SILENT).error == "timed out"
    assert "refused" in fetched(CLOSED).error or fetched(CLOSED).error == "network failure"


@pytest.mark.parametrize("over_tcp", [False, True], ids=["udp", "tcp"])
def test_dig(net: Net, over_tcp: bool) -> None:
    needs("dig")

    def asked(name: str, server: str = SERVER) -> list[dig.Lookup]:
        cmd = dig.command(name, server, tcp=over_tcp, count=2, timeout=1)
        return dig.parse(net.probe(cmd), count=2)

    two = asked("two.test")
    assert answered(dig.times(two), 2)
    assert [each.addresses for each in two] == [("10.9.2.2", "10.9.2.3")] * 2
    assert {sample.server for sample in dig.times(two)} == {SERVER}
    said = {name: lost(dig.times(asked(f"{name}.test"))) for name in ("nosuch", "broken", "empty")}
    assert said == {
        "nosuch": {"NXDOMAIN"}, "broken": {"SERVFAIL"}, "empty": {"no address in the answer"},
    }  # fmt: skip
    assert lost(dig.times(asked("garbage.test"))) == {"Got bad packet: bad compression pointer"}
    assert lost(dig.times(asked("web.test", "10.9.1.1"))) == {"connection refused"}
    assert lost(dig.times(asked("unheard.test"))) == {"timed out"}


def test_a_broken_dns_over_one_transport_is_not_seen_over_the_other(net: Net) -> None:
    needs("dig")
    net.rule("udp dport 53 drop")
    told = []
    for over_tcp in (False, True):
        cmd = dig.command("web.test", SERVER, tcp=over_tcp, count=1, timeout=1)
        (sample,) = dig.times(dig.parse(net.probe(cmd), count=1))
        told.append(sample.lost)
    assert told == [True, False]


@pytest.mark.parametrize("busybox", [(), ("nslookup",)], ids=["bind", "busybox"])
def test_nslookup(net: Net, busybox: tuple[str, ...]) -> None:
    if busybox:
        needs_applet("nslookup")
    needs("nslookup")

    def asked(name: str) -> dns.Answer:
        return dns.parse(net.probe(dns.command(name, server=SERVER), busybox=busybox))

    assert asked("two.test.") == dns.Answer(SERVER, ("10.9.2.2", "10.9.2.3"))
    assert asked("nosuch.test.").error == "NXDOMAIN"
    assert dns.sample(asked("web.test.")) == Sample(1, None, server=SERVER, untimed=True)


def searched(net: Net, busybox: tuple[str, ...] = ()) -> tuple[int, int, str]:
    found = mtu.parse(net.probe(mtu.command(SERVER), busybox=busybox))
    assert found.exact == (not busybox)
    assert found.claimed == 1500
    return found.passes, found.fails, found.reason


@pytest.mark.parametrize(
    "busybox",
    [(), pytest.param(("ping", "ip"), marks=pytest.mark.thorough)],
    ids=["iputils", "busybox"],
)
def test_the_path_mtu_is_found_to_the_byte(net: Net, busybox: tuple[str, ...]) -> None:
    if busybox:
        needs_applet("ping")
    assert searched(net, busybox) == (1500, 0, "")
    net.rule("ip length > 1400 drop")
    assert searched(net, busybox) == (1400, 1401, "")  # a black hole: nobody says anything
    net.rule("drop")
    assert searched(net, busybox) == (0, mtu.SMALL, "")


def test_a_router_that_names_its_limit_is_believed_after_a_try(net: Net) -> None:
    net.mtu(1400)
    words = "Frag needed and DF set (mtu = 1400)"
    assert searched(net) == (1400, 1401, words)
    # again, while the kernel still knows: the sender itself refuses, and says the same size
    passes, fails, reason = searched(net)
    assert (passes, fails) == (1400, 1401)
    assert "mtu=1400" in reason


@pytest.mark.thorough
def test_of_a_limit_that_is_named_and_a_black_hole_below_it_the_hole_is_found(net: Net) -> None:
    net.mtu(1450)
    net.rule("ip length > 1400 drop")
    assert searched(net) == (1400, 1401, "")


@BOTH
def test_ways(net: Net, busybox: tuple[str, ...]) -> None:
    if busybox:
        needs_applet("ip")
    net.must("client", "ip route replace blackhole 10.7.0.0/16")
    asked = [SERVER, "10.9.1.1", NO_ROUTE, "10.7.0.1"]
    ways = routes.parse(net.probe(routes.command(asked), busybox=busybox))
    assert list(ways) == asked
    assert (ways[SERVER].via, ways[SERVER].device, ways[SERVER].device_mtu) == (
        "10.9.1.1", "eth0", 1500,
    )  # fmt: skip
    assert ways["10.9.1.1"].via == ""
    assert [ways[each].there for each in asked] == [True, True, False, False]
    assert "Network is unreachable" in ways[NO_ROUTE].text
    rows = routes.rows(ways, node="a", owners={SERVER: "b"}, started=1.0)
    assert [row["dst"] for row in rows] == ["b", "", "", ""]


def test_throughput_and_what_the_server_leaves_behind(net: Net) -> None:
    needs("iperf3", "timeout")
    start = iperf3.server(BULK, seconds=20)
    assert iperf3.parse_server(net.probe(start, place="server")) == ""
    assert iperf3.parse_server(net.probe(start, place="server")) == "port in use"
    measured = iperf3.parse(net.probe(iperf3.command(SERVER, BULK, seconds=1)))
    assert measured.ok
    assert measured.bits_per_second > 1e6
    assert measured.seconds == pytest.approx(1, abs=0.5)
    net.until("server", f"! nc -z -w 1 {SERVER} {BULK}")
    refused = iperf3.parse(net.probe(iperf3.command(SERVER, BULK, seconds=1)))
    assert "Connection refused" in refused.error


def test_the_tools_that_are_there_are_told(net: Net) -> None:
    told = tools.parse(net.probe(tools.command()))
    known = {each.tool for row in tools.CHOICES.values() for each in row}
    assert told == {each for each in known if shutil.which(each)}
    bare = Cmd(tools.command().argv, env={"PATH": "/nowhere"})
    done = net.run("client", "/bin/sh", "-c", f"PATH=/nowhere; {bare.argv[2]}", "sh", "ping", "ip")
    assert tools.parse(done.stdout) == frozenset()


def test_the_labs_own_tools_are_read_like_the_real_ones(net: Net) -> None:
    """They stand in where the machine has none: same commands, same parsers, same verdicts."""

    def printed(name: str, cmd: Cmd) -> str:
        stand_in = LAB.format(
            name=name, python=sys.executable, root=Path(kitlib.__file__).parents[1]
        )
        done = net.run("client", "sh", "-c", f"{stand_in} {netkit.bare(cmd)}")
        return done.stdout + done.stderr

    def fetched(address: str, port: int, kept: bool = False) -> list[curl.Exchange]:
        cmd = curl.command(f"http://{address}:{port}/", count=2, timeout=1, kept=kept)
        return curl.parse(printed("curl", cmd), count=2)

    kept = fetched(SERVER, PAGES, kept=True)
    assert answered(curl.responses(kept), 2)
    assert [(each.kept, each.server) for each in kept] == [(False, "worker-1"), (True, "worker-1")]
    assert answered(curl.connects(fetched(SERVER, PAGES)), 2)
    assert lost(curl.connects(fetched(SERVER, CLOSED))) == {"Connection refused"}
    assert lost(curl.connects(fetched(NO_ROUTE, PAGES))) == {"Network is unreachable"}
    assert lost(curl.responses(fetched(SERVER, SILENT))) == {"timed out waiting for the answer"}

    def asked(name: str, over_tcp: bool) -> list[dig.Lookup]:
        cmd = dig.command(name, SERVER, tcp=over_tcp, count=2, timeout=1)
        return dig.parse(printed("dig", cmd), count=2)

    for over_tcp in (False, True):
        assert answered(dig.times(asked("two.test", over_tcp)), 2)
        assert lost(dig.times(asked("nosuch.test", over_tcp))) == {"NXDOMAIN"}
        assert lost(dig.times(asked("unheard.test", over_tcp))) == {"timed out"}
    for port, lost_for in ((PAGES, ""), (CLOSED, "Connection refused")):
        sample = tcp.parse(printed("nc", tcp.command(SERVER, port, timeout=1)))
        assert (sample.lost, sample.reason) == (bool(lost_for), lost_for)
