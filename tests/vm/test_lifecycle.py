"""What is done with a container once it runs: exec, logs, stop, start, kill, wait."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

LINES = int(os.environ.get("WOODLOT_TEST_LINES", "100000"))


@pytest.fixture
def busybox(registry: Registry) -> str:
    return registry.reference("busybox:1.35")


def state(container: Cli, name: str) -> dict[str, object]:
    status: dict[str, object] = json.loads(container.ok("inspect", name))[0]["status"]
    return status


def test_exec(container: Cli, busybox: str) -> None:
    container.ok("run", "-d", "--name", "box", "-e", "X=1", "-w", "/tmp", busybox, "sleep", "1000")
    done = container(
        "exec", "-e", "Y=2", "-u", "www", "box", "sh", "-c", "id -un; pwd; echo $X$Y; echo e >&2; exit 7"
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("www\n/tmp\n12\n", "e\n", 7)
    assert container.ok("exec", "-i", "box", "cat", input="through") == "through"
    assert container("exec", "box", "nosuch").returncode == 127
    assert container("exec", "box", "/etc").returncode == 126
    container.ok("exec", "-d", "box", "sleep", "987")
    assert "sleep 987" in container.ok("exec", "box", "ps")
    with ThreadPoolExecutor(16) as pool:
        ran = pool.map(lambda i: container.ok("exec", "box", "echo", f"{i}"), range(16))
        assert [line.strip() for line in ran] == [f"{i}" for i in range(16)]
    with container.terminal("exec", "-it", "box", "sh", rows=30, columns=70) as terminal:
        terminal.expect("# ")
        terminal.send("stty size; echo $TERM\r")
        terminal.expect("30 70\r\nxterm")
        terminal.resize(31, 71)
        terminal.send("sleep 0.3; stty size\r")
        terminal.expect("31 71")
        terminal.send("exit 3\r")
        assert terminal.wait() == 3
    with container.popen("exec", "box", "sleep", "986") as process:
        _until(lambda: "sleep 986" in container.ok("exec", "box", "ps"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    with container.popen("exec", "box", "sleep", "985") as process:
        _until(lambda: "sleep 985" in container.ok("exec", "box", "ps"))
        process.kill()
    _until(lambda: "sleep 985" not in container.ok("exec", "box", "ps"))
    container.ok("stop", "-t", "0", "box")
    done = container("exec", "box", "true")
    assert done.returncode == 1
    assert "container box is not running" in done.stderr


def test_stop_and_start(container: Cli, busybox: str) -> None:
    script = (
        "echo begun; echo wrong >&2; trap 'echo ended; exit 5' TERM; while :; do sleep 0.1; done"
    )
    container.ok("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    container.ok("exec", "box", "touch", "/mark")
    _until(lambda: "begun" in container.ok("logs", "box"))
    assert container.ok("stop", "box") == "box\n"
    assert container.ok("stop", "box") == "box\n"
    assert (state(container, "box")["state"], state(container, "box")["exitCode"]) == ("stopped", 5)
    assert container.ok("wait", "box") == "5\n"
    done = container("logs", "box")
    assert (done.stdout, done.stderr) == ("begun\nended\n", "wrong\n")
    container.ok("start", "box")
    container.ok("start", "box")
    container.ok("exec", "box", "ls", "/mark")
    with container.popen("logs", "--follow", "--tail", "0", "box") as follower:
        with container.popen("wait", "box") as waiter:
            _until(lambda: container.ok("logs", "box").count("begun") == 2)
            container.ok("restart", "--signal", "KILL", "box")
            assert waiter.communicate(timeout=60)[0] == b"137\n"
        follower.communicate(timeout=60)
        assert follower.returncode == 0
    container.ok("kill", "--signal", "TERM", "box")
    assert container.ok("wait", "box") == "5\n"
    done = container("kill", "box")
    assert done.returncode == 1
    assert "container box is not running" in done.stderr


def test_create_rename_and_prune(container: Cli, busybox: str) -> None:
    made = container.ok(
        "create", "--name", "later", busybox, "sh", "-c", "echo ran; exit 4"
    ).strip()
    assert state(container, "later") == {"state": "created", "networks": []}
    assert made not in container.ok("list", "--quiet")
    container.ok("rename", "later", "sooner")
    assert container("start", "--attach", "sooner").returncode == 4
    assert container.ok("logs", made) == "ran\n"
    container.ok("create", "--name", "never", busybox)
    container.ok("run", "-d", "--name", "stays", busybox, "sleep", "1000")
    never = json.loads(container.ok("inspect", "never"))[0]["id"]
    assert container.ok("prune").split() == [made, never]
    assert [one["name"] for one in json.loads(container.ok("list", "-a", "--format", "json"))] == [
        "stays"
    ]
    listed = container.ok("ps", "-s", "-f", "status=running", "--format", "{{.Names}} {{.Status}}")
    assert re.fullmatch(r"stays Up .*\n", listed)
    address = container.ok("exec", "stays", "hostname", "-i")
    assert container.ok("inspect", "stays", "-f", "{{.NetworkSettings.IPAddress}}") == address
    image = container.ok("image", "inspect", busybox, "-f", "{{slice .Id 7 19}}").strip()
    container.ok("create", "--name", "by-id", image)
    names = container.ok("ps", "-a", "-f", f"ancestor={image}", "--format", "{{.Names}}")
    assert names.split() == ["stays", "by-id"]
    used = json.loads(container.ok("system", "df", "--format", "json"))
    assert (used["containers"]["total"], used["containers"]["active"]) == (2, 1)
    assert used["containers"]["reclaimable"] < used["containers"]["sizeInBytes"]


def test_a_follower_sees_every_line(container: Cli, busybox: str) -> None:
    """The log is rotated many times meanwhile: 100,000 lines are 8 MB of it. ``WOODLOT_TEST_LINES`` asks for more."""
    script = f"echo ready; until [ -e /go ]; do sleep 0.1; done; seq {LINES}"
    small = {"WOODLOT_LOG_MAX_SIZE": "1m"}
    container.ok("run", "-d", "--name", "box", busybox, "sh", "-c", script, env=small)
    with container.popen("logs", "--follow", "box") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"ready\n"
        container.ok("exec", "box", "touch", "/go")
        printed = follower.stdout.read().split()
    assert printed == [b"%d" % i for i in range(1, LINES + 1)]


def _until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_restart_policy_starts_it_again(container: Cli, busybox: str) -> None:
    # Its files outlive each start; a file says how many there were.
    container.ok(
        "run", "-d", "--name", "r", "--restart", "on-failure:2", busybox, "sh", "-c",
        "echo x >> /starts; wc -l < /starts; exit 3",
    )  # fmt: skip
    assert container.ok("logs", "-f", "r") == "1\n2\n3\n"
    _until(lambda: state(container, "r")["state"] == "stopped")
    assert state(container, "r")["exitCode"] == 3
    assert state(container, "r")["restartCount"] == 2
    # A machine that dies is a failure, too; what its user stops stays so.
    container.ok(
        "run", "-d", "--name", "s", "--restart", "unless-stopped", busybox, "sleep", "1000"
    )
    pid = state(container, "s")["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    _until(
        lambda: state(container, "s")["state"] == "running" and state(container, "s")["pid"] != pid
    )
    assert container.ok("exec", "s", "echo", "back") == "back\n"
    assert state(container, "s")["restartCount"] == 1
    container.ok("stop", "-t", "0", "s")
    assert state(container, "s")["state"] == "stopped"
    assert container("run", "--rm", "--restart", "always", busybox, "true").returncode == 125
    assert container("run", "--restart", "sometimes", busybox, "true").returncode == 125


def test_health_events_and_what_is_resumed(container: Cli, busybox: str) -> None:
    began = f"{time.time():.3f}"
    container.ok(
        "run", "-d", "--name", "h", "--restart", "unless-stopped", "--label", "tier=front",
        "--health-cmd", "echo asked; test -e /well", "--health-interval", "300ms", "--health-retries", "1",
        busybox, "sleep", "1000",
    )  # fmt: skip
    # Both before the next container starts, and one that its user stopped.
    container.ok(
        "run", "-d", "--name", "u", "--restart", "unless-stopped", busybox, "sleep", "1000"
    )
    container.ok("stop", "-t", "0", "u")

    def health() -> dict[str, object]:
        told = state(container, "h")["health"]
        assert isinstance(told, dict)
        return told

    _until(lambda: health()["status"] == "unhealthy")
    assert "running (unhealthy)" in container.ok("list")
    container.ok("exec", "h", "touch", "/well")
    _until(lambda: health()["status"] == "healthy")
    log = health()["log"]
    assert isinstance(log, list)
    assert (log[0]["exitCode"], log[0]["output"]) in {(1, "asked\n"), (0, "asked\n")}
    # The host goes down and comes up.
    assert container.ok("system", "stop") == "h\n"
    assert container.ok("system", "resume") == "h\n"
    assert container.ok("exec", "h", "ls", "/well") == "/well\n"
    container.ok("rm", "-f", "h", "u")
    told = [
        json.loads(line)
        for line in container.ok(
            "events",
            "--since",
            began,
            "--until",
            "0s",
            "--filter",
            "label=tier",
            "--format",
            "json",
        ).splitlines()
    ]
    actions = [event["Action"] for event in told if not event["Action"].startswith("exec_")]
    life = ["start", "health_status: unhealthy", "health_status: healthy", "die", "stop"]
    assert actions[: len(life) + 1] == ["create", *life]
    assert (actions[6], actions[-3:]) == ("start", ["die", "stop", "destroy"])
    assert {event["Actor"]["Attributes"]["name"] for event in told} == {"h"}
