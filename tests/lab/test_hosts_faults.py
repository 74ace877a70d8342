"""Faults that can be switched on in a lab: real ones bite, and healing undoes exactly them."""

from __future__ import annotations

import re
import time

import pytest
from lab_help import HOSTS, Lab, until
from paramiko.ssh_exception import NoValidConnectionsError

from kitlib.errors import LabError
from kitlib.lab import holding, verbs

pytestmark = pytest.mark.lab

STATE = (
    "nft list ruleset; ip -4 -o address; ip route; ip -o link;"
    "cat /proc/sys/net/bridge/bridge-nf-call-iptables; mount"
)
FORWARD = (
    "ip netns add a; ip link add va type veth peer name eth0 netns a;"
    "ip address add 10.99.0.1/24 dev va; ip link set va up;"
    "ip -n a address add 10.99.0.2/24 dev eth0; ip -n a link set eth0 up;"
    "ip -n a route add default via 10.99.0.1; echo 1 > /proc/sys/net/ipv4/ip_forward;"
    "ip netns exec a ping -c 1 -W 1 -q {options} 10.77.0.11; result=$?;"
    "ip netns del a; exit $result"
)
BACK = "ip route replace 10.99.0.0/24 via 10.77.0.12"


@pytest.mark.parametrize("fault", sorted(verbs.faults()))
def test_healing_undoes_exactly_the_fault(stub_lab: Lab, fault: str) -> None:
    before = stub_lab.run(STATE).stdout
    assert verbs.break_(stub_lab.state_dir, fault, "worker-1") == "worker-1"
    status = verbs.status(stub_lab.state_dir)
    assert [host.faults for host in status.hosts] == [(), (fault,), ()]
    assert verbs.heal(stub_lab.state_dir) == [("worker-1", fault)]
    assert [host.faults for host in verbs.status(stub_lab.state_dir).hosts] == [(), (), ()]
    until(lambda: stub_lab.run(STATE).stdout == before, seconds=5)


def test_flag_is_seen_by_emulated_commands_of_its_host_alone(stub_lab: Lab) -> None:
    verbs.break_(stub_lab.state_dir, "image-pull-fails", "worker-1")
    assert "faults=image-pull-fails" in stub_lab.run("echo-call").stderr
    assert "faults=\n" in stub_lab.run("echo-call", "worker-2").stderr


def test_default_host_has_the_role_that_the_fault_is_for(stub_lab: Lab) -> None:
    assert verbs.break_(stub_lab.state_dir, "api-slow") == "control-plane-1"
    assert verbs.break_(stub_lab.state_dir, "plugin-crashloop") == "worker-1"


def test_forward_drop_and_mtu_blackhole_hit_forwarded_packets(stub_lab: Lab) -> None:
    stub_lab.run(BACK, "control-plane-1")
    small, large = FORWARD.format(options="-s 56"), FORWARD.format(options="-s 1440")
    assert stub_lab.run(small).ok
    assert stub_lab.run(large).ok
    verbs.break_(stub_lab.state_dir, "mtu-blackhole", "worker-1")
    assert stub_lab.run(small).ok
    assert not stub_lab.run(large).ok
    verbs.heal(stub_lab.state_dir, "mtu-blackhole")
    assert stub_lab.run(large).ok
    verbs.break_(stub_lab.state_dir, "forward-drop", "worker-1")
    assert not stub_lab.run(small).ok
    assert stub_lab.run("ping -c 1 -W 1 -q 10.77.0.11").ok


def test_closed_port_is_closed_and_others_are_not(stub_lab: Lab) -> None:
    def kubelet_port(port: int) -> bool:
        knock = f"timeout 1 bash -c '</dev/tcp/10.77.0.12/{port}'"
        return "refused" not in stub_lab.run(knock, "worker-2").stderr

    assert not kubelet_port(10250)  # nothing listens: refused at once
    verbs.break_(stub_lab.state_dir, "port-closed", "worker-1")
    assert kubelet_port(10250)  # dropped: no answer at all
    assert stub_lab.run("timeout 1 bash -c '</dev/tcp/10.77.0.12/22'", "worker-2").ok


def test_a_closed_tunnel_leaves_the_rest_of_the_host_alone(stub_lab: Lab) -> None:
    """A UDP port that nobody listens on says so; a closed one says nothing."""

    def silent(port: int) -> bool:
        script = (
            "import socket; s=socket.socket(2, 2); s.settimeout(1);"
            f"s.connect(('10.77.0.12', {port})); s.send(b'x'); s.recv(1)"
        )
        return (
            "Connection refused"
            not in stub_lab.run(f'/run/lab/python -c "{script}"', "worker-2").stderr
        )

    assert not silent(8472)
    verbs.break_(stub_lab.state_dir, "tunnel-closed", "worker-1")
    assert [port for port in (4789, 6081, 8472, 8473) if silent(port)] == [4789, 6081, 8472]
    assert (
        "refused"
        in stub_lab.run("timeout 1 bash -c '</dev/tcp/10.77.0.12/10250'", "worker-2").stderr
    )


def test_host_down_refuses_ssh_and_answers_no_ping(stub_lab: Lab) -> None:
    connection = stub_lab.connect("worker-1")
    verbs.break_(stub_lab.state_dir, "host-down", "worker-1")
    until(lambda: not connection.transport.is_active())
    with pytest.raises(NoValidConnectionsError):
        stub_lab.connect("worker-1")
    assert not stub_lab.run("ping -c 1 -W 1 -q worker-1", "worker-2").ok
    verbs.heal(stub_lab.state_dir, "host-down")
    assert stub_lab.run("hostname", "worker-1").stdout == "worker-1\n"
    until(lambda: stub_lab.run("ping -c 1 -W 1 -q worker-1", "worker-2").ok)


def test_ssh_drop_cuts_long_commands_and_spares_short_ones(stub_lab: Lab) -> None:
    verbs.break_(stub_lab.state_dir, "ssh-drop", "worker-1")
    connection = stub_lab.connect("worker-1")
    assert connection.run("true", hide=True, in_stream=False).ok
    _, out, _ = connection.client.exec_command("sleep 1000")
    started = time.monotonic()
    assert out.channel.recv_exit_status() == -1
    assert time.monotonic() - started < 900
    assert not connection.transport.is_active()


def test_a_host_with_anothers_name_and_a_clock_that_is_ahead(stub_lab: Lab) -> None:
    """`date` goes ahead with every form that scripts use, and the real one comes back."""
    verbs.break_(stub_lab.state_dir, "duplicate-hostname", "worker-1")
    verbs.break_(stub_lab.state_dir, "clock-skew", "worker-1")
    ahead = "echo $(($(date +%s) - $(/usr/bin/date +%s)))"
    assert stub_lab.run("hostname", "worker-1").stdout == "worker-2\n"
    assert float(stub_lab.run(ahead, "worker-1").stdout) == pytest.approx(90, abs=5)
    assert stub_lab.run("date -u -d @0 +%Y", "worker-1").stdout == "1970\n"
    assert stub_lab.run("date +%N", "worker-1").stdout.strip().isdigit()
    assert abs(float(stub_lab.run(ahead, "worker-2").stdout)) <= 5
    verbs.heal(stub_lab.state_dir)
    assert stub_lab.run("hostname", "worker-1").stdout == "worker-1\n"
    assert abs(float(stub_lab.run(ahead, "worker-1").stdout)) <= 5


def test_hosts_are_machines_of_their_own(stub_lab: Lab) -> None:
    """Each has a UUID, a machine id and a MAC address of its own, and all are in one zone."""
    ask = "cat /sys/class/dmi/id/product_uuid /etc/machine-id /sys/class/net/eth0/address"
    told = [stub_lab.run(ask, host).stdout.split() for host in HOSTS]
    assert all(len(each) == 3 for each in told)
    assert all(len(set(column)) == len(HOSTS) for column in zip(*told, strict=True))
    zones = {stub_lab.run("cat /etc/timezone; readlink /etc/localtime", h).stdout for h in HOSTS}
    assert zones == {"Etc/UTC\n/usr/share/zoneinfo/Etc/UTC\n"}


def test_missing_br_netfilter_takes_its_sysctls_away(stub_lab: Lab) -> None:
    show = "cat /proc/sys/net/bridge/bridge-nf-call-iptables"
    before = stub_lab.run(show)
    if not before.ok:
        pytest.skip("this machine has no br_netfilter")
    verbs.break_(stub_lab.state_dir, "br-netfilter-missing", "worker-1")
    assert "No such file" in stub_lab.run(show).stderr
    assert stub_lab.run(show, "worker-2").stdout == before.stdout


def test_unknown_names_are_refused_with_what_there_is(stub_lab: Lab) -> None:
    with pytest.raises(LabError, match="no such fault: nonsense") as error:
        verbs.break_(stub_lab.state_dir, "nonsense")
    assert "host-down" in error.value.remedy
    with pytest.raises(LabError, match="no such host: worker-9") as error:
        verbs.break_(stub_lab.state_dir, "host-down", "worker-9")
    assert "worker-2" in error.value.remedy


ROUTES = """\
ip link add tun type vxlan external dstport 4999; ip link set tun up
ip neigh replace 10.244.2.0 lladdr 02:4c:0a:4d:00:0d dev tun nud permanent
ip route replace 10.244.2.0/24 encap ip id 2 dst 10.77.0.13 via 10.244.2.0 dev tun onlink
ip link add flan type vxlan id 1 dev eth0 dstport 4998 nolearning local 10.77.0.12
ip link set flan up
for n in 3 4; do
  ip neigh replace 10.244.$n.0 lladdr 02:00:00:00:00:0$n dev flan nud permanent
  ip route replace 10.244.$n.0/24 via 10.244.$n.0 dev flan onlink
done
bridge fdb replace 02:00:00:00:00:03 dev flan dst 10.77.0.13 self permanent
bridge fdb replace 02:00:00:00:00:04 dev flan dst 10.77.0.11 self permanent
ip route replace 192.168.5.0/26 via 10.77.0.13 dev eth0 proto bird
ip route replace 192.168.6.0/26 via 10.77.0.11 dev eth0 proto bird"""
CLEAR = "ip link del tun; ip link del flan; ip route flush proto bird"


def test_routes_to_one_node_vanish_and_stay_away_whatever_they_lead_through(stub_lab: Lab) -> None:
    """By its address, by a tunnel in the route, by what a VXLAN device knows of the next hop."""

    def there() -> set[str]:
        found = stub_lab.run("ip -4 route show | cut -d' ' -f1").stdout.split()
        return {route for route in found if route.startswith(("10.244", "192.168"))}

    try:
        assert stub_lab.run(ROUTES).ok
        routes = stub_lab.run("ip -4 route show").stdout
        others = {"10.244.4.0/24", "192.168.6.0/26"}
        gone = {"10.244.2.0/24", "10.244.3.0/24", "192.168.5.0/26"}
        assert there() == others | gone
        verbs.break_(stub_lab.state_dir, "route-missing", "worker-1")
        assert there() == others
        stub_lab.run("ip route replace 192.168.5.0/26 via 10.77.0.13 dev eth0 proto bird")
        until(lambda: there() == others)
        verbs.heal(stub_lab.state_dir)
        assert there() == others | gone
        assert stub_lab.run("ip -4 route show").stdout == routes
    finally:
        stub_lab.run(CLEAR)


def _round_trips(lab: Lab, count: int, host: str = "worker-2", options: str = "") -> list[float]:
    """Return the round trip times of pings to worker-1 that were answered, in milliseconds."""
    ping = f"ping -c {count} -i 0.01 {options} worker-1"
    return [float(time) for time in re.findall(r"time=([0-9.]+) ms", lab.run(ping, host).stdout)]


def test_a_slow_node_answers_everything_late_and_loses_nothing(stub_lab: Lab) -> None:
    twice = holding.HELD * 1000 * 2
    assert min(_round_trips(stub_lab, 10)) < twice / 2
    verbs.break_(stub_lab.state_dir, "slow-node", "worker-1")
    slow = _round_trips(stub_lab, 50)
    assert len(slow) == 50
    assert min(slow) >= twice
    assert sorted(slow)[len(slow) // 2] < twice * 2, "half of them wait little longer"
    burst = stub_lab.run("ping -c 150 -l 150 -i 0.002 -q worker-1", "worker-2").stdout
    assert "150 received, 0% packet loss" in burst
    assert min(_round_trips(stub_lab, 5, options="-s 4000")) >= twice, "fragments too"
    server = "socket.create_server(('', 9000)).accept()[0].makefile('rb').read(3000000)"
    stub_lab.run(f'/run/lab/python -c "import socket; {server}" >/dev/null 2>&1 &', "worker-1")
    stub_lab.run("sleep 1")
    assert stub_lab.run("head -c 3000000 /dev/zero > /dev/tcp/10.77.0.12/9000", "worker-2").ok
    verbs.heal(stub_lab.state_dir)
    healed = _round_trips(stub_lab, 20)
    assert len(healed) == 20
    assert min(healed) < twice / 2


def test_a_slow_node_can_be_taken_down_and_come_back(stub_lab: Lab) -> None:
    for fault in ("slow-node", "host-down"):
        verbs.break_(stub_lab.state_dir, fault, "worker-1")
    assert _round_trips(stub_lab, 1, options="-W 1") == []
    verbs.heal(stub_lab.state_dir, "host-down")
    until(lambda: bool(_round_trips(stub_lab, 1, options="-W 1")))
    assert min(_round_trips(stub_lab, 5)) >= holding.HELD * 2000
    verbs.heal(stub_lab.state_dir)
    until(lambda: min(_round_trips(stub_lab, 5), default=99.0) < holding.HELD * 1000)
