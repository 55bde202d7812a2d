"""From an image and flags to a container's spec, held whole."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.container.images import add_image
from woodlot.container import options
from woodlot.container.create import Request, build_spec
from woodlot.container.spec import (
    ContainerSpec,
    DnsSpec,
    NetworkSpec,
    PortSpec,
    ProcessSpec,
    Rlimit,
    Tmpfs,
)
from woodlot.errors import ConfigError
from woodlot.image.image import Image, load
from woodlot.oci.platform import parse_platform
from woodlot.store.store import Store
from woodlot.units import GIB, MIB

AMD64 = parse_platform("linux/amd64")
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)  # fmt: skip
FULL = {
    "Entrypoint": ["/entry", "--flag"],
    "Cmd": ["serve"],
    "Env": ["PATH=/opt/bin", "LANG=C.UTF-8"],
    "User": "www:staff",
    "WorkingDir": "/srv",
    "Labels": {"tier": "front", "maintainer": "joe"},
    "StopSignal": "SIGQUIT",
}

Make = Callable[[Mapping[str, object]], Image]


@pytest.fixture
def make(store: Store) -> Make:
    def make(config: Mapping[str, object]) -> Image:
        add_image(store, "app", config)
        return load(store, "app", AMD64)

    return make


def args(image: Image, request: Request) -> tuple[str, ...]:
    return build_spec(image, request).process.args


def test_an_image_that_says_little(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_CONTAINER_CPUS", "1")
    image = make({"Cmd": ["sh"]})
    before = time.time()
    spec = build_spec(image, Request())
    assert re.fullmatch("[0-9a-f]{64}", spec.id)
    assert before <= spec.created_at <= time.time()
    hostname = spec.id[:12]
    assert spec == ContainerSpec(
        id=spec.id,
        name=hostname,
        image="docker.io/library/app:latest",
        image_digest=image.manifest_digest,
        platform="linux/amd64",
        rootfs=str(image.rootfs),
        process=ProcessSpec(
            args=("sh",),
            env=(f"PATH={options.DEFAULT_PATH}", f"HOSTNAME={hostname}"),
            cwd="/",
            user="",
            tty=False,
            stdin=False,
            capabilities=DEFAULT_CAPABILITIES,
            rlimits=(),
            init=False,
        ),
        cpus=1.0,
        memory_bytes=GIB,
        disk_bytes=64 * GIB,
        hostname=hostname,
        networks=(NetworkSpec(network="default"),),
        read_only=False,
        tmpfs=(),
        shm_bytes=64 * MIB,
        labels={},
        cap_add=(),
        cap_drop=(),
        kernel=None,
        kernel_args=(),
        remove=False,
        stop_signal="SIGTERM",
        created_at=spec.created_at,
    )


def test_every_flag(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vmlinuz").touch()
    Path("env").write_text("COLOR=blue\nSIZE=9\n")
    image = make(FULL)
    spec = build_spec(
        image,
        Request(
            args=("test", "-v"),
            name="web",
            interactive=True,
            tty=True,
            env=("COLOR=green",),
            env_files=(Path("env"),),
            uid=5,
            gid=6,
            workdir="/tmp",
            cpus=0.5,
            memory="200m",
            read_only=True,
            tmpfs=("/scratch:size=1m", "/run"),
            shm_size="1g",
            ulimits=("nofile=99:100",),
            cap_add=("net_admin",),
            cap_drop=("ALL",),
            labels=("tier=back", "mine"),
            init=True,
            networks=("back,ip=10.86.1.7", "front,alias=www"),
            ports=("8080:80", "53:53/udp"),
            hostname="host",
            dns=("192.0.2.53",),
            kernel=Path("vmlinuz"),
            kernel_args=("debug", "nosmp"),
            remove=True,
        ),
    )
    assert spec == ContainerSpec(
        id=spec.id,
        name="web",
        image="docker.io/library/app:latest",
        image_digest=image.manifest_digest,
        platform="linux/amd64",
        rootfs=str(image.rootfs),
        process=ProcessSpec(
            args=("/entry", "--flag", "test", "-v"),
            entrypoint_args=2,
            env=(
                "PATH=/opt/bin",
                "HOSTNAME=host",
                "TERM=xterm",
                "LANG=C.UTF-8",
                "COLOR=green",
                "SIZE=9",
            ),
            cwd="/tmp",
            user="5:6",
            tty=True,
            stdin=True,
            capabilities=("CAP_NET_ADMIN",),
            rlimits=(Rlimit(type="nofile", soft=99, hard=100),),
            init=True,
        ),
        cpus=0.5,
        memory_bytes=200 * MIB,
        disk_bytes=64 * GIB,
        hostname="host",
        networks=(
            NetworkSpec(network="back", ip="10.86.1.7"),
            NetworkSpec(network="front", aliases=("www",)),
        ),
        ports=(
            PortSpec(container_port=80, host_port=8080),
            PortSpec(container_port=53, host_port=53, protocol="udp"),
        ),
        dns=DnsSpec(nameservers=("192.0.2.53",)),
        read_only=True,
        tmpfs=(Tmpfs(destination="/scratch", options=("size=1m",)), Tmpfs(destination="/run")),
        shm_bytes=GIB,
        labels={"tier": "back", "maintainer": "joe", "mine": ""},
        cap_add=("CAP_NET_ADMIN",),
        cap_drop=("ALL",),
        kernel=str(tmp_path / "vmlinuz"),
        kernel_args=("debug", "nosmp"),
        remove=True,
        stop_signal="SIGQUIT",
        created_at=spec.created_at,
    )


def test_what_the_user_leaves_out_is_the_images(make: Make) -> None:
    spec = build_spec(make(FULL), Request())
    assert spec.process.args == ("/entry", "--flag", "serve")
    assert (spec.process.user, spec.process.cwd) == ("www:staff", "/srv")
    assert spec.labels == {"tier": "front", "maintainer": "joe"}
    assert build_spec(make(FULL), Request(user="root")).process.user == "root"


@pytest.mark.parametrize(
    ("image", "entrypoint", "command", "expected"),
    [
        ({"Cmd": ["c"]}, None, (), ("c",)),
        ({"Cmd": ["c"]}, None, ("x", "y"), ("x", "y")),
        ({"Entrypoint": ["e"]}, None, (), ("e",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, None, (), ("e", "c")),
        ({"Entrypoint": ["e", "f"], "Cmd": ["c"]}, None, ("x",), ("e", "f", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, "n", (), ("n",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, "n", ("x",), ("n", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, "", ("x",), ("x",)),
        ({"Entrypoint": ["e"]}, "/with space", (), ("/with space",)),
        ({"Cmd": ["c"]}, None, ("",), ("",)),
        # As Docker: an entrypoint of one empty word is none.
        ({"Entrypoint": [""], "Cmd": ["c"]}, None, (), ("c",)),
    ],
)
def test_entrypoint_and_command(
    make: Make,
    image: dict[str, object],
    entrypoint: str | None,
    command: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    assert args(make(image), Request(entrypoint=entrypoint, args=command)) == expected


@pytest.mark.parametrize(
    ("image", "entrypoint"),
    [({}, None), ({"Entrypoint": [""]}, None), ({"Entrypoint": ["e"], "Cmd": ["c"]}, "")],
)
def test_no_command(make: Make, image: dict[str, object], entrypoint: str | None) -> None:
    with pytest.raises(ConfigError, match="image app:latest names no command"):
        build_spec(make(image), Request(entrypoint=entrypoint))


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("", "SIGTERM"),
        ("QUIT", "SIGQUIT"),
        ("9", "SIGKILL"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("SIGNOSUCH", "SIGTERM"),
    ],
)
def test_stop_signal(make: Make, said: str, stored: str) -> None:
    assert build_spec(make({**FULL, "StopSignal": said}), Request()).stop_signal == stored


def test_ids_and_names_are_never_the_same(make: Make) -> None:
    image = make(FULL)
    specs = [build_spec(image, Request()) for _ in range(20)]
    assert len({spec.id for spec in specs}) == len({spec.name for spec in specs}) == 20


def test_settings_are_the_defaults(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CPUS", "0.25"), ("MEMORY", "64m"), ("DISK", "1g")):
        monkeypatch.setenv(f"WOODLOT_CONTAINER_{name}", value)
    spec = build_spec(make(FULL), Request())
    assert (spec.cpus, spec.memory_bytes, spec.disk_bytes) == (0.25, 64 * MIB, GIB)
    assert build_spec(make(FULL), Request(memory="65m")).memory_bytes == 65 * MIB


def test_emulated_ones_get_one_cpu_unless_asked(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WOODLOT_CONTAINER_CPUS", raising=False)
    image = make(FULL)
    assert build_spec(image, Request()).cpus == min(4, HOST_CPUS)
    assert build_spec(image, Request(), emulated=True).cpus == 1
    assert build_spec(image, Request(cpus=HOST_CPUS), emulated=True).cpus == HOST_CPUS


HOST_CPUS = os.cpu_count() or 1
HOST_MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "-x"}, "--name"),
    ({"kernel": Path("/nosuch")}, "the kernel /nosuch is not a file"),
    ({"kernel": Path("/")}, "the kernel / is not a file"),
    ({"kernel_args": ("",)}, "--kernel-arg"),
    ({"kernel_args": ("a b",)}, "--kernel-arg"),
    ({"workdir": "tmp"}, "--workdir"),
    ({"tmpfs": ("scratch",)}, "--tmpfs"),
    ({"shm_size": "lots"}, "--shm-size"),
    ({"shm_size": "-1"}, "--shm-size"),
    ({"ulimits": ("nofile",)}, "--ulimit"),
    ({"labels": ("=x",)}, "--label"),
    ({"user": "www", "uid": 1}, "--user"),
    ({"env": ("=x",)}, "-e"),
    ({"env_files": (Path("/nosuch"),)}, "--env-file /nosuch"),
    ({"env_files": (Path("/"),)}, "--env-file /"),
    ({"cap_add": ("NOSUCH",)}, "--cap-add"),
    ({"cap_drop": ("NOSUCH",)}, "--cap-drop"),
    ({"cpus": 0.0}, "--cpus"),
    ({"cpus": -1.0}, "--cpus"),
    ({"cpus": float("nan")}, "--cpus"),
    ({"cpus": HOST_CPUS + 0.5}, "--cpus"),
    ({"memory": "lots"}, "--memory"),
    ({"memory": "5m"}, "--memory"),
    ({"memory": f"{HOST_MEMORY_BYTES + 1}"}, "--memory"),
]


@pytest.mark.parametrize(("asked", "option"), BAD, ids=str)
def test_what_is_wrong_is_told_before_there_is_an_image(asked: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Request(**asked).check()
    assert option in caught.value.message


@pytest.mark.parametrize(
    "asked",
    [
        {"cpus": 0.01},
        {"cpus": float(HOST_CPUS)},
        {"memory": "6m"},
        {"memory": f"{HOST_MEMORY_BYTES}"},
    ],
)
def test_limits_themselves_are_allowed(make: Make, asked: dict[str, Any]) -> None:
    build_spec(make(FULL), Request(**asked))


def test_an_env_file_that_is_a_pipe_is_read_once(make: Make) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"A=b\n")
    os.close(write_end)
    request = Request(env_files=(Path(f"/dev/fd/{read_end}"),))
    request.check()
    assert "A=b" in build_spec(make(FULL), request).process.env
    os.close(read_end)


@pytest.mark.parametrize(
    "asked",
    [
        {"args": ("printf", "\udcff")},
        {"entrypoint": "/\udcff"},
        {"env": ("A=\udcff",)},
        {"env": ("LATIN1",)},
        {"workdir": "/\udcff"},
        {"user": "\udcff"},
        {"tmpfs": ("/\udcff",)},
    ],
)
def test_bytes_that_the_guest_cannot_be_told(
    make: Make, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATIN1", "caf\udce9")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        build_spec(make(FULL), Request(**asked))


def test_a_request_is_checked_again_with_the_image(make: Make) -> None:
    image = make(FULL)
    for asked, option in BAD:
        with pytest.raises(ConfigError) as caught:
            build_spec(image, Request(**asked))
        assert option in caught.value.message
