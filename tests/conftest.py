"""Fixtures for every test.

What boots or fetches shares one ladder, each step made when first asked for:

    images → registry, auth_registry → docker
    woodlot_root (one for the session, with the images pulled so far) → container
    fresh_root   (empty but for the kernel, one for each test)        → fresh_container

At the end of the session nothing may be left of it: no process, no socket, no mount.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.cli import PROGRAM, Cli
from tests.images.cache import BUILD, ensure_images
from tests.peer import Docker, run_docker
from tests.programs import require_programs, require_root, skip_or_fail
from tests.registry.push import push_layout
from tests.registry.server import Registry, serve_registry

# What is dear to make and the same for every root: it outlives the session.
SHARED = ("kernels", "initramfs", "disks")


_building: list[subprocess.Popen[bytes]] = []


def _needs_images(item: pytest.Item) -> bool:
    return "images" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of tests that need the images come last; they are built meanwhile."""
    late = {item.path for item in items if _needs_images(item)}
    items.sort(key=lambda item: item.path in late)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build the images; the fixture waits for the end, or finds out why they cannot be built."""
    if not session.config.option.collectonly and any(map(_needs_images, session.items)):
        argv = [sys.executable, "-m", "tests.images.cache"]
        _building.append(
            subprocess.Popen(
                argv,
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )


def pytest_sessionfinish() -> None:
    """Leave nothing running, also after `-x`."""
    for process in _building:
        if process.poll() is None:
            # With the programs that it runs.
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture(scope="session")
def images() -> Path:
    """An OCI image layout with the images that tests/images/mkimages.py describes."""
    require_programs("mmdebstrap", "zstd")
    return ensure_images()


@pytest.fixture(scope="session")
def registry(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without TLS on 127.0.0.1 that holds all images."""
    require_programs("docker-registry")
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        push_layout(images, server.endpoint)
        yield server


@pytest.fixture(scope="session")
def auth_registry(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with TLS (``.ca``) and a password (``.username``, ``.password``) that holds busybox:1.35."""
    require_programs("docker-registry", "openssl")
    with serve_registry(tmp_path_factory.mktemp("auth-registry"), auth=True) as server:
        push_layout(images, server.endpoint, names=["busybox:1.35"])
        yield server


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A Docker engine of the session's own; its containers have no network."""
    require_root()
    require_programs("dockerd", "docker")
    with run_docker(tmp_path_factory.mktemp("docker") / "data") as engine:
        yield engine


@pytest.fixture
def docker(docker_engine: Docker) -> Iterator[Docker]:
    """The session's Docker engine, without containers: those a test makes are removed after it."""
    yield docker_engine
    if left := docker_engine("ps", "-aq").stdout.split():
        docker_engine("rm", "-f", "-v", *left)


@pytest.fixture(scope="session")
def make_cli() -> Iterator[Callable[[str], Cli]]:
    """Makes the command with a new, empty data directory; checks at the end that nothing is left of any."""
    # Not pytest's own directory: paths of sockets must stay short.
    base = Path(tempfile.mkdtemp(prefix="wl-"))
    (base / "run").mkdir(mode=0o700)
    (base / "home").mkdir()

    def make(name: str) -> Cli:
        root = base / name
        root.mkdir(mode=0o700)
        for directory in SHARED:
            shared = BUILD / "test-cache" / directory
            shared.mkdir(parents=True, exist_ok=True)
            (root / directory).symlink_to(shared)
        return Cli(root=root, home=base / "home", runtime=base / "run")

    yield make
    left, pids = leaks.find_leaks(base, base / "run")
    leaks.kill(pids)
    shutil.rmtree(base, ignore_errors=True)
    if left:
        pytest.fail("left behind by the tests:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def woodlot_root(make_cli: Callable[[str], Cli]) -> Path:
    """The session's data directory: what one test pulls, the next one has."""
    return make_cli("session").root


@pytest.fixture
def container(woodlot_root: Path) -> Iterator[Cli]:
    """The command ``container`` on the session's data directory; containers are gone after each test."""
    cli = Cli(
        root=woodlot_root, home=woodlot_root.parent / "home", runtime=woodlot_root.parent / "run"
    )
    _require_command()
    yield cli
    _delete_containers(cli)


@pytest.fixture
def fresh_container(
    make_cli: Callable[[str], Cli], request: pytest.FixtureRequest
) -> Iterator[Cli]:
    """The command ``container`` on a data directory of the test's own, with no image in it."""
    _require_command()
    cli = make_cli(f"t{abs(hash(request.node.nodeid)) % 10**9}")
    yield cli
    _delete_containers(cli)
    shutil.rmtree(cli.root, ignore_errors=True)


@pytest.fixture
def fresh_root(fresh_container: Cli) -> Path:
    """The data directory of ``fresh_container``."""
    return fresh_container.root


def _require_command() -> None:
    require_programs(
        "qemu-system-x86_64" if os.uname().machine == "x86_64" else "qemu-system-aarch64"
    )
    if not PROGRAM.exists():
        skip_or_fail(f"{PROGRAM} is not there; `make setup` installs it")


def _delete_containers(cli: Cli) -> None:
    directory = cli.root / "containers"
    if directory.exists() and any(directory.iterdir()):
        cli.ok("delete", "--all", "--force")
