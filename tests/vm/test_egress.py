"""What leaves a network and what does not, in a world of the tests' own."""

import json
import subprocess
from collections.abc import Mapping, Sequence

import pytest

from tests.cli import PROGRAM, Cli
from tests.registry.server import Registry
from tests.vm.world import RESOLVER, world

pytestmark = pytest.mark.vm

# What a connection gives, or that there is none, and whether that took long; what a ping gives.
TRY = """
    try() {
        before=$(date +%s)
        echo "$1 $2: $(nc -w 10 $1 $2 < /dev/null 2> /dev/null || echo refused)"
        test $(($(date +%s) - before)) -lt 5 || echo "$1 $2 took long"
    }
    ask() { ping -c 1 -W 5 "$@" > /dev/null && echo "$1 answers"; }
    deny() { ping -c 1 -W 1 $1 | grep -q " 0 packets received" && echo "$1 does not answer"; }
"""


def run(
    container: Cli, inside: Sequence[str], *argv: str, env: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        [*inside, PROGRAM, *argv],
        env=container.environment(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_leaves_a_network(container: Cli, registry: Registry) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("pull", image)
    container.ok("network", "create", "outer", "--subnet-v6", "fd00:77::/64")
    free = f"""{TRY}
        try 198.51.100.7 7000; try 198.51.100.7 7001; try 127.0.0.1 7001
        try 2001:db8:7::7 7000; try 2001:db8:8::7 7000
        nslookup -type=aaaa box | grep -o "Address: fd.*"
        ping6 -c 1 -W 5 box > /dev/null && ping6 -c 1 -W 5 fd00:77::1 > /dev/null && echo pinged
        ask 198.51.100.7; ask 198.51.100.8 -s 1472; ask 2001:db8:7::7; ask host.container.internal; deny 2001:db8:8::7
        nslookup -type=aaaa host.container.internal | grep -o "Address: fd.*"
        try host.container.internal 7001; try fd00:77::fe 7001; try fd00:77::fe 7000
        ip -6 addr show eth0 | grep -o "inet6 fd.*/64"
        grep -c fd00:77::2 /etc/hosts
    """
    # Before it is asked for by its name, an address is not allowed.
    guarded = f"""{TRY}
        try 198.51.100.8 7000
        try world.example 7000; try a.sub.example 7000; try 198.51.100.8 7000
        try card.example 7001; try own.example 7001; try sub.example 7000; try secret.evil.test 53
        try 198.51.100.7 7000; try 198.51.100.7 7001
        nslookup -type=txt secret.world.example | grep -o NXDOMAIN
        nslookup -type=a world.example {RESOLVER} > /dev/null || echo "no other resolver"
        try 2001:db8:7::7 7000
        ask 198.51.100.8; deny 198.51.100.7; deny 2001:db8:7::7
        wget -q -O - http://web/; wget -q -O - http://[fd00:77::2]/
    """
    asked: list[str] = []
    with world(asked) as inside:
        run(
            container, inside, "run", "-d", "--name", "web", "--network", "outer", image,
            "sh", "-c", "echo neighbour > /index.html && exec httpd -f -h /",
            env={"WOODLOT_NETWORK_HOST_PORTS": "7001"},
        )  # fmt: skip
        run(
            container, inside, "run", "-d", "--name", "box", "--network", "outer", "--dns", RESOLVER,
            "--egress", "allow=world.example:7000,*.sub.example,card.example,own.example",
            image, "sleep", "600",
        )  # fmt: skip
        unguarded = container.ok("exec", "web", "sh", "-c", free)
        done = container.ok("exec", "box", "sh", "-c", guarded)
        [found] = json.loads(container.ok("network", "inspect", "outer"))
        container.ok("rm", "-f", "web", "box")
    log = (container.root / "networks" / found["id"] / "switch.log").read_text()
    container.ok("network", "delete", "outer")
    # The world is reached, the machine's own services are not.
    assert unguarded.splitlines() == [
        "198.51.100.7 7000: world",
        "198.51.100.7 7001: refused",
        "127.0.0.1 7001: refused",
        "2001:db8:7::7 7000: world by IPv6",
        "2001:db8:8::7 7000: refused",
        "Address: fd00:77::3",
        "pinged",
        "198.51.100.7 answers",
        "198.51.100.8 answers",
        "2001:db8:7::7 answers",
        "host.container.internal answers",
        "2001:db8:8::7 does not answer",
        "Address: fd00:77::fe",
        "host.container.internal 7001: own",
        "fd00:77::fe 7001: own",
        "fd00:77::fe 7000: refused",
        "inet6 fd00:77::2/64",
        "1",
    ]
    # And with a policy, what it allows and nothing else.
    assert done.splitlines() == [
        "198.51.100.8 7000: refused",
        "world.example 7000: world",
        "a.sub.example 7000: elsewhere",
        "198.51.100.8 7000: elsewhere",
        "card.example 7001: refused",
        "own.example 7001: refused",
        "sub.example 7000: refused",
        "secret.evil.test 53: refused",
        "198.51.100.7 7000: world",
        "198.51.100.7 7001: refused",
        "NXDOMAIN",
        "no other resolver",
        "2001:db8:7::7 7000: refused",
        "198.51.100.8 answers",
        "198.51.100.7 does not answer",
        "2001:db8:7::7 does not answer",
        "neighbour",
        "neighbour",
    ]
    # Nobody beyond the network learns of a name that is not allowed.
    assert set(asked) == {"world.example", "a.sub.example", "card.example", "own.example"}
    refused = {one["names"][0]: one["egressRefused"] for one in found["containers"]}
    # A port of the host's; what nobody has a way to is not counted.
    assert refused["web"] == 1
    assert refused["box"] >= 7
    assert 'may not have the name "secret.evil.test"' in log
