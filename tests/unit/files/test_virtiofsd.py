"""virtiofsd's two kinds and their arguments, held word for word."""

from pathlib import Path

import pytest

from woodlot.errors import NotFoundError, VmmError
from woodlot.files import virtiofsd
from woodlot.files.virtiofsd import Kind, Virtiofsd, build_argv, parse_version

BINARY = Path("/usr/libexec/virtiofsd")
OLD = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022 Fabrice\n"


@pytest.mark.parametrize(
    ("output", "kind", "version"),
    [
        (OLD, Kind.C, "7.2.22"),
        ("virtiofsd 1.13.2\n", Kind.RUST, "1.13.2"),
        ("virtiofsd 1.10.0-dev", Kind.RUST, "1.10.0-dev"),
    ],
)
def test_the_two_programs_are_told_apart(output: str, kind: Kind, version: str) -> None:
    assert parse_version(BINARY, output) == Virtiofsd(binary=BINARY, kind=kind, version=version)


@pytest.mark.parametrize("output", ["", "virtiofsd", "QEMU emulator version 7.2", "virtiofsd x"])
def test_another_program_of_that_name_is_refused(output: str) -> None:
    with pytest.raises(VmmError, match="does not answer as virtiofsd does"):
        parse_version(BINARY, output)


def test_the_older_one_is_known_by_its_complaint(tmp_path: Path) -> None:
    program = tmp_path / "virtiofsd"
    program.write_text(
        "#!/bin/sh\necho 'setgroups() failed with error=1:Operation not permitted' >&2; exit 1"
    )
    program.chmod(0o755)
    assert virtiofsd.read_version(program).kind is Kind.C


def test_the_older_one_is_started_like_this() -> None:
    program = Virtiofsd(binary=BINARY, kind=Kind.C, version="7.2.22")
    assert build_argv(program, socket_fd=5, directory=Path("/d/a,b\\c"), cache=True) == [
        "/usr/libexec/virtiofsd", "-f",
        "--fd=5",
        "--rlimit-nofile=0",
        "-o", "source=/d/a\\,b\\\\c",
        "-o", "sandbox=namespace",
        "-o", "modcaps=-mknod",
        "-o", "cache=auto",
        "-o", "xattr",
        "-o", "announce_submounts",
        "-o", "log_level=err",
    ]  # fmt: skip


def test_the_newer_one_is_started_like_this() -> None:
    program = Virtiofsd(binary=BINARY, kind=Kind.RUST, version="1.13.2")
    assert build_argv(program, socket_fd=5, directory=Path("/d/a,b"), cache=True) == [
        "/usr/libexec/virtiofsd",
        "--fd=5",
        "--rlimit-nofile=0",
        "--shared-dir=/d/a,b",
        "--sandbox=namespace",
        "--modcaps=-mknod",
        "--cache=auto",
        "--xattr",
        "--announce-submounts",
        "--log-level=error",
    ]


def test_a_missing_one_is_an_error_with_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(virtiofsd, "PLACES", ("/nowhere/virtiofsd",))
    with pytest.raises(NotFoundError, match="virtiofsd is not on this machine") as caught:
        virtiofsd.find_virtiofsd()
    assert "apt install virtiofsd" in (caught.value.hint or "")


def test_what_is_watched_is_not_kept_in_two_places() -> None:
    for kind, option in ((Kind.C, "cache=none"), (Kind.RUST, "--cache=never")):
        program = Virtiofsd(binary=BINARY, kind=kind, version="1")
        assert option in build_argv(program, socket_fd=5, directory=Path("/d"), cache=False)
