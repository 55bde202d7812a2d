"""``-v``, ``--mount`` and ``--tmpfs``, by Docker's rules."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from woodlot.container.mounts import build_mounts, check_sources, parse_mount, parse_volume
from woodlot.container.spec import Mount, Tmpfs
from woodlot.errors import ConfigError, NotFoundError

HERE = Path("/home/ann")


def volume(text: str) -> Mount:
    return parse_volume(text, directory=HERE)


def bind(source: str, destination: str, *, read_only: bool = False, make: bool = True) -> Mount:
    return Mount(
        type="bind",
        source=source,
        destination=destination,
        read_only=read_only,
        make_source=make,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/src:/dst", bind("/src", "/dst")),
        ("/src/:/dst/", bind("/src", "/dst")),
        ("./src:/dst:ro", bind("/home/ann/src", "/dst", read_only=True)),
        ("../bob:/dst:ro,z", bind("/home/bob", "/dst", read_only=True)),
        (".:/dst:rw", bind("/home/ann", "/dst")),
        ("/src:/dst:ro,watch", replace(bind("/src", "/dst", read_only=True), watch=True)),
        ("/a b,c:/d//e/../f", bind("/a b,c", "/d/f")),
        ("data:/dst", Mount(type="volume", source="data", destination="/dst")),
        (
            "data:/dst:ro,nocopy",
            Mount(type="volume", source="data", destination="/dst", read_only=True, copy=False),
        ),
        ("/dst", Mount(type="volume", source="", destination="/dst", anonymous=True)),
    ],
)
def test_a_volume_flag(text: str, expected: Mount) -> None:
    assert volume(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be"),
        (":/dst", "cannot be"),
        ("/a:/b:ro:x", "cannot be"),
        ("/a:b", "must be absolute"),
        ("data", "must be absolute"),
        ("/a:/", "cannot be /"),
        ("/a:/..", "cannot be /"),
        ("/a:/proc/self", "cannot be /proc/self"),
        ("/a:/b:rw,bogus", "no option 'bogus'"),
        ("/a:/b:nocopy", "no option 'nocopy'"),
        ("/a:/b:shared", "no option 'shared'"),
        ("data:/b:watch", "no option 'watch'"),
        ("src/dir:/b", "cannot be named"),
        ("~/x:/b", "cannot be named"),
        ("x:/b", "cannot be named"),
    ],
)
def test_a_wrong_volume_flag(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        volume(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,source=/s,target=/d", bind("/s", "/d", make=False)),
        ("type=bind,src=./s,dst=/d,ro", bind("/home/ann/s", "/d", read_only=True, make=False)),
        ("target=/d,type=bind,source=/s,readonly=false", bind("/s", "/d", make=False)),
        ('type=bind,"source=/a,b",destination=/d', bind("/a,b", "/d", make=False)),
        (
            "type=bind,source=/s,target=/d,watch",
            replace(bind("/s", "/d", make=False), watch=True),
        ),
        (
            "source=data,target=/d,volume-nocopy",
            Mount(type="volume", source="data", destination="/d", copy=False),
        ),
        ("type=volume,dst=/d", Mount(type="volume", source="", destination="/d", anonymous=True)),
        ("type=tmpfs,target=/d", Tmpfs(destination="/d")),
        (
            "type=tmpfs,target=/d,tmpfs-size=1m,tmpfs-mode=1777,readonly",
            Tmpfs(destination="/d", options=("ro", "size=1048576", "mode=1777")),
        ),
    ],
)
def test_a_mount_flag(text: str, expected: Mount | Tmpfs) -> None:
    assert parse_mount(text, directory=HERE) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be absolute"),
        ("type=bind,source=/s", "must be absolute"),
        ("type=bind,target=/d", "must begin with"),
        ("type=bind,source=s,target=/d", "must begin with"),
        ("type=bind,source=/s,target=/d,target=/e", "given twice"),
        ("type=bind,source=/s,target=/d,ro=maybe", "true or false"),
        ("type=bind,source=/s,target=/d,bind-propagation=shared", "not propagated"),
        ("type=bind,source=/s,target=/d,volume-nocopy", "no option 'volume-nocopy'"),
        ("type=npipe,source=/s,target=/d", "no type 'npipe'"),
        ("type=tmpfs,source=/s,target=/d", "no option 'source'"),
        ("type=tmpfs,target=/d,tmpfs-mode=9", "no mode"),
        ("bogus", "not KEY=VALUE"),
    ],
)
def test_a_wrong_mount_flag(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_mount(text, directory=HERE)


def test_a_destination_comes_once() -> None:
    for volumes, mounts, tmpfs in (
        (["/a:/x", "/b:/x/"], [], []),
        (["/a:/x"], ["type=bind,source=/b,target=/x"], []),
        (["/a:/x"], [], ["/x"]),
        ([], ["type=tmpfs,target=/x"], ["/x:size=1m"]),
    ):
        with pytest.raises(ConfigError, match="two mounts have the destination /x"):
            build_mounts(volumes, mounts, tmpfs, directory=HERE)


def test_an_images_volume_gives_way() -> None:
    found = build_mounts(
        ["/a:/x"],
        [],
        ["/y"],
        directory=HERE,
        image_volumes=["/x", "/y/", "/z", "rel", "/", "/proc"],
    )
    assert [(mount.type, mount.destination) for mount in found.shared] == [
        ("bind", "/x"),
        ("volume", "/z"),
    ]
    assert found.tmpfs == (Tmpfs(destination="/y"),)


def test_too_many_are_refused_before_the_machine_has_no_room() -> None:
    with pytest.raises(ConfigError, match="at most 16"):
        build_mounts([f"/s{i}:/d{i}" for i in range(17)], [], [], directory=HERE)
    build_mounts([f"/s:/d{i}" for i in range(17)], [], [], directory=HERE)


def test_a_socket_is_mounted_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("s")
    many = [f"/s{i}:/d{i}" for i in range(16)]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        # A socket takes no place on the machine's bus.
        found = build_mounts(
            [*many, "./s:/run/a.sock:ro", "./link:/b"],
            [f"type=bind,source={tmp_path}/s,target=/c"],
            [],
            directory=tmp_path,
        )
    source = str(tmp_path / "s")
    assert found.shared[16:] == (
        Mount(type="socket", source=source, destination="/run/a.sock", read_only=True),
        Mount(type="socket", source=str(tmp_path / "link"), destination="/b"),
        Mount(type="socket", source=source, destination="/c"),
    )
    check_sources(found.shared[16:])


def test_sources(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    check_sources([bind(missing, "/d"), bind(str(tmp_path), "/e", make=False)])
    with pytest.raises(NotFoundError, match="No such file"):
        check_sources([bind(missing, "/d", make=False)])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be watched"):
        check_sources([replace(bind(str(tmp_path / "file"), "/d"), watch=True)])
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match="No such file"):
        check_sources([bind(str(tmp_path / "dangling"), "/d")])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(ConfigError, match="neither a directory nor a regular file"):
            check_sources([bind(str(tmp_path / "socket"), "/d")])
