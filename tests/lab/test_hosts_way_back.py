"""A host whose address a plugin moved gets it back by itself, unless that is called off in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_help import Lab, running_lab, until

from kitlib.facts import links, routes
from kitlib.plugins import get
from kitlib.software import units, way_back

pytestmark = pytest.mark.lab

HOST = "alone-1"
MOVE = (
    "ip link add br-ex type bridge; ip link set br-ex up; "
    "a=$(ip -4 -o addr show eth0 | awk '{print $4}'); g=$(ip route | awk '/^default/ {print $3}'); "
    "ip addr del $a dev eth0; ip link set eth0 master br-ex; ip addr add $a dev br-ex; "
    "ip route add default via $g dev br-ex"
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab"), hosts=(HOST,), time_factor=0.02) as lab:
        yield lab


def do(lab: Lab, command: str) -> str:
    result = lab.run(command, HOST)
    assert result.ok, f"{command}: {result.stdout}{result.stderr}"
    return str(result.stdout)


def network(lab: Lab) -> str:
    return do(lab, "ip -4 -o addr show | awk '{print $2, $4}'; ip route | sort")


def arm(lab: Lab, seconds: float) -> None:
    own = way_back.own_network(
        next(host.address for host in lab.spec.hosts),
        links.parse(do(lab, links.COMMAND.render())),
        routes.parse(do(lab, routes.COMMAND.render())),
    )
    assert own is not None
    assert own.device == "eth0"
    plugin = get("ovn")
    for path, text in (
        (way_back.NETWORK, way_back.network_script(own)),
        (way_back.TIMER, way_back.timer_script(plugin, seconds)),
        (units.unit_path("way-back"), way_back.timer_unit(plugin)),
    ):
        do(lab, f"mkdir -p $(dirname {path}); cat > {path} <<'KIT'\n{text}KIT\n")
    do(lab, units.start_unit("way-back").render())


def left(lab: Lab) -> str:
    return do(lab, "ls /etc/kubekit /etc/systemd/system | grep way-back || true")


def test_an_address_that_was_moved_comes_back_when_nobody_calls_it_off(host: Lab) -> None:
    before = network(host)
    arm(host, 1.5)
    do(host, MOVE)
    assert "br-ex 10.77" in network(host)
    assert "default via 10.77.0.1 dev br-ex" in network(host)
    until(lambda: network(host) == before, 15)
    fired = do(host, f"cat {way_back.FIRED}; journalctl -u kubekit-way-back --no-pager")
    assert "nobody called it off" in fired
    assert "enabled" in do(host, f"systemctl is-enabled {way_back.UNIT}"), "also at the next start"
    # The next start of the host, with the plugin there again: it does not wait then.
    do(host, f"ip link del br-ex; {MOVE}; echo another > {way_back.BOOT}; rm {way_back.FIRED}")
    do(host, f"sed -i 's/sleep 1.5/sleep 1000/' {way_back.TIMER}")
    do(host, f"systemctl restart {way_back.UNIT}")
    until(lambda: network(host) == before, 15)
    do(host, f"{way_back.call_off().render()}; ip link del br-ex")
    assert left(host) == ""


def test_called_off_it_leaves_nothing_and_does_nothing(host: Lab) -> None:
    arm(host, 1.0)
    assert way_back.UNIT in left(host)
    do(host, way_back.call_off().render())
    do(host, MOVE)
    do(host, "sleep 1.5")
    assert "br-ex 10.77" in network(host), "nothing puts it back"
    assert left(host) == ""
    do(host, f"sh {way_back.NETWORK}; ip link del br-ex")
    assert "eth0 10.77" in network(host)
