"""What changes on the host is heard of in the container."""

import threading
import time
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

_PATIENCE_S = 120.0

# Says what inotify tells of the directories named, and what is in a file that has come or was closed.
LISTEN = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
NAMES = {2: "modify", 4: "attrib", 8: "close", 0x40: "from", 0x80: "to", 0x100: "create", 0x200: "delete"}
fd = libc.inotify_init1(0)
watched = {libc.inotify_add_watch(fd, d.encode(), sum(NAMES)): d for d in sys.argv[1:]}
cookies = {}
print("ready", flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        watch, mask, cookie, length = struct.unpack_from("iIII", data)
        path = watched[watch] + "/" + data[16 : 16 + length].rstrip(b"\\0").decode()
        data = data[16 + length :]
        words = [next(name for bit, name in NAMES.items() if mask & bit), path]
        if mask & 0xC0:
            words.append(str(cookies.setdefault(cookie, len(cookies))))
        if mask & 0x88 and os.path.isfile(path):
            words.append(open(path).read())
        print(*words, flush=True)
"""


def test_changes_on_the_host_are_events_in_the_container(
    container: Cli, registry: Registry, tmp_path: Path
) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "d").mkdir(parents=True)
    outside.write_text("outside")
    page = source / "d/page"
    page.write_text("first")
    python = registry.reference("python:3.11")
    listener = container.popen(
        "run", "--rm", "--name", "w", "-v", f"{source}:/s:watch", python, "python3", "-c", LISTEN, "/s", "/s/d",
    )  # fmt: skip
    # What never comes is then read as the end.
    patience = threading.Timer(_PATIENCE_S, listener.kill)
    patience.start()

    last = ""

    def hear() -> str:
        nonlocal last
        assert listener.stdout is not None
        line = listener.stdout.readline().decode().rstrip("\n")
        # One write may be told of twice (truncated, then written), unless both stand unread: inotify itself makes them one.
        if line == last and line.startswith("modify "):
            return hear()
        last = line
        return line

    def heard(*expected: str) -> None:
        assert [hear() for _ in expected] == list(expected)

    try:
        heard("ready")
        # Woken within half a second, at the best of three: the machine may be busy with other things.
        waits: list[float] = []
        for _ in range(3):
            start = time.monotonic()
            (source / "d/woken").mkdir()
            heard("create /s/d/woken")
            waits.append(time.monotonic() - start)
            (source / "d/woken").rmdir()
            heard("delete /s/d/woken")
        assert min(waits) < 0.5
        # As an editor saves.
        (source / "d/.page").write_text("second")
        (source / "d/.page").rename(page)
        heard(
            "create /s/d/.page", "modify /s/d/.page", "close /s/d/.page", "from /s/d/.page 0", "to /s/d/page 0 second",
        )  # fmt: skip
        page.write_text("third, in place")
        heard("modify /s/d/page", "close /s/d/page third, in place")
        page.chmod(0o600)
        heard("attrib /s/d/page")
        (source / "new").mkdir()
        heard("create /s/new")
        (source / "new").rename(source / "d/new")
        heard("from /s/new 1", "to /s/d/new 1")
        (source / "d/new").rmdir()
        heard("delete /s/d/new")
        outside.rename(source / "inside")
        heard("to /s/inside 2 outside")
        (source / "inside").rename(outside)
        heard("from /s/inside 3")
        # What the container does is heard once, and not again when the host has seen it.
        container.ok(
            "exec", "w", "sh", "-c", "echo guest > /s/g; mv /s/g /s/h; chmod 600 /s/h; rm /s/h"
        )
        heard(
            "create /s/g", "modify /s/g", "close /s/g guest", "", "from /s/g 4", "to /s/h 4 guest", "", "attrib /s/h", "delete /s/h",
        )  # fmt: skip
        (source / "last").touch()
        heard("create /s/last", "close /s/last ")
    finally:
        patience.cancel()
        listener.kill()
        listener.communicate()
