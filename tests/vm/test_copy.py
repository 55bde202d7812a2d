"""``container cp``, ``export`` and ``diff`` beside Docker's, on containers that run and on one that is stopped."""

import io
import os
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import pytest

from tests.cli import PROGRAM, Cli
from tests.peer import Docker
from tests.registry.server import Registry
from woodlot.store.locks import try_hold

pytestmark = pytest.mark.vm

# What a target holds before each copy; there is one for each.
TARGET = "mkdir -p {0}/dir/d && echo old > {0}/dir/d/old && echo old > {0}/file && cd {0} && ln -s dir to_dir && ln -s file to_file && ln -s new to_new"
SOURCE = "mkdir -p {0}/d/sub && cd {0} && echo f > f && echo x > d/sub/x && chmod 4750 d/sub && chmod 640 f && ln -s d to_d && ln -s f to_f && ln -s none dangling"
CASES = [
    ("f", "new"), ("f", "new/"), ("f", "file"), ("f", "file/"), ("f", "dir"), ("f", "dir/"), ("f", "to_dir"),
    ("f", "to_file"), ("f", "to_new"), ("f", "no/where"), ("f/", "new"),
    ("d", "new"), ("d", "new/"), ("d", "dir"), ("d", "file"), ("d/.", "dir"), ("d/.", "new"), ("d/", "dir"),
    ("to_f", "new"), ("to_d", "new"), ("to_d/", "dir"), ("-L to_d", "dir"), ("-L to_f", "new"), ("dangling", "dir"),
    ("none", "new"),
]  # fmt: skip


def tree(tar: bytes) -> dict[str, tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {
            m.name: (m.type, m.mode & 0o7777, m.size, m.linkname, m.uid, m.gid)
            for m in archive.getmembers()
        }


def local_tree(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in top.rglob("*"):
        info = path.lstat()
        # Set-user-id bits are not copied to the host.
        mode = stat.S_IMODE(info.st_mode) & 0o777
        link = str(path.readlink()) if path.is_symlink() else ""
        text = path.read_text() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(top))] = (stat.S_IFMT(info.st_mode), mode, link, text)
    return found


def shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


def copy_all(copy: "list[str]", here: str, there: str, env: dict[str, str] | None) -> list[bool]:
    """Run every case, from and to the places given as formats of its number; which of them succeeded."""
    succeeded: list[bool] = []
    for number, (source, target) in enumerate(CASES):
        *flags, name = source.split()
        argv = [*copy, *flags, f"{here}/{name}", f"{there}/{number}/{target}"]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False
        )
        succeeded.append(done.returncode == 0)
    return succeeded


def wait_until_held(container: Cli) -> None:
    """Until somebody has the lock of the only container."""
    (directory,) = (container.root / "containers").iterdir()
    while True:
        with try_hold(directory / "lock") as nobody_had_it:
            if not nobody_had_it:
                return
        time.sleep(0.1)


def test_copies_end_up_where_dockers_do(
    container: Cli, registry: Registry, docker: Docker, tmp_path: Path
) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("pull", image)
    docker("pull", "-q", image)
    source, targets = tmp_path / "s", tmp_path / "t"
    shell(SOURCE.format(source))
    for number in range(len(CASES)):
        shell(TARGET.format(targets / str(number)))
    for place in ("ours", "theirs"):
        shell(f"cp -a {targets} {tmp_path / place}")

    container.ok("run", "-d", "--name", "box", image, "sleep", "1000")
    docker("create", "--name", "box", image)
    ours, theirs = [str(PROGRAM), "cp", "-q"], ["docker", "-H", docker.host, "cp"]
    env = container.environment()
    for engine in (ours, theirs):
        for name in ("s", "t"):
            subprocess.run([*engine, tmp_path / name, "box:/"], check=True, env=env)

    def compare(got: dict[str, tuple[object, ...]], want: dict[str, tuple[object, ...]]) -> None:
        wrong = {name for name in got.keys() | want.keys() if got.get(name) != want.get(name)}
        cases = {
            name: CASES[int(name.split("/")[0])] for name in wrong if name.split("/")[0].isdigit()
        }
        assert not wrong, [(n, cases.get(n), got.get(n), want.get(n)) for n in sorted(wrong)]

    there = "box:/t"
    assert copy_all(ours, str(source), there, env) == copy_all(theirs, str(source), there, env)
    trees = [
        tree(
            subprocess.run(
                [*engine, "box:/t/.", "-"], capture_output=True, check=True, env=env
            ).stdout
        )
        for engine in (ours, theirs)
    ]
    compare(*({name.removeprefix("./"): value for name, value in one.items()} for one in trees))

    assert copy_all(ours, "box:/s", str(tmp_path / "ours"), env) == copy_all(
        theirs, "box:/s", str(tmp_path / "theirs"), env
    )
    compare(local_tree(tmp_path / "ours"), local_tree(tmp_path / "theirs"))


def test_files_of_a_container(container: Cli, registry: Registry, tmp_path: Path) -> None:
    image = registry.reference("busybox:1.35")
    (tmp_path / "shared").mkdir()
    script = """
        mkdir -p /srv /etc/new && echo kept > /srv/kept && ln -s / /srv/up && mknod /srv/null c 1 3 && mkfifo /srv/pipe
        rm /etc/passwd; mkdir -p /etc/group.d; echo 1 >> /etc/group; touch /ready
        trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i > /srv/a; echo $i > /srv/b; sleep 0.01; done"""
    shared = f"{tmp_path}/shared:/shared"
    container.ok(
        "run",
        "-d",
        "--name",
        "box",
        "-v",
        "/anon",
        "--tmpfs",
        "/mem",
        "-v",
        shared,
        image,
        "sh",
        "-c",
        script,
    )
    while container("exec", "box", "test", "-e", "/ready").returncode:
        time.sleep(0.2)

    # Mounted things are seen as the container sees them; both ways, as a stream, with owners.
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 << 20))
    os.chown(big, 70, 71)
    for where in ("/anon", "/mem", "/shared", "/srv/new"):
        container.ok("cp", "-a", big, f"box:{where}")
    assert (tmp_path / "shared/big").read_bytes() == big.read_bytes()
    listed = container.ok(
        "exec", "box", "sh", "-c", "stat -c '%u %g' /anon/big /mem/big; cat /shared/big | wc -c"
    )
    assert listed == f"70 71\n70 71\n{3 << 20}\n"
    container.ok("cp", "box:/mem/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    assert (tmp_path / "back").stat().st_uid == os.geteuid()

    # What is hostile in a container does nothing on the host.
    done = container("cp", "box:/srv", tmp_path / "srv")
    assert done.returncode == 0, done.stderr
    assert "null" in done.stderr
    assert "pipe" in done.stderr
    assert {p.name for p in (tmp_path / "srv").iterdir()} == {"a", "b", "kept", "new", "up"}
    refused = container("cp", f"box:/srv/up/{tmp_path}/big", tmp_path / "x")
    assert refused.returncode == 1
    assert "no such file or directory" in refused.stderr
    assert container("cp", "box:/proc/version", tmp_path).returncode == 1
    # Copied over, a mounted file is written to, and stays mounted.
    (tmp_path / "hosts").write_text("127.0.0.1 new\n")
    container.ok("cp", tmp_path / "hosts", "box:/etc/hosts")
    assert (
        container.ok("exec", "box", "sh", "-c", "cat /etc/hosts; grep -c /etc/hosts /proc/mounts")
        == "127.0.0.1 new\n1\n"
    )

    # Of one moment, and with nothing mounted in it; whoever breaks it off leaves no container frozen.
    container.ok("export", "-o", tmp_path / "e.tar", "box")
    with tarfile.open(tmp_path / "e.tar") as archive:
        names = {m.name for m in archive.getmembers()}
        a, b = (int((archive.extractfile(f"./srv/{n}") or io.BytesIO()).read() or 0) for n in "ab")
    assert a - b in {0, 1} or 0 in (a, b)
    assert {"./srv/kept", "./bin/busybox", "./anon", "./proc"} <= names
    assert not {n for n in names if n.startswith(("./anon/", "./mem/", "./proc/", "./shared/"))}
    with container.popen("export", "box") as broken:
        assert broken.stdout is not None
        broken.stdout.read(1000)
        broken.kill()
    before = container.ok("exec", "box", "cat", "/srv/a")
    while container.ok("exec", "box", "cat", "/srv/a") == before:
        time.sleep(0.1)

    lines = set(container.ok("diff", "box").splitlines())
    assert {
        "C /etc",
        "D /etc/passwd",
        "C /etc/group",
        "A /etc/group.d",
        "A /srv/kept",
        "A /ready",
    } <= lines
    assert not {
        line
        for line in lines
        if line.split()[1].startswith(("/proc", "/dev", "/etc/hosts", "/etc/mtab"))
    }

    program = textwrap.dedent("""
        import sys, pathlib, woodlot, woodlot.aio
        from woodlot.errors import LimitError
        with woodlot.Client() as client:
            box = client.containers.get("box")
            box.put(b"from the SDK", "/srv/sdk")
            box.get_to("/srv/sdk", pathlib.Path(sys.argv[1]))
            assert woodlot.aio.Change(woodlot.aio.ChangeKind.ADDED, "/srv/sdk") in box.diff()
            try:
                box.get("/srv/sdk", max_bytes=5)
            except LimitError:
                print(box.get("/srv/sdk").decode())
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "sdk"],
        env=container.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("from the SDK\n", 0), done.stderr
    assert (tmp_path / "sdk").read_text() == "from the SDK"

    # Also while an export is under way, the container is stopped in order.
    with container.popen("export", "box") as exporting:
        assert exporting.stdout is not None
        exporting.stdout.read(1000)
        container.ok("stop", "-t", "30", "box")
        exporting.communicate()
    assert '"exitCode": 7' in container.ok("inspect", "box")

    # One that is stopped: nothing of its process, its record or its start is touched.
    recorded = container.ok("inspect", "box")
    part = io.BytesIO()
    with tarfile.open(fileobj=part, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("late"), None)
    with container.popen("cp", "-", "box:/srv", stdin=True) as visiting:
        assert visiting.stdin is not None
        visiting.stdin.write(part.getvalue()[:512])
        visiting.stdin.flush()
        wait_until_held(container)
        for command in (["start", "box"], ["rm", "box"], ["cp", "box:/srv/a", "."]):
            refused = container(*command)
            assert refused.returncode == 1
            assert "files are being copied" in refused.stderr
        visiting.stdin.write(part.getvalue()[512:])
        _, said = visiting.communicate(timeout=100)
        assert visiting.returncode == 0, said
    assert container.ok("inspect", "box") == recorded
    container.ok("start", "box")
    container.ok("exec", "box", "test", "-e", "/srv/late")
