"""A real OCI registry, Debian's docker-registry, on a free port of loopback.

    python -m tests.registry.server DIR LAYOUT COMMAND [ARG...]

runs a command while a registry in DIR serves the images of LAYOUT; its address is in $REGISTRY.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.daemon import accepts, free_port, run_daemon
from tests.registry.push import Endpoint, push_layout

USERNAME = "user"
PASSWORD = "secret"
# What `htpasswd -Bbn user secret` (apache2-utils) prints; docker-registry takes bcrypt only.
HTPASSWD = "user:$2y$05$1X2hOFKzfjBRnroJzAmGoOJSCHsudN0KIlVF3N7CgmycrX2ZdMHtm\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A running registry."""

    address: str
    """Host and port, as the first part of a reference."""
    pid: int
    log: Path
    storage: Path
    """Its files: ``docker/registry/v2/{blobs,repositories}``; a test may break them."""
    ca: Path | None = None
    """The certificate to trust, when it speaks TLS."""
    username: str | None = None
    password: str | None = None

    def reference(self, name: str) -> str:
        """The whole reference of ``busybox:1.35`` and the like."""
        return f"{self.address}/{name}"

    @property
    def endpoint(self) -> Endpoint:
        """How to push to it."""
        credentials = (self.username, self.password) if self.username and self.password else None
        return Endpoint(address=self.address, ca=self.ca, credentials=credentials)


@contextlib.contextmanager
def serve_registry(directory: Path, *, auth: bool = False) -> Iterator[Registry]:
    """Run an empty registry for the life of the block.

    Args:
        directory: For its configuration, log and storage; made if missing, and left to the caller.
        auth: HTTPS with a certificate of its own, and a user name and password.
    """
    directory.mkdir(parents=True, exist_ok=True)
    storage, log, port = directory / "storage", directory / "registry.log", free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "shared by nobody"}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": http,
    }
    ca = None
    if auth:
        ca = _make_certificate(directory)
        http["tls"] = {"certificate": str(ca), "key": str(directory / "key.pem")}
        (directory / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    # JSON is YAML.
    config_file = directory / "config.yml"
    config_file.write_text(json.dumps(config))
    argv = ["docker-registry", "serve", str(config_file)]
    with run_daemon(argv, log=log, is_ready=lambda: accepts(port)) as pid:
        yield Registry(
            address=f"localhost:{port}" if auth else f"127.0.0.1:{port}",
            pid=pid,
            log=log,
            storage=storage,
            ca=ca,
            username=USERNAME if auth else None,
            password=PASSWORD if auth else None,
        )


def _make_certificate(directory: Path) -> Path:
    ca = directory / "ca.crt"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", directory / "key.pem", "-out", ca,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return ca


def main() -> int:
    """Run the command of the command line beside a filled registry; its exit status."""
    directory, layout, *command = sys.argv[1:]
    with serve_registry(Path(directory)) as registry:
        push_layout(Path(layout), registry.endpoint)
        environment = {**os.environ, "REGISTRY": registry.address}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
