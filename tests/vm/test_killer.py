"""Whatever process is killed at whatever moment: what was confirmed is kept, states are true, and the next command works.

``WOODLOT_TEST_KILLS=200`` kills that many; the default is a sample. ``WOODLOT_TEST_SEED`` repeats a choice of victims.
"""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.leaks import find_processes
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

KILLS = int(os.environ.get("WOODLOT_TEST_KILLS", "6"))
SEED = int(os.environ.get("WOODLOT_TEST_SEED", "0")) or random.randrange(1 << 32)
WORKERS = 3
# For one command, with all that is killed under it: nothing may hang.
PATIENCE_S = 180.0
MAX_PAUSE_S = 3.0


class Work:
    """What people do with containers, each in a thread of their own, and what they were told was done."""

    def __init__(self, container: Cli, image: str) -> None:
        self.container = container
        self.image = image
        self.over = threading.Event()
        self.problems: list[str] = []
        self.written: set[str] = set()
        """Names of files in the volume whose writer has said that they are on the disk."""
        self.created: set[str] = set()
        """Containers that a command has confirmed and nobody has asked to remove."""
        self.committed: set[str] = set()
        """Images of containers that a command has confirmed."""
        self.commands = 0
        self._guard = threading.Lock()

    def run(self, number: int) -> None:
        """One person's work until it is over."""
        choose = random.Random(SEED + number)
        steps = (self._write, self._write, self._live, self._live, self._create, self._look)
        turn = 0
        while not self.over.is_set():
            turn += 1
            try:
                choose.choice(steps)(f"w{number}-{turn}")
            except AssertionError as error:
                # It hung.
                self.problems.append(str(error))
                return

    def _do(self, *args: str) -> tuple[int, str]:
        done = self.container(*args, timeout_s=PATIENCE_S)
        with self._guard:
            self.commands += 1
        if "Traceback" in done.stderr:
            self.problems.append(f"{args}: {done.stderr}")
        return done.returncode, done.stdout

    def _write(self, name: str) -> None:
        script = f"echo {name} > /d/{name} && sync && echo written"
        code, said = self._do("run", "--rm", "-v", "kept:/d", self.image, "sh", "-c", script)
        if code == 0 and said == "written\n":
            self.written.add(name)

    def _live(self, name: str) -> None:
        code, _ = self._do("run", "-d", "--name", name, self.image, "sleep", "1000")
        if code == 0:
            self.created.add(name)
        self._do("exec", name, "touch", "/made")
        code, _ = self._do("commit", name, f"{name}:1")
        if code == 0:
            self.committed.add(f"{name}:1")
        self._do("stop", "-t", "1", name)
        self._do("start", name)
        self._do("logs", name)
        self.created.discard(name)
        self._do("rm", "-f", name)

    def _create(self, name: str) -> None:
        code, _ = self._do("create", "--name", name, self.image, "true")
        if code == 0:
            self.created.add(name)

    def _look(self, name: str) -> None:
        del name
        self._do("list", "--all")
        self._do("volume", "list")
        self._do("network", "list")


def test_any_process_may_be_killed(container: Cli, registry: Registry) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("run", "--rm", "-v", "kept:/d", image, "true")
    work = Work(container, image)
    workers = [threading.Thread(target=work.run, args=(number,)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        victims = kill_at_random(container)
    finally:
        work.over.set()
        for worker in workers:
            worker.join()
    context = f"seed {SEED}, {work.commands} commands, killed {victims}"
    assert not work.problems, f"{context}\n" + "\n".join(work.problems)

    # What was confirmed is there, and every state is true.
    listed = json.loads(container.ok("list", "--all", "--format", "json"))
    names = {one["name"] for one in listed}
    assert work.created <= names, context
    for one in listed:
        running = one["status"]["state"] == "running"
        assert running == (container("exec", one["name"], "true").returncode == 0), (one, context)
    kept = container.ok(
        "run", "--rm", "-v", "kept:/d", image, "sh", "-c", "cd /d; grep . * /dev/null || true"
    )
    contents = dict(line.split(":", 1) for line in kept.splitlines())
    assert {name: contents.get(name) for name in work.written} == {
        name: name for name in work.written
    }, context

    # An image that is listed is whole, whether its maker has lived to say so or not.
    made = {name for name in container.ok("images", "-q").splitlines() if name.startswith("w")}
    assert work.committed <= made, context
    for name in made:
        container.ok("create", "--name", f"of-{name.removesuffix(':1')}", name)
    if made:
        assert container.ok("run", "--rm", max(made), "ls", "-d", "/bin") == "/bin\n", context

    # Everything can be removed, and then nothing is left.
    if names or made:
        container.ok("rm", "--all", "-f")
    if made:
        container.ok("image", "rm", *made)
        assert not list((container.root / "content/ingest").glob("new-*")), context
    container.ok("volume", "rm", "kept")
    container.ok("run", "--rm", image, "true")
    assert container.ok("list", "--all", "--quiet") == ""
    deadline = time.monotonic() + 15
    while left := find_processes(container.root, container.runtime):
        assert time.monotonic() < deadline, (left, context)
        time.sleep(0.1)
    assert [path.name for path in (container.root / "containers").iterdir()] == [], context


def kill_at_random(container: Cli) -> dict[str, int]:
    """End processes of this installation one by one, whichever; how many there were of each kind."""
    choose = random.Random(SEED)
    victims: dict[str, int] = {}
    killed = 0
    deadline = time.monotonic() + KILLS * 20.0
    while killed < KILLS and time.monotonic() < deadline:
        time.sleep(choose.uniform(0.05, MAX_PAUSE_S))
        found = find_processes(container.root, container.runtime)
        if not found:
            continue
        pid = choose.choice(sorted(found))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed += 1
        kind = Path(found[pid].split(" ")[0]).name
        victims[kind] = victims.get(kind, 0) + 1
    assert killed == KILLS, f"only {killed} could be killed: {victims}"
    return victims
