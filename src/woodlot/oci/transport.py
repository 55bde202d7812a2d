"""HTTP to registries: scheme, certificates, proxies, time limits, and what a failure means."""

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from enum import StrEnum, auto
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from woodlot import settings
from woodlot.errors import ConfigError, NotFoundError, RegistryError
from woodlot.values import dataclass

SCHEMES = ("auto", "http", "https")
DOCKER_CERTIFICATES = Path("/etc/docker/certs.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a registry may take, in seconds; nothing waits for ever."""

    connect_s: float = 15.0
    read_idle_s: float = 30.0
    """Without a byte."""
    document_s: float = 60.0
    """For a whole manifest or token."""
    rate_window_s: float = 30.0
    """A blob must come at `min_rate` on average over this."""
    min_rate: int = 1024
    """Bytes per second."""
    attempts: int = 5
    """Requests without progress before giving up."""
    backoff_s: float = 0.5
    """Before the second request; doubled before each further one."""
    max_wait_s: float = 30.0
    """Longest pause that a registry may ask for with Retry-After."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name alone: localhost, 127.0.0.0/8 or ::1."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def choose_scheme(scheme: str, host: str) -> str:
    """``http`` or ``https`` for a registry on ``host`` (without port).

    Plain HTTP is for loopback, where nobody listens in, or for those who ask.

    Raises:
        ConfigError: ``scheme`` is none of `SCHEMES`.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme must be {', '.join(SCHEMES)}, got {scheme!r}")
    if scheme == "auto":
        return "http" if is_loopback(host) else "https"
    return scheme


def certificate_directories(endpoint: str) -> tuple[Path, ...]:
    """Where certificate authorities for ``endpoint`` (host with optional port) are looked for."""
    return (settings.config_path().parent / "certs.d" / endpoint, DOCKER_CERTIFICATES / endpoint)


def find_certificates(endpoint: str) -> list[Path]:
    """The ``*.crt`` files for ``endpoint``."""
    found: list[Path] = []
    for directory in certificate_directories(endpoint):
        try:
            found += sorted(path for path in directory.iterdir() if path.suffix == ".crt")
        except OSError:
            continue
    return found


def make_client(base: str, timeouts: Timeouts) -> httpx.AsyncClient:
    """A client whose only special case is the origin ``base``, such as ``https://ghcr.io``.

    A certificate authority for one registry is trusted for that registry only, not for where it redirects to.

    Raises:
        ConfigError: A certificate or a proxy cannot be used.
    """
    parts = urlsplit(base)
    endpoint, host = parts.netloc, parts.hostname or ""
    mounts: dict[str, httpx.AsyncBaseTransport] = {}
    certificates = find_certificates(endpoint) if parts.scheme == "https" else []
    try:
        context = _default_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        if certificates or is_loopback(host):
            # As curl and Go do, a proxy is never asked for this machine.
            proxy = None if is_loopback(host) else _proxy(parts.scheme, endpoint)
            own = _tls_context(certificates) if certificates else context
            mounts[f"{parts.scheme}://{endpoint}"] = httpx.AsyncHTTPTransport(
                verify=own, proxy=proxy
            )
        return httpx.AsyncClient(
            verify=context,
            mounts=mounts,
            timeout=httpx.Timeout(timeouts.read_idle_s, connect=timeouts.connect_s, pool=None),
            # An encoding would change the bytes that the digest is of, and could be a bomb.
            headers={"User-Agent": "woodlot", "Accept-Encoding": "identity"},
        )
    except (ImportError, ValueError) as error:
        # httpx speaks HTTP to proxies; SOCKS needs a package that we do not depend on.
        raise ConfigError(
            f"the proxy of the environment cannot be used: {error}",
            hint="set HTTPS_PROXY and ALL_PROXY to an http:// proxy, or unset them",
        ) from error


def _proxy(scheme: str, endpoint: str) -> str | None:
    if proxy_bypass(endpoint):
        return None
    proxies = getproxies()
    return proxies.get(scheme) or proxies.get("all")


@lru_cache(maxsize=1)
def _default_context(file: str | None, directory: str | None) -> ssl.SSLContext:
    """The system's authorities; OpenSSL reads the two variables itself, here they tell one result from another."""
    del file, directory
    return _tls_context()


def _tls_context(certificates: list[Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for path in certificates or ():
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot use the certificate {path}: {error}") from error
    defaults = ssl.get_default_verify_paths()
    if not any(os.path.exists(path) for path in (defaults.cafile, defaults.capath) if path):  # noqa: PTH110
        # Python builds without a system store, as python.org's for macOS.
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class Retry(StrEnum):
    """Whether another attempt may help."""

    NEVER = auto()
    IF_IT_ANSWERED_BEFORE = auto()
    """Nobody there may be a restart, or a typing error that one wants to hear of at once."""
    ALWAYS = auto()


def failure(
    error: Exception, *, registry: str, url: httpx.URL, what: str
) -> tuple[RegistryError, Retry]:
    """What a failed request means: the error to raise, and whether to try again."""
    host = url.netloc.decode("ascii", "replace")
    operation = f"cannot fetch {what} from {registry}"
    where = f"{host}" if host != registry else "it"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"{operation}: the certificate of {host} is not trusted ({cause.verify_message})",
                hint="put the certificate of its authority, as NAME.crt, into "
                f"{certificate_directories(host)[0]}, or set SSL_CERT_FILE",
            ), Retry.NEVER
        if isinstance(cause, ssl.SSLError):
            plain = "WRONG_VERSION_NUMBER" in str(cause) or "RECORD_LAYER_FAILURE" in str(cause)
            return RegistryError(
                f"{operation}: TLS with {host} failed ({cause.reason or cause})",
                hint="if the registry speaks plain HTTP, use --scheme http" if plain else None,
            ), Retry.NEVER if plain else Retry.ALWAYS
        if isinstance(cause, socket.gaierror):
            return RegistryError(
                f"{operation}: the name {url.host} cannot be resolved ({cause.strerror})",
                hint="check the registry's name and this machine's DNS",
            ), Retry.ALWAYS if cause.errno == socket.EAI_AGAIN else Retry.NEVER
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return RegistryError(
                f"{operation}: {where} refuses connections",
                details=f"{url.scheme}://{host}",
                hint="check that the registry runs, and its port",
            ), Retry.IF_IT_ANSWERED_BEFORE
    return _other_failure(error, operation=operation, where=where), Retry.ALWAYS


def _other_failure(error: Exception, *, operation: str, where: str) -> RegistryError:
    if isinstance(error, httpx.ProxyError):
        return RegistryError(
            f"{operation}: the proxy failed ({error})", hint="check HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(error, httpx.ConnectTimeout):
        return RegistryError(f"{operation}: no connection to {where} in time")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return RegistryError(f"{operation}: {where} stopped answering")
    return RegistryError(f"{operation}: {str(error) or type(error).__name__}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions  # pyright: ignore[reportUnknownMemberType]
        pending += [link for link in (current.__context__, current.__cause__) if link is not None]


def not_found(what: str, registry: str) -> NotFoundError:
    """The registry answered, and has no such image."""
    return NotFoundError(
        f"no such image: {what} is not on {registry}", hint="check the name and the tag"
    )
