"""Reading what registries answer, within limits."""

import email.utils
import json
import time
from typing import cast

import httpx

from woodlot.errors import RegistryError

MAX_ERROR_BYTES = 64 << 10


class TransientError(Exception):
    """An attempt that failed in a way another may not; ``error`` is for when none is left.

    Attributes:
        error: What to raise when no attempt is left.
        wait_s: Seconds that the registry asks to wait; None when it does not say.
    """

    def __init__(self, error: Exception, *, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether both addresses are of one scheme, host and port."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def printable(text: str, *, limit: int = 300) -> str:
    """A stranger's ``text``, made safe for a terminal and not too long."""
    safe = "".join(char if char.isprintable() else "?" for char in text[:limit])
    return safe + ("…" if len(text) > limit else "")


async def read_bounded(response: httpx.Response, limit: int) -> bytes | None:
    """The whole body, or None if it is longer than ``limit`` bytes."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        return None
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


def refuse_encoding(response: httpx.Response, what: str) -> None:
    """An encoded body has other bytes than those of the digest.

    Raises:
        RegistryError: The body is encoded, though we asked for it as it is.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise RegistryError(
            f"{printable(response.url.host)} sends {what} with the encoding {printable(encoding)}"
        )


async def error_text(response: httpx.Response) -> str:
    """What the registry says about its failure, in one printable line; empty if nothing."""
    try:
        data = await read_bounded(response, MAX_ERROR_BYTES)
    except httpx.HTTPError:
        return ""
    if not data:
        return ""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return printable(data.decode("utf-8", "replace").strip())
    if not isinstance(document, dict):
        return ""
    members = cast("dict[str, object]", document)
    errors = members.get("errors")
    said: list[str] = []
    for item in cast("list[object]", errors)[:5] if isinstance(errors, list) else ():
        if isinstance(item, dict):
            entry = cast("dict[str, object]", item)
            parts = (entry.get("code"), entry.get("message"))
            said.append(" ".join(part for part in parts if isinstance(part, str)))
    for name in ("error_description", "details", "message", "error"):
        value = members.get(name)
        if not said and isinstance(value, str):
            said.append(value)
    return printable("; ".join(said))


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds that ``Retry-After`` asks for, as a number or a date; None without one."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
