"""Pushes an OCI image layout to a registry, by the distribution-spec and with the standard library alone.

Deliberately not woodlot's own client: what woodlot pulls in a test, something else has pushed.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REF_NAME = "org.opencontainers.image.ref.name"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how to reach a registry; HTTPS if there is a certificate to trust."""

    address: str
    ca: Path | None = None
    credentials: tuple[str, str] | None = None


class Pusher:
    """One connection to a registry; close it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection: http.client.HTTPConnection
        if endpoint.ca is None:
            self._connection = http.client.HTTPConnection(endpoint.address, timeout=TIMEOUT_S)
        else:
            context = ssl.create_default_context(cafile=endpoint.ca)
            self._connection = http.client.HTTPSConnection(
                endpoint.address, timeout=TIMEOUT_S, context=context
            )
        self._headers: dict[str, str] = {}
        if endpoint.credentials:
            token = base64.b64encode(":".join(endpoint.credentials).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def push_blob(self, repository: str, digest: str, data: bytes) -> None:
        """Upload a blob, unless the repository has it."""
        status, _ = self._request("HEAD", f"/v2/{repository}/blobs/{digest}", expect=(200, 404))
        if status == 200:
            return
        _, location = self._request("POST", f"/v2/{repository}/blobs/uploads/", expect=(202,))
        url = urlsplit(location)
        target = f"{url.path}?{url.query}&digest={digest}".replace("?&", "?")
        kind = "application/octet-stream"
        self._request("PUT", target, data, content_type=kind, expect=(201,))

    def push_manifest(self, repository: str, tag: str, media_type: str, data: bytes) -> None:
        """Upload a manifest or index, all of whose parts are there, under a tag or digest."""
        target = f"/v2/{repository}/manifests/{tag}"
        self._request("PUT", target, data, content_type=media_type, expect=(201,))

    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        content_type: str | None = None,
        expect: Collection[int],
    ) -> tuple[int, str]:
        headers = dict(self._headers)
        if content_type:
            headers["Content-Type"] = content_type
        self._connection.request(method, target, body, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status not in expect:
            raise RuntimeError(f"{method} {target}: {response.status} {text.decode()[:500]}")
        return response.status, response.headers.get("Location", "")


def push_layout(
    layout: Path, endpoint: Endpoint, *, names: Collection[str] | None = None
) -> list[str]:
    """Push the images of a layout, all or those of ``names``; their names, such as ``busybox:1.35``."""
    pusher = Pusher(endpoint)
    pushed: list[str] = []
    try:
        for descriptor in json.loads((layout / "index.json").read_bytes())["manifests"]:
            name: str = descriptor["annotations"][REF_NAME]
            if names is None or name in names:
                repository, _, tag = name.rpartition(":")
                _push_manifest(pusher, layout, repository, tag, descriptor)
                pushed.append(name)
    finally:
        pusher.close()
    return pushed


def read_blob(layout: Path, digest: str) -> bytes:
    """A blob of a layout."""
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _push_manifest(
    pusher: Pusher, layout: Path, repository: str, tag: str, descriptor: dict[str, Any]
) -> None:
    data = read_blob(layout, descriptor["digest"])
    manifest = json.loads(data)
    for child in manifest.get("manifests", []):
        _push_manifest(pusher, layout, repository, child["digest"], child)
    config = [manifest["config"]] if "config" in manifest else []
    for part in (*config, *manifest.get("layers", [])):
        pusher.push_blob(repository, part["digest"], read_blob(layout, part["digest"]))
    pusher.push_manifest(repository, tag, descriptor["mediaType"], data)
