"""The file tree that a container sees is the one it sees under Docker."""

import pytest

from tests.cli import Cli
from tests.peer import Docker
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

# Type, mode, owner and link target of everything, size of what is no directory, hash of every regular file.
LIST = r"""
find / -xdev ! -type d -exec stat -c '%N|%F|%a|%u|%g|%s' {} +
find / -xdev -type d -exec stat -c '%N|%F|%a|%u|%g' {} +
find / -xdev -type f -exec sha256sum {} +
"""
# Written for each container; Docker's own mark; and the mount point of edge:1's VOLUME, which we do not mount yet.
OWN = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/.dockerenv", "/data")


def listing(text: str) -> set[str]:
    return {
        line
        for line in text.splitlines()
        # GNU's stat quotes names, busybox's does not.
        if not any(f"{path}{end}" in f"{line}\n" for path in OWN for end in ("'", "|", "\n"))
    }


@pytest.mark.parametrize("name", ["edge:1", "debian:12", "python:3.11"])
def test_it_is_dockers(container: Cli, registry: Registry, docker: Docker, name: str) -> None:
    reference = registry.reference(name)
    command = ("--rm", "--user", "0", "--entrypoint", "sh", reference, "-c", LIST)
    docker("pull", "-q", reference)
    theirs = listing(docker("run", *command, timeout_s=300).stdout)
    ours = listing(container.ok("run", *command, timeout_s=280))
    assert len(ours) > 400
    assert sorted(ours ^ theirs) == []
