"""A Docker engine of its own, to compare with: same images, same machine, same run."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.daemon import run_daemon


@dataclass(frozen=True, slots=True)
class Docker:
    """A running engine and the client that speaks to it."""

    host: str

    def __call__(
        self, *args: str, timeout_s: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``docker ARGS``; with ``check``, a failure is an AssertionError with what it printed."""
        argv = ["docker", "-H", self.host, *args]
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stderr}"
        return done


@contextlib.contextmanager
def run_docker(data: Path, *, network: bool = False) -> Iterator[Docker]:
    """Run dockerd for the life of the block; needs root and docker.io.

    Args:
        data: Where it keeps images and containers; not on overlayfs. Removed at the end.
        network: Give containers a bridge and NAT, which changes this machine's docker0 and iptables.
    """
    # Sockets need short paths, and containerd makes more of them below.
    runtime = Path(tempfile.mkdtemp(prefix="wl-docker-"))
    host = f"unix://{runtime}/docker.sock"
    docker = Docker(host)
    argv = ["dockerd", "--data-root", str(data), "--exec-root", f"{runtime}/exec", "-H", host]
    argv += ["--pidfile", f"{runtime}/pid", "--storage-driver", "overlay2"]
    if not network:
        argv += ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    data.mkdir(parents=True, exist_ok=True)

    def is_ready() -> bool:
        return docker("version", check=False).returncode == 0

    try:
        with run_daemon(argv, log=runtime / "log", is_ready=is_ready):
            yield docker
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(runtime, ignore_errors=True)
