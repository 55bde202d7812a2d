"""Programs that people run in containers: a web server under load, a database that loses its machine, random I/O."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.programs import require_programs
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

# Of the web server, and of a file; fewer than one would ask for, for an emulated processor has to do it.
REQUESTS = int(os.environ.get("WOODLOT_TEST_REQUESTS", "1000"))
OPERATIONS = int(os.environ.get("WOODLOT_TEST_OPERATIONS", "1000"))
RANDOM_IO = (Path(__file__).parent / "random_io.py").read_text()


def pull(container: Cli, registry: Registry, name: str) -> str:
    image = registry.reference(name)
    container.ok("pull", image)
    return image


def test_a_web_server_answers_many_at_once(container: Cli, registry: Registry) -> None:
    require_programs("ab")
    image, busybox = (
        pull(container, registry, "nginx:1.22"),
        pull(container, registry, "busybox:1.35"),
    )
    container.ok("network", "create", "web")
    try:
        container.ok(
            "run", "-d", "--name", "server", "--network", "web,alias=www",
            "-p", "127.0.0.1::80", image,
        )  # fmt: skip
        port = container.ok("port", "server", "80").rsplit(":", 1)[1].strip()
        await_answer(f"http://127.0.0.1:{port}/")
        said = subprocess.run(
            ["ab", "-q", "-n", str(REQUESTS), "-c", "32", "-r", f"http://127.0.0.1:{port}/"],
            capture_output=True,
            text=True,
            timeout=280,
            check=True,
        ).stdout
        counts = dict(re.findall(r"^(Complete|Failed|Non-2xx) re\w+: +(\d+)", said, re.MULTILINE))
        assert counts == {"Complete": str(REQUESTS), "Failed": "0"}, said
        for name in ("server", "www"):
            page = container.ok(
                "run",
                "--rm",
                "--network",
                "web",
                busybox,
                "wget",
                "-q",
                "-O",
                "-",
                f"http://{name}/",
            )
            assert "Welcome to nginx" in page
    finally:
        container("rm", "-f", "server")
        container("network", "rm", "web")


def await_answer(url: str) -> None:
    """A server listens some time after its process runs."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


@pytest.mark.parametrize("kind", ["directory", "block"])
def test_a_database_outlives_its_machine(container: Cli, registry: Registry, kind: str) -> None:
    image = pull(container, registry, "postgres:15")
    options = ("--opt", "type=block,size=1g") if kind == "block" else ()
    container.ok("volume", "create", *options, f"pg-{kind}")
    volume = ("-v", f"pg-{kind}:/var/lib/postgresql")
    try:
        container.ok("run", "-d", "--name", "first", *volume, image)
        query(container, "first", "create table t (n int primary key)")
        writer = container.popen(
            "exec", "first", "sh", "-c",
            "i=0; while psql -qc \"insert into t values ($i)\"; do echo $i; i=$((i+1)); done",
        )  # fmt: skip
        assert writer.stdout is not None
        committed = -1
        while committed < 5:
            committed = int(writer.stdout.readline())
        machine = json.loads(container.ok("inspect", "first"))[0]["status"]["pid"]
        os.kill(machine, signal.SIGKILL)
        # What the machine's end let through was committed, too.
        committed = max([committed, *(int(line) for line in writer.communicate()[0].split())])
        container.ok("rm", "-f", "first")
        container.ok("run", "-d", "--name", "second", *volume, image)
        rows = query(container, "second", "select count(*), min(n), max(n) from t")
        count, low, high = (int(word) for word in rows.split("|"))
        assert (low, count) == (0, high + 1), rows
        # One more may have reached the disk before it was told.
        assert committed <= high <= committed + 1
        container.ok("stop", "-t", "60", "second")
        assert "database system is shut down" in container("logs", "second").stderr
    finally:
        container("rm", "-f", "first", "second")
        container("volume", "rm", f"pg-{kind}")


def query(container: Cli, name: str, text: str) -> str:
    """The answer of the database, once it takes connections."""
    deadline = time.monotonic() + 120
    while True:
        done = container("exec", name, "psql", "-qtAc", text)
        if done.returncode == 0:
            return done.stdout.strip()
        assert time.monotonic() < deadline, done.stderr
        assert "is not running" not in done.stderr, container("logs", name).stderr
        time.sleep(0.5)


@pytest.mark.parametrize("kind", ["bind", "watched", "directory", "block", "root"])
def test_random_io_is_what_was_written(
    container: Cli, registry: Registry, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    image = pull(container, registry, "python:3.11")
    source = tmp_path_factory.mktemp("work")
    flags = {
        "bind": ("-v", f"{source}:/srv"),
        "watched": ("-v", f"{source}:/srv:watch"),
        "directory": ("--mount", "type=volume,source=io,target=/srv"),
        "block": ("-v", "/srv"),
        "root": ("-w", "/srv"),
    }[kind]
    said = container.ok(
        "run", "--rm", *flags, image, "python3", "-c", RANDOM_IO, "/srv/file", "7", str(OPERATIONS),
        timeout_s=280,
    )  # fmt: skip
    container("volume", "rm", "io")
    counts = {kind: int(count) for kind, count in (word.split("=") for word in said.split())}
    assert sum(counts.values()) == OPERATIONS
    assert set(counts) == {"append", "map", "read", "reopen", "sync", "truncate", "write", "zero"}
