"""Fixtures of the tests that boot virtual machines."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import SETTLE_S, kill
from tests.programs import require_programs
from tests.registry.server import Registry
from tests.user import User, install


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that everyone may read: pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="wl-user-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def user(directory: Path) -> Iterator[User]:
    """A user made for these tests, or whoever runs them if that is not root; woodlot is installed for them."""
    require_programs("apt-get", "qemu-system-x86_64" if os.uname().machine == "x86_64" else "qemu-system-aarch64")  # fmt: skip
    if os.geteuid() != 0:
        home = directory / "home"
        home.mkdir()
        name = pwd.getpwuid(os.geteuid()).pw_name
        program = install(directory, ())
        yield User(name=name, uid=os.geteuid(), home=home, program=program, become=())
        return
    require_programs("useradd", "userdel", "setpriv", "unshare")
    name = f"wl-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    try:
        entry = pwd.getpwnam(name)
        become = ("setpriv", f"--reuid={name}", f"--regid={entry.pw_gid}", "--init-groups")
        program = install(directory, become)
        made = User(
            name=name, uid=entry.pw_uid, home=Path(entry.pw_dir), program=program, become=become
        )
        yield made
        # The switch of a network stays for some seconds; a test that failed leaves containers. A user with processes
        # cannot be removed.
        deadline = time.monotonic() + 3 * SETTLE_S
        while left := made.processes():
            if time.monotonic() > deadline:
                kill(left)
            time.sleep(0.1)
        for path in made.temporary():
            shutil.rmtree(path, ignore_errors=True)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pulled(user: User, registry: Registry) -> str:
    """An image that the user has pulled."""
    reference = registry.reference("busybox:1.35")
    assert user("pull", reference).strip() == reference
    return reference
