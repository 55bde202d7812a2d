import os
from pathlib import Path

import pytest

from woodlot.container import options, requests
from woodlot.container.spec import ExecSpec, ProcessSpec, Rlimit, Tmpfs
from woodlot.errors import ConfigError, WoodlotError

ENVIRON = {"HERE": "the host's", "EMPTY": ""}
UNLIMITED = 2**64 - 1


def read(path: Path, data: bytes) -> dict[str, str]:
    path.write_bytes(data)
    return options.read_env_file(path, environ=ENVIRON)


@pytest.mark.parametrize("name", ["a", "7", "web", "A_b.c-d", "x" * 63])
def test_names(name: str) -> None:
    assert options.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-x", ".x", "_x", "a b", "a/b", "é", "x" * 64, "web\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ConfigError, match="--name cannot be"):
        options.check_name(name)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("A=b", {"A": "b"}),
        ("A=", {"A": ""}),
        ("A=b=c", {"A": "b=c"}),
        ("A=' b '", {"A": "' b '"}),
        ("A=x\ny", {"A": "x\ny"}),
        ("HERE", {"HERE": "the host's"}),
        ("EMPTY", {"EMPTY": ""}),
        ("ABSENT", {"ABSENT": None}),
        ("HERE=", {"HERE": ""}),
    ],
)
def test_variables(assignment: str, expected: dict[str, str | None]) -> None:
    assert options.parse_env([assignment], environ=ENVIRON) == expected


@pytest.mark.parametrize("assignment", ["", "=x", "A=\0"])
def test_bad_variables(assignment: str) -> None:
    with pytest.raises(ConfigError, match="-e cannot be"):
        options.parse_env(["A=b", assignment], environ=ENVIRON)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"\n\n  \n\t\n", {}),
        (b"# A=b\n   # C=d\n", {}),
        (b"A=b", {"A": "b"}),
        (b"A=b\r\nC=d\r\n", {"A": "b", "C": "d"}),
        (b"  A=b\n\tC=d\n", {"A": "b", "C": "d"}),
        (b"A=b # no comment\n", {"A": "b # no comment"}),
        (b"A= b \n", {"A": " b "}),
        (b"A=\"b\"\nC='d'\n", {"A": '"b"', "C": "'d'"}),
        (b"A=b=c\nD=\n", {"A": "b=c", "D": ""}),
        (b"A=b\nA=c\n", {"A": "c"}),
        (b"A=$B\\n\n", {"A": "$B\\n"}),
        (b"HERE\nABSENT\nEMPTY\n", {"HERE": "the host's", "EMPTY": ""}),
        (b"\xef\xbb\xbfA=b\n", {"A": "b"}),
        ("É=\u00fc\n".encode(), {"É": "ü"}),
        # Line breaks to Python, but not to Docker.
        ("A=b\u2028C=d\x0ce\x85f\n".encode(), {"A": "b\u2028C=d\x0ce\x85f"}),
        (b"A=b\rc\n", {"A": "b\rc"}),
    ],
)
def test_env_file(tmp_path: Path, data: bytes, expected: dict[str, str]) -> None:
    assert read(tmp_path / "env", data) == expected


@pytest.mark.parametrize(
    "data", [b"A B=c\n", b"=b\n", b"A =b\n", b"HERE \n", b"export A=b\n", b"A=\xff\n", b"A=\0\n"]
)
def test_bad_env_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "env"
    with pytest.raises(ConfigError) as caught:
        read(path, b"GOOD=1\n" + data)
    assert caught.value.message.startswith(f"--env-file {path}: ")


def test_an_env_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nosuch", tmp_path):
        with pytest.raises(ConfigError, match=r"--env-file .*: (No such file|Is a directory)"):
            options.read_env_file(path, environ=ENVIRON)


def test_an_env_file_without_end_is_given_up() -> None:
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        options.read_env_file(Path("/dev/zero"), environ=ENVIRON)


def test_an_env_file_may_be_a_pipe() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"A=b\n")
    os.close(write_end)
    try:
        assert options.read_env_file(Path(f"/dev/fd/{read_end}"), environ={}) == {"A": "b"}
    finally:
        os.close(read_end)


def merge(
    *, image: tuple[str, ...] = (), files: tuple[Path, ...] = (), flags: tuple[str, ...] = ()
) -> dict[str, str]:
    merged = options.merge_env(image, files, flags, tty=False, hostname="h")
    pairs = [text.partition("=") for text in merged]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def test_the_last_to_name_a_variable_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("B=file 1\nC=file 1\nD=file 1\n")
    second.write_text("C=file 2\nD=file 2\n")
    merged = merge(
        image=("A=image", "B=image", "C=image", "D=image"),
        files=(first, second),
        flags=("D=flag 1", "D=flag 2"),
    )
    assert merged == {
        "PATH": options.DEFAULT_PATH,
        "HOSTNAME": "h",
        "A": "image",
        "B": "file 1",
        "C": "file 2",
        "D": "flag 2",
    }


def test_only_the_user_can_pass_the_hosts_variables_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s")
    assert "SECRET" not in merge(image=("SECRET", "=x", ""))
    assert merge(flags=("SECRET",))["SECRET"] == "s"
    (tmp_path / "env").write_text("SECRET\n")
    assert merge(files=(tmp_path / "env",))["SECRET"] == "s"


def test_a_flag_without_a_value_takes_a_variable_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GONE", raising=False)
    assert "GONE" not in merge(image=("GONE=image",), flags=("GONE",))
    assert merge(image=("GONE=image",), flags=("GONE", "GONE=again"))["GONE"] == "again"
    assert "HOSTNAME" in merge()
    # A file's does not, as Docker's.
    (tmp_path / "env").write_text("GONE\n")
    assert merge(image=("GONE=image",), files=(tmp_path / "env",))["GONE"] == "image"
    own = ProcessSpec(args=("sh",), env=("GONE=image", "KEPT=1"))
    joined = requests.join_process(own, ExecSpec(id="1", args=("env",), env=("GONE", "NEVER")))
    assert joined.env == ("KEPT=1",)


def test_dockers_own_variables() -> None:
    assert options.merge_env((), (), (), tty=True, hostname="h") == (
        f"PATH={options.DEFAULT_PATH}",
        "HOSTNAME=h",
        "TERM=xterm",
    )
    assert merge(image=("PATH=/opt",), flags=("HOSTNAME=x",)) == {"PATH": "/opt", "HOSTNAME": "x"}


@pytest.mark.parametrize(
    ("text", "kind", "soft", "hard"),
    [
        ("nofile=1024", "nofile", 1024, 1024),
        ("nofile=1024:4096", "nofile", 1024, 4096),
        ("core=0", "core", 0, 0),
        ("core=0:-1", "core", 0, UNLIMITED),
        ("memlock=-1:-1", "memlock", UNLIMITED, UNLIMITED),
        ("memlock=unlimited", "memlock", UNLIMITED, UNLIMITED),
        (f"stack={UNLIMITED}", "stack", UNLIMITED, UNLIMITED),
    ],
)
def test_ulimits(text: str, kind: str, soft: int, hard: int) -> None:
    assert options.parse_ulimit(text) == Rlimit(type=kind, soft=soft, hard=hard)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nofile", "cannot be 'nofile'"),
        ("nosuch=1", "cannot be 'nosuch=1'"),
        ("NOFILE=1", "cannot be 'NOFILE=1'"),
        ("=1", "cannot be '=1'"),
        ("nofile=", "'' is not a limit"),
        ("nofile=many", "'many' is not a limit"),
        ("nofile=-2", "'-2' is not a limit"),
        ("nofile=1.5", "'1.5' is not a limit"),
        ("nofile=²", "'²' is not a limit"),
        ("nofile=5:", "'' is not a limit"),
        ("nofile=1:2:3", "'2:3' is not a limit"),
        (f"nofile={UNLIMITED + 1}", "is not a limit"),
        (f"nofile={'9' * 5000}", "is not a limit"),
        ("nofile=2:1", "above the hard limit"),
        ("nofile=-1:1", "above the hard limit"),
    ],
)
def test_bad_ulimits(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match="--ulimit") as caught:
        options.parse_ulimit(text)
    assert said in caught.value.message


def test_each_ulimit_comes_once() -> None:
    assert [limit.type for limit in options.parse_ulimits(["core=0", "nofile=1"])] == [
        "core",
        "nofile",
    ]
    with pytest.raises(ConfigError, match="--ulimit nofile is given twice"):
        options.parse_ulimits(["nofile=1", "core=0", "nofile=1"])


@pytest.mark.parametrize(
    ("text", "destination", "flags"),
    [
        ("/run", "/run", ()),
        ("/run:size=64m,mode=1777", "/run", ("size=64m", "mode=1777")),
        ("/run:", "/run", ()),
        ("/run:,ro,", "/run", ("ro",)),
        ("/a b/ü", "/a b/ü", ()),
        ("/a/", "/a", ()),
        ("//a/./b//", "/a/b", ()),
        ("/..a/b..", "/..a/b..", ()),
    ],
)
def test_tmpfs(text: str, destination: str, flags: tuple[str, ...]) -> None:
    assert options.parse_tmpfs(text) == Tmpfs(destination=destination, options=flags)


@pytest.mark.parametrize(
    "text", ["", "run", "./run", ":size=1m", "/", "//", "/.", "/./", "/a/../.."]
)
def test_bad_tmpfs(text: str) -> None:
    with pytest.raises(ConfigError, match="--tmpfs must be an absolute path below /"):
        options.parse_tmpfs(text)


def test_labels() -> None:
    assert options.parse_labels(["a=b", "c", "d=e=f", "a=last", "g="]) == {
        "a": "last",
        "c": "",
        "d": "e=f",
        "g": "",
    }
    assert options.parse_labels(["k" * 128]) == {"k" * 128: ""}
    assert options.parse_labels(["k=" + "v" * 4094])["k"] == "v" * 4094


@pytest.mark.parametrize("text", ["", "=v", "k" * 129, "k=" + "v" * 4095])
def test_bad_labels(text: str) -> None:
    with pytest.raises(ConfigError, match="--label"):
        options.parse_labels([text])


@pytest.mark.parametrize(
    ("text", "number", "name"),
    [
        ("TERM", 15, "SIGTERM"),
        ("SIGTERM", 15, "SIGTERM"),
        ("sigquit", 3, "SIGQUIT"),
        (" 9 ", 9, "SIGKILL"),
        # What systemd's images name as their stop signal.
        ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
        ("RTMIN", 34, "SIGRTMIN"),
        ("37", 37, "SIGRTMIN+3"),
        ("rtmax-1", 63, "SIGRTMIN+29"),
        ("SIGRTMAX", 64, "SIGRTMAX"),
    ],
)
def test_signals(text: str, number: int, name: str) -> None:
    assert options.parse_signal(text) == number
    assert options.signal_name(number) == name
    assert options.parse_signal(name) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "NOSUCH", "SIG", "²", "9" * 5000, "RTMIN+31", "RTMAX+1", "RTMIN-1"],
)
def test_bad_signals(text: str) -> None:
    with pytest.raises(ConfigError, match="there is no signal"):
        options.parse_signal(text)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "expected"),
    [
        (None, None, None, None),
        ("www:staff", None, None, "www:staff"),
        (None, 7, None, "7"),
        (None, 0, None, "0"),
        (None, 7, 8, "7:8"),
        (None, None, 8, "0:8"),
        (None, None, 0, "0:0"),
        ("", 7, None, "7"),
    ],
)
def test_users(user: str | None, uid: int | None, gid: int | None, expected: str | None) -> None:
    assert options.join_user(user, uid, gid) == expected


@pytest.mark.parametrize(("uid", "gid"), [(0, None), (None, 0)])
def test_a_user_is_given_in_one_way(uid: int | None, gid: int | None) -> None:
    with pytest.raises(WoodlotError, match="--user conflicts with --uid and --gid"):
        options.join_user("www", uid, gid)
