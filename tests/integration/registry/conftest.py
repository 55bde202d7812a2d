"""Debian's docker-registry on loopback: plain, and with TLS and a password."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from woodlot import settings

PROGRAMS = ("docker-registry", "skopeo", "openssl", "htpasswd")
USER, PASSWORD = "joe", "secret"


@dataclass(frozen=True)
class Registry:
    """A registry that runs, with the image ``app`` under the tags ``1`` (gzip), ``zstd`` and ``multi``."""

    host: str
    authority: Path | None
    layer: bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*argv: object) -> None:
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


def make_layout(directory: Path, layer: Path) -> None:
    """An OCI layout with one image for each of two platforms, from an uncompressed layer."""
    import hashlib

    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(data: bytes, media_type: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    def put_json(value: object, media_type: str) -> dict[str, object]:
        return put(json.dumps(value).encode(), media_type)

    prefix = "application/vnd.oci.image"
    content = put(layer.read_bytes(), f"{prefix}.layer.v1.tar")
    children: list[dict[str, object]] = []
    for architecture in ("amd64", "arm64"):
        platform = {"os": "linux", "architecture": architecture}
        rootfs = {"type": "layers", "diff_ids": [content["digest"]]}
        config = put_json(
            platform | {"rootfs": rootfs, "config": {"Cmd": ["sh"]}}, f"{prefix}.config.v1+json"
        )
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{prefix}.manifest.v1+json",
            "config": config,
            "layers": [content],
        }
        children.append(put_json(manifest, f"{prefix}.manifest.v1+json") | {"platform": platform})
    index = {"schemaVersion": 2, "mediaType": f"{prefix}.index.v1+json", "manifests": children}
    named = put_json(index, f"{prefix}.index.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "multi"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


@pytest.fixture(scope="session")
def start_registry(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Callable[..., Registry]]:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("WOODLOT_TEST_REQUIRE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("registry")
    files = base / "files"
    files.mkdir()
    (files / "hello").write_text("world\n")
    (files / "noise").write_bytes(os.urandom(4 << 20))
    run("tar", "-C", files, "-cf", base / "layer.tar", ".")
    make_layout(base / "oci", base / "layer.tar")
    running: list[subprocess.Popen[bytes]] = []

    def start(*, secure: bool) -> Registry:
        directory = base / ("secure" if secure else "plain")
        directory.mkdir()
        port = free_port()
        host = f"localhost:{port}" if secure else f"127.0.0.1:{port}"
        http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": http,
        }
        flags: list[object] = ["--dest-tls-verify=false"]
        certificate = directory / "ca.crt"
        if secure:
            run(
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", directory / "ca.key", "-out", certificate),
            )
            run("htpasswd", "-Bbc", directory / "htpasswd", USER, PASSWORD)
            http["tls"] = {"certificate": str(certificate), "key": str(directory / "ca.key")}
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
            flags += ["--dest-creds", f"{USER}:{PASSWORD}"]
        # JSON is YAML, too.
        (directory / "config.yml").write_text(json.dumps(config))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log
            )
        running.append(process)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        image = f"oci:{base / 'oci'}:multi"
        single = ["--override-os", "linux", "--override-arch", "amd64"]
        copy = ["skopeo", *single, "copy", "-q", *flags]
        run(*copy, "--all", image, f"docker://{host}/app:multi")
        run(*copy, "--dest-compress-format", "gzip", image, f"docker://{host}/app:1")
        zstd = ("--dest-compress", "--dest-compress-format", "zstd")
        run(*copy, *zstd, image, f"docker://{host}/app:zstd")
        run(*copy, "--format", "v2s2", image, f"docker://{host}/app:docker")
        return Registry(
            host=host,
            authority=certificate if secure else None,
            layer=(base / "layer.tar").read_bytes(),
        )

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def plain_registry(start_registry: Callable[..., Registry]) -> Registry:
    return start_registry(secure=False)


@pytest.fixture(scope="session")
def secure_registry(start_registry: Callable[..., Registry]) -> Registry:
    return start_registry(secure=True)


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "WOODLOT_REGISTRY_HOST",
        "CONTAINER_REGISTRY_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    settings._file_values.cache_clear()
