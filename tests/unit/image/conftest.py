"""A scripted registry, and images small enough to write down."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from woodlot import settings
from woodlot.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from woodlot.oci.platform import Platform, parse_platform
from woodlot.oci.transport import Timeouts
from woodlot.paths import Paths
from woodlot.store.store import Store

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64 = parse_platform("linux/amd64")
QUICK = Timeouts(
    connect_s=2,
    read_idle_s=0.3,
    document_s=1,
    rate_window_s=0.2,
    min_rate=2000,
    attempts=3,
    backoff_s=0.01,
    max_wait_s=1.5,
)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    cut: int | None = None
    """Break the connection after so many bytes."""
    drip_s: float | None = None
    """Pause between bytes."""
    hang: bool = False
    """Never answer."""
    chunked: bool = False
    gate: asyncio.Event | None = None
    """Hold the last byte back until then."""


class Stub:
    """A registry on 127.0.0.1 that does what it is told."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.requests: list[Request] = []
        self.script: list[tuple[str, Reply, int]] = []
        self.ranges = True
        self.auth: str | None = None
        self.user = ("joe", "secret")
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def on(self, part: str, *replies: Reply, times: int = 1) -> None:
        """Answer the next requests whose path contains ``part`` so; then as usual."""
        self.script += [(part, reply, times) for reply in replies]

    def count(self, part: str) -> int:
        return sum(part in request.path for request in self.requests)

    def add_blob(self, data: bytes, media_type: str) -> dict[str, object]:
        self.blobs[sha256(data)] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def add_manifest(self, document: object, *, tag: str | None = None) -> dict[str, object]:
        data = json.dumps(document).encode()
        assert isinstance(document, dict)
        media_type = str(document["mediaType"])
        for name in (sha256(data), tag):
            if name:
                self.manifests[name] = (data, media_type)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def add_image(
        self,
        *layers: bytes,
        tag: str | None = "1",
        platform: str = "linux/amd64",
        diff_ids: list[str] | None = None,
        layer_type: str = GZIP_LAYER,
    ) -> dict[str, object]:
        tars = layers or (make_tar({"hello": b"world\n"}),)
        parsed = parse_platform(platform)
        config = {
            "os": parsed.os,
            "architecture": parsed.architecture,
            "config": {"Cmd": ["sh"], "Env": ["A=b"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [sha256(tar) for tar in tars] if diff_ids is None else diff_ids,
            },
        } | ({"variant": parsed.variant} if parsed.variant else {})
        return self.add_manifest(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self.add_blob(json.dumps(config).encode(), OCI_CONFIG),
                "layers": [
                    self.add_blob(gzip.compress(tar, 1, mtime=0), layer_type) for tar in tars
                ],
            },
            tag=tag,
        )

    def add_index(
        self, *children: Mapping[str, object], tag: str | None = "1"
    ) -> dict[str, object]:
        return self.add_manifest(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}, tag=tag
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await self._read(reader)
            if request is not None:
                self.requests.append(request)
                await self._send(writer, self._reply(request))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(method, path, headers, body)

    def _reply(self, request: Request) -> Reply:
        for index, (part, reply, times) in enumerate(self.script):
            if part in request.path:
                if times == 1:
                    del self.script[index]
                else:
                    self.script[index] = (part, reply, times - 1)
                return reply
        if request.path.startswith("/token"):
            return self._token(request)
        if self.auth and not self._allowed(request):
            return Reply(status=401, headers={"WWW-Authenticate": self._challenge()})
        return self._content(request)

    def _content(self, request: Request) -> Reply:
        manifest = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", request.path)
        if manifest and manifest[2] in self.manifests:
            data, media_type = self.manifests[manifest[2]]
            return Reply(body=data, headers={"Content-Type": media_type})
        blob = re.fullmatch(r"/v2/(.+)/blobs/([^/]+)|/storage/([^/?]+).*", request.path)
        if blob and (blob[2] or blob[3]) in self.blobs:
            data = self.blobs[blob[2] or blob[3]]
            wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
            if wanted and self.ranges:
                start = int(wanted[1])
                span = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return Reply(status=206, body=data[start:], headers={"Content-Range": span})
            return Reply(body=data)
        return Reply(
            status=404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}'
        )

    def _challenge(self) -> str:
        if self.auth == "basic":
            return 'Basic realm="stub"'
        return (
            f'Bearer realm="http://{self.host}/token",service="stub",scope="repository:x:pull,push"'
        )

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(":".join(self.user).encode()).decode()

    def _allowed(self, request: Request) -> bool:
        expected = self._basic() if self.auth == "basic" else "Bearer good"
        return request.headers.get("authorization") == expected

    def _token(self, request: Request) -> Reply:
        if self.auth == "bearer-private" and request.headers.get("authorization") != self._basic():
            return Reply(status=401, body=b'{"details":"incorrect username or password"}')
        return Reply(body=b'{"token":"good","expires_in":300}')

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        if reply.hang:
            await asyncio.sleep(30)
        headers = {"Connection": "close"} | dict(reply.headers)
        if not reply.chunked:
            headers.setdefault("Content-Length", str(len(reply.body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{head}\r\n".encode())
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        if reply.drip_s is not None:
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(reply.drip_s)
        elif reply.gate is not None:
            writer.write(body[:-1])
            await writer.drain()
            await reply.gate.wait()
            writer.write(body[-1:])
        else:
            writer.write(body)
        await writer.drain()


def make_tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, proxies or settings of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for prefix in ("WOODLOT", "CONTAINER"):
        for name in ("HOST", "USER", "TOKEN"):
            monkeypatch.delenv(f"{prefix}_REGISTRY_{name}", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    settings._file_values.cache_clear()


@pytest.fixture
async def stub() -> AsyncGenerator[Stub]:
    registry = Stub()
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=tmp_path / "data", runtime=tmp_path / "run")


@pytest.fixture
async def store(paths: Paths) -> AsyncGenerator[Store]:
    store = Store(paths)
    yield store
    store.close()


@pytest.fixture
def platform() -> Platform:
    return AMD64
