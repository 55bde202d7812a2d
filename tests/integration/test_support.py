"""What the other tests lean on is real: servers that refuse, a check that finds what is left."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leaks
from tests.programs import require_programs
from tests.registry.server import Registry


def test_registry_serves_every_platform(registry: Registry) -> None:
    require_programs("skopeo")
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false"]
    raw = subprocess.check_output([*argv, f"docker://{registry.reference('busybox:1.35')}"])
    assert raw.count(b"image.manifest.v1+json") == 2


@pytest.mark.parametrize(("credentials", "status"), [("user:secret", 0), ("user:wrong", 1)])
def test_auth_registry_wants_its_password(
    auth_registry: Registry, credentials: str, status: int
) -> None:
    require_programs("skopeo")
    assert auth_registry.ca is not None
    argv = ["skopeo", "inspect", "--cert-dir", str(auth_registry.ca.parent), "--creds", credentials]
    done = subprocess.run(
        [*argv, f"docker://{auth_registry.reference('busybox:1.35')}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("how", ["argument", "environment", "cwd", "open file"])
def test_leaked_process_is_found(tmp_path: Path, how: str) -> None:
    argv = [sys.executable, "-c", "import sys; sys.stderr.write('!'); sys.stderr.flush(); input()"]
    known = {} if how != "environment" else {"WOODLOT_ROOT": str(tmp_path)}
    with (tmp_path / "file").open("wb") as file:
        process = subprocess.Popen(
            [*argv, str(tmp_path)] if how == "argument" else argv,
            stdin=subprocess.PIPE,
            stdout=file if how == "open file" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=tmp_path if how == "cwd" else "/",
            env=known,
        )
    with process:
        # Its arguments are there a moment after it is.
        assert process.stderr is not None
        assert process.stderr.read(1) == b"!"
        assert set(leaks.find_processes(tmp_path)) == {process.pid}
        process.kill()
    assert not leaks.find_processes(tmp_path)


def test_leaked_socket_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    assert leaks.find_sockets(tmp_path) == [tmp_path / "s"]
