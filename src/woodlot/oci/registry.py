"""A client for registries: manifests and blobs, by tag or digest.

Whatever a registry sends is bounded in size and time. Bytes are only handed on; whoever stores them checks
their digest. Credentials go to the registry that they are for, and to the token server that it names.

Source: OCI distribution-spec, "Pulling manifests" and "Pulling blobs".
"""

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeVar

import httpx

from woodlot.errors import AuthError, IntegrityError, RegistryError, WoodlotError
from woodlot.oci.auth import Credentials
from woodlot.oci.descriptor import Descriptor
from woodlot.oci.digest import Digest, check_bytes, digest_bytes, parse_digest, short
from woodlot.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES
from woodlot.oci.reference import Reference
from woodlot.oci.responses import (
    TransientError,
    error_text,
    printable,
    read_bounded,
    refuse_encoding,
    retry_after_s,
    same_origin,
)
from woodlot.oci.tokens import TokenSource
from woodlot.oci.transport import Retry, Timeouts, choose_scheme, failure, make_client, not_found
from woodlot.values import dataclass

log = logging.getLogger(__name__)

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")

T = TypeVar("T")


class BlobSink(Protocol):
    """Where the bytes of a blob go, one after another."""

    @property
    def offset(self) -> int:
        """Bytes there already: the next one wanted."""
        ...

    async def write(self, data: bytes) -> None:
        """Append."""

    async def restart(self) -> None:
        """Forget everything: ``offset`` is 0 again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedManifest:
    """A manifest or index as the registry sent it, matching ``digest``."""

    data: bytes
    media_type: str | None
    digest: Digest


class RegistryClient:
    """A connection to the registry of one repository; an async context manager that closes it.

    Args:
        reference: Names registry and repository.
        scheme: ``auto``, ``http`` or ``https``.
        credentials: How to get credentials when the registry asks for them; called once, in a thread.
        timeouts: How long the registry may take.

    Raises:
        ConfigError: The scheme, a certificate or a proxy cannot be used.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        scheme: str = "auto",
        credentials: Callable[[str], Credentials | None] | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._reference = reference
        self._timeouts = timeouts or Timeouts()
        self._answered = False
        endpoint = httpx.URL(f"http://{reference.endpoint}")
        chosen = choose_scheme(scheme, endpoint.host)
        self._base = httpx.URL(f"{chosen}://{reference.endpoint}")
        self._client = make_client(str(self._base), self._timeouts)
        self._tokens = TokenSource(self._client, self._base, reference, credentials)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def fetch_manifest(
        self, digest: Digest | None = None, *, max_bytes: int = MAX_MANIFEST_BYTES
    ) -> FetchedManifest:
        """The manifest or index with ``digest``, or the one that the reference names.

        Raises:
            NotFoundError: The registry has no such image.
            IntegrityError: The bytes do not match their digest, or are more than ``max_bytes``.
            AuthError: The registry wants credentials, or others.
            RegistryError: It cannot be reached, or fails.
        """
        reference = self._reference
        wanted = digest or reference.digest
        what = f"{reference.name}@{wanted}" if wanted else str(reference)
        path = f"/v2/{reference.repository}/manifests/{wanted or reference.tag}"

        async def fetch() -> tuple[bytes, httpx.Headers]:
            return await self._document(path, what, max_bytes)

        data, headers = await self._retry(fetch)
        if wanted is not None:
            check_bytes(data, wanted, what=f"manifest of {what}")
        elif claimed := headers.get("Docker-Content-Digest"):
            wanted = parse_digest(claimed, what=f"{reference.registry}: Docker-Content-Digest")
            check_bytes(data, wanted, what=f"manifest of {what}")
        return FetchedManifest(
            data=data,
            media_type=headers.get("Content-Type"),
            digest=wanted or digest_bytes(data),
        )

    async def fetch_blob(
        self,
        descriptor: Descriptor,
        sink: BlobSink,
        *,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Append the missing bytes of a blob to ``sink``, going on after a broken connection.

        Args:
            descriptor: Of the blob; no byte beyond its size is passed on.
            sink: Holds ``descriptor.size`` bytes at the end; their digest is the owner's to check.
            advance: Told the number of bytes that came.

        Raises:
            IntegrityError: The registry sends another number of bytes.
            AuthError: The registry wants credentials, or others.
            RegistryError: It cannot be reached, fails or has no such blob. ``sink`` keeps what came.
        """
        failures = 0
        while sink.offset < descriptor.size:
            before = sink.offset
            try:
                await self._blob_once(descriptor, sink, advance)
            except TransientError as problem:
                # A long download may break often, as long as it moves.
                failures = 1 if sink.offset - before >= CHUNK_BYTES else failures + 1
                await self._pause(problem, failures)

    async def _blob_once(
        self, descriptor: Descriptor, sink: BlobSink, advance: Callable[[int], None]
    ) -> None:
        what = f"blob {short(descriptor.digest)} of {self._reference}"
        path = f"/v2/{self._reference.repository}/blobs/{descriptor.digest}"
        offset = sink.offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(path, what, headers) as response:
            if response.status_code == 416 and offset:
                await _restart(sink, advance)
                raise TransientError(RegistryError(f"cannot resume {what}"), wait_s=0)
            if response.status_code not in {200, 206}:
                raise await self._status_error(response, what)
            refuse_encoding(response, what)
            # A server that ignores Range sends all of it: what is here already is passed over.
            skip = offset if response.status_code == 200 else 0
            await self._check_extent(response, descriptor, sink, advance, what)
            pump = _Pump(sink, descriptor.size, skip, advance, self._timeouts)
            try:
                await pump.run(response, what)
            except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
                raise self._transient(error, response.url, what) from error
            finally:
                # Also when the connection broke or the user did: it need not be fetched again.
                await pump.flush()
        if sink.offset < descriptor.size:
            raise TransientError(
                IntegrityError(
                    f"{what} ended after {sink.offset} of {descriptor.size} bytes",
                    hint="try again; the download goes on where it ended",
                )
            )

    async def _check_extent(
        self,
        response: httpx.Response,
        descriptor: Descriptor,
        sink: BlobSink,
        advance: Callable[[int], None],
        what: str,
    ) -> None:
        length = response.headers.get("Content-Length", "")
        if response.status_code == 200:
            if length.isdecimal() and int(length) != descriptor.size:
                raise IntegrityError(
                    f"{what} has {int(length)} bytes on {self._reference.registry}, "
                    f"but {descriptor.size} by its manifest"
                )
            return
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = match[3] if match else ""
        if match and total != "*" and int(total) != descriptor.size:
            raise IntegrityError(
                f"{what} has {int(total)} bytes on {self._reference.registry}, "
                f"but {descriptor.size} by its manifest"
            )
        if match is None or int(match[1]) != sink.offset:
            await _restart(sink, advance)
            raise TransientError(RegistryError(f"cannot resume {what}"), wait_s=0)

    async def _document(self, path: str, what: str, limit: int) -> tuple[bytes, httpx.Headers]:
        url = self._base.join(path)
        try:
            async with asyncio.timeout(self._timeouts.document_s):
                async with self._get(path, what, {"Accept": ACCEPT}) as response:
                    if response.status_code != 200:
                        raise await self._status_error(response, what)
                    refuse_encoding(response, what)
                    data = await read_bounded(response, limit)
                    if data is None:
                        raise IntegrityError(
                            f"manifest of {what} is larger than {limit} bytes",
                        )
                    return data, response.headers
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            raise self._transient(error, url, what) from error

    @contextlib.asynccontextmanager
    async def _get(
        self, path: str, what: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[httpx.Response]:
        """GET with authentication and redirects; the block reads the body."""
        try:
            # The idle timeout alone would let headers come byte by byte.
            async with asyncio.timeout(self._timeouts.document_s):
                response = await self._follow(self._base.join(path), what, headers)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            raise self._transient(error, self._base, what) from error
        try:
            yield response
        finally:
            await response.aclose()

    async def _follow(
        self, start: httpx.URL, what: str, headers: Mapping[str, str]
    ) -> httpx.Response:
        url, hops, authenticated = start, 0, False
        while True:
            own = same_origin(url, self._base)
            authorization = self._tokens.authorization if own else None
            sent = dict(headers) | ({"Authorization": authorization} if authorization else {})
            response = await self._client.send(
                self._client.build_request("GET", url, headers=sent), stream=True
            )
            self._answered = True
            if response.status_code in _REDIRECTS:
                await response.aclose()
                hops += 1
                url = self._redirect(response, what, hops)
            elif response.status_code == 401 and own and not authenticated:
                challenges = response.headers.get_list("WWW-Authenticate")
                await response.aclose()
                await self._tokens.renew(challenges, failed=authorization, what=what)
                # From the start: a redirect may have been signed for the former request.
                url, hops, authenticated = start, 0, True
            else:
                return response

    def _redirect(self, response: httpx.Response, what: str, hops: int) -> httpx.URL:
        registry = self._reference.registry
        if hops > MAX_REDIRECTS:
            raise RegistryError(f"{registry} redirects {what} more than {MAX_REDIRECTS} times")
        try:
            url = response.url.join(response.headers.get("Location", ""))
        except httpx.InvalidURL as error:
            raise RegistryError(f"{registry} redirects {what} to no valid address") from error
        if (
            url.scheme not in {"http", "https"}
            or not url.host
            or "Location" not in response.headers
        ):
            raise RegistryError(f"{registry} redirects {what} to no valid address")
        if response.url.scheme == "https" and url.scheme == "http":
            raise RegistryError(
                f"{registry} redirects {what} from HTTPS to plain HTTP on {printable(url.host)}"
            )
        # Userinfo in an address would become an Authorization header of the registry's choice.
        return url.copy_with(username=None, password=None) if url.userinfo else url

    def _transient(self, error: Exception, url: httpx.URL, what: str) -> Exception:
        shown = url
        if isinstance(error, httpx.RequestError):
            with contextlib.suppress(RuntimeError):
                shown = error.request.url
        public, retry = failure(error, registry=self._reference.registry, url=shown, what=what)
        again = retry is Retry.ALWAYS or (retry is Retry.IF_IT_ANSWERED_BEFORE and self._answered)
        return TransientError(public) if again else public

    async def _status_error(self, response: httpx.Response, what: str) -> Exception:
        status, registry = response.status_code, self._reference.registry
        said = await error_text(response)
        details = f"HTTP {status} from {printable(response.url.host)}" + (
            f": {said}" if said else ""
        )
        if status == 401:
            return self._tokens.refused(what, details)
        if status == 404 and "/manifests/" in response.url.path:
            error: WoodlotError = not_found(what, registry)
        elif status == 404:
            error = RegistryError(f"{registry} has no {what}", details=details)
        elif status == 403:
            error = AuthError(
                f"{registry} denies access to {what}",
                details=details,
                hint="check that your account may read it",
            )
        elif status == 429:
            error = RegistryError(
                f"{registry} limits how often it may be asked; fetching {what} failed",
                details=details,
                hint="wait, or give credentials: an account has a higher limit",
            )
        elif status == 400 and "HTTPS server" in said:
            error = RegistryError(
                f"{registry} speaks HTTPS, not plain HTTP",
                details=details,
                hint="use --scheme https",
            )
        else:
            error = RegistryError(f"{registry} failed to serve {what}", details=details)
        if status in _TRANSIENT:
            return TransientError(error, wait_s=retry_after_s(response.headers))
        return error

    async def _retry(self, operation: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await operation()
            except TransientError as problem:
                failures += 1
                await self._pause(problem, failures)

    async def _pause(self, problem: TransientError, failures: int) -> None:
        """Wait before the next attempt, or raise what ``problem`` stands for."""
        limits = self._timeouts
        asked = problem.wait_s
        if asked is not None and asked > limits.max_wait_s:
            if isinstance(problem.error, WoodlotError):
                problem.error.hint = f"the registry asks to wait {asked:.0f} s; try again then"
            raise problem.error from problem
        if failures >= limits.attempts:
            raise problem.error from problem
        backoff = limits.backoff_s * 2 ** (failures - 1)
        # Spread, so that many that failed together do not come back together.
        delay = asked if asked is not None else backoff * random.uniform(0.75, 1.25)  # noqa: S311
        log.debug("attempt %d failed, the next one in %.1f s: %s", failures, delay, problem)
        await asyncio.sleep(min(delay, limits.max_wait_s))


async def _restart(sink: BlobSink, advance: Callable[[int], None]) -> None:
    advance(-sink.offset)
    await sink.restart()


class _Pump:
    """Moves a body into a sink in large pieces, and watches size and rate."""

    def __init__(
        self,
        sink: BlobSink,
        size: int,
        skip: int,
        advance: Callable[[int], None],
        timeouts: Timeouts,
    ) -> None:
        self._sink, self._size, self._skip = sink, size, skip
        self._advance, self._timeouts = advance, timeouts
        self._buffer = bytearray()

    async def run(self, response: httpx.Response, what: str) -> None:
        window_start, window_bytes = time.monotonic(), 0
        async for chunk in response.aiter_raw():
            window_bytes += len(chunk)
            elapsed = time.monotonic() - window_start
            if elapsed > self._timeouts.rate_window_s:
                if window_bytes < elapsed * self._timeouts.min_rate:
                    raise TimeoutError("too slow")
                window_start, window_bytes = time.monotonic(), 0
            piece = chunk
            if self._skip:
                piece = chunk[self._skip :]
                self._skip -= len(chunk) - len(piece)
            if self._sink.offset + len(self._buffer) + len(piece) > self._size:
                # Nothing of it can be right: not worth resuming.
                self._buffer.clear()
                raise IntegrityError(
                    f"{what} is longer than the {self._size} bytes of its manifest"
                )
            self._buffer += piece
            self._advance(len(piece))
            if len(self._buffer) >= CHUNK_BYTES:
                await self.flush()

    async def flush(self) -> None:
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            await self._sink.write(data)
