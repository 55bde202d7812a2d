"""``container commit`` beside Docker's: the same changes make the same image."""

import json
import signal
import textwrap
import time
from typing import Any

import pytest

from tests.cli import Cli
from tests.peer import Docker
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

CAPABILITY = "0100000200040000000000000000000000000000"
# Shows a tree as a process sees it; of a directory's moments only that which is set: images need not tell of all.
LIST = """
    import json, os, stat
    tree, ours = {}, {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv"}
    for top, names, files in os.walk("/"):
        if top == "/":
            names[:] = [n for n in names if n not in {"proc", "sys", "dev", "usr"}]
        for name in names + files:
            path = os.path.join(top, name)
            info = os.lstat(path)
            if path in ours:
                continue
            entry = [oct(info.st_mode), info.st_uid, info.st_gid, info.st_rdev]
            if stat.S_ISDIR(info.st_mode):
                entry.append(info.st_mtime == 1e9)
            else:
                entry += [int(info.st_mtime), info.st_nlink, info.st_size]
                entry += [os.getxattr(path, n, follow_symlinks=False).hex() for n in
                          os.listxattr(path, follow_symlinks=False) if n == "security.capability"]
            if stat.S_ISLNK(info.st_mode):
                entry.append(os.readlink(path))
            elif stat.S_ISREG(info.st_mode) and info.st_size < 100:
                entry.append(open(path, "rb").read().hex())
            tree[path] = entry
    print(json.dumps(tree))
"""
CHANGES = """
    import os, shutil, stat, sys
    os.umask(0o022)
    def write(path, text):
        with open(path, "w") as file:
            file.write(text)
    write("/srv/list.py", sys.argv[1])
    os.remove("/etc/issue"); shutil.rmtree("/etc/default")
    for path in "/etc/security", "/etc/skel":
        shutil.rmtree(path)
    write("/etc/security", "was a directory"); os.mkdir("/etc/skel"); write("/etc/skel/young", "y")
    os.remove("/etc/issue.net"); os.mkdir("/etc/issue.net"); write("/etc/issue.net/in", "z")
    with open("/etc/passwd", "a") as file:
        file.write("more:x:7:7::/:/bin/sh\\n")
    os.rename("/etc/group-" if os.path.exists("/etc/group-") else "/etc/motd", "/srv/moved")
    os.makedirs("/srv/" + "d" * 200 + "/" + "e" * 200)
    write("/srv/first", "hard"); os.link("/srv/first", "/srv/second"); os.chmod("/srv/first", 0o4751)
    os.symlink("../etc/passwd", "/srv/soft"); os.mkfifo("/srv/pipe"); os.mknod("/srv/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    shutil.copy("/usr/bin/env", "/srv/capable")
    os.setxattr("/srv/capable", "security.capability", bytes.fromhex(sys.argv[2])); os.setxattr("/srv/second", "user.note", b"kept")
    write("/srv/rich", ""); os.chown("/srv/rich", 4000000000, 3000000000); os.chmod("/var/lib", 0o750)
    write("/anonymous/mounted", "x")
    for path in ["/etc/skel/young", "/etc/issue.net/in", "/etc/passwd", "/etc/security", *("/srv/" + n for n in os.listdir("/srv")),
                 "/srv/" + "d" * 200 + "/" + "e" * 200, "/srv/" + "d" * 200, "/etc/skel", "/etc/issue.net", "/srv"]:
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    print("changed", flush=True)
"""
# And goes on: a is written before b.
COUNT = """
    import itertools, time
    write("/srv/noise", "")
    with open("/srv/noise", "wb") as file:
        file.write(os.urandom(32 << 20))
    for n in itertools.count(1):
        for path in "/srv/a", "/srv/b":
            write(path, str(n))
        time.sleep(0.01)
"""
INSTRUCTIONS = [
    'CMD ["python3", "-B", "/srv/list.py"]', "ENV ADDED=$PATH:/x", "EXPOSE 90 53/udp", "LABEL tier='front end'",
    "USER 0:0", "VOLUME /declared", "WORKDIR /srv", "HEALTHCHECK --retries=7 CMD true", "ONBUILD RUN x",
]  # fmt: skip


def python(*texts: str) -> list[str]:
    return ["python3", "-B", "-c", "".join(textwrap.dedent(text) for text in texts)]


def config(document: dict[str, Any]) -> dict[str, Any]:
    names = (
        "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "StopSignal", "User", "Volumes",
        "WorkingDir",
    )  # fmt: skip
    return {name: document.get(name) or None for name in names} | {"Env": sorted(document["Env"])}


def count(container: Cli) -> str:
    return container.ok("exec", "box", "cat", "/srv/b")


def test_an_image_of_a_container(container: Cli, registry: Registry, docker: Docker) -> None:
    image = registry.reference("python:3.11")
    docker("pull", "-q", image)
    listing = textwrap.dedent(LIST)
    flags = ["-v", "/anonymous", "-e", "ASKED=1"]
    changes = [word for text in INSTRUCTIONS for word in ("--change", text)]
    docker("run", "--name", "box", *flags, image, *python(CHANGES), listing, CAPABILITY)
    docker("commit", "-m", "why", "-a", "Ann", *changes, "box", "theirs:1")
    theirs = json.loads(docker("run", "--rm", "theirs:1").stdout)

    container.ok(
        "run", "-d", "--name", "box", *flags, image, *python(CHANGES, COUNT), listing, CAPABILITY
    )
    while "changed" not in container.ok("logs", "box") or container("exec", "box", "test", "-e", "/srv/b").returncode:  # fmt: skip
        time.sleep(0.2)

    # Whoever breaks it off leaves neither an image nor a container that stands still.
    ingest = container.root / "content/ingest"
    with container.popen("commit", "box", "half:1") as broken:
        while broken.poll() is None and not any(p.stat().st_size for p in ingest.glob("new-*")):
            time.sleep(0.01)
        broken.send_signal(signal.SIGKILL)
    before = count(container)
    while count(container) == before:
        time.sleep(0.1)
    assert "half" not in container.ok("image", "ls")

    done = container.ok("commit", "-m", "why", "-a", "Ann", *changes, "box", "ours:1").strip()
    before = count(container)
    while count(container) == before:
        time.sleep(0.1)
    shown = json.loads(container.ok("image", "inspect", "ours:1"))[0]
    assert shown["id"] == done
    document = shown["variants"][0]["config"]
    assert document["history"][-1]["comment"] == "why"
    assert document["author"] == "Ann"
    inspected = json.loads(docker("inspect", "theirs:1").stdout)[0]
    # The programs differ in that ours goes on; it is not what is run by the image.
    assert config(document["config"]) == config(inspected["Config"])

    ours = json.loads(container.ok("run", "--rm", "--name", "made", "ours:1"))
    a, b = (int(bytes.fromhex(ours.pop(f"/srv/{name}")[-1]) or b"0") for name in "ab")
    assert a - b in {0, 1} or 0 in {a, b}
    assert ours.pop("/srv/noise")[6] == 32 << 20
    assert ours["/srv/first"][5] == 2
    assert ours["/srv/capable"][7] == CAPABILITY
    for tree in (ours, theirs):
        tree["/srv"][4] = True
    wrong = {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    }
    assert not wrong

    # Of one that is stopped, on top of that, and without a name; what nothing needs any more can go.
    container.ok("rm", "-f", "box")
    container.ok("create", "--name", "next", "ours:1")
    unnamed = container.ok("commit", "next").strip()
    container.ok("rm", "next")
    container.ok("rmi", "ours:1")
    script = "import os; print(os.getxattr('/srv/second', 'user.note'))"
    printed = container.ok("run", "--rm", "--entrypoint", "python3", unnamed, "-c", script)
    assert printed == "b'kept'\n"
    assert container.ok("image", "prune", "-f").strip() == f"<none>@{unnamed}"
