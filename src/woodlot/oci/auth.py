"""Credentials for registries and the challenges that ask for them.

Source: RFC 9110 §11 (challenges); distribution, "Token Authentication Specification"; Docker's ``config.json``
and its credential helpers' protocol. All of it is only read, never written.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import cast

from woodlot import process
from woodlot.errors import AuthError
from woodlot.oci.reference import DOCKER_HUB
from woodlot.values import dataclass

HELPER_TIMEOUT_S = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_MAX_HEADER = 16 << 10
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a bare word
# Linear in the length of what a stranger sends: no two parts can match the same character.
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$|(?=,))")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What to tell one registry; never shown, not even by ``repr``."""

    username: str
    password: str = field(repr=False)
    identity_token: bool = False
    """The password is an OAuth2 refresh token rather than a password."""
    source: str
    """Where they came from, for messages."""

    @property
    def basic(self) -> str:
        """The value of a Basic ``Authorization`` header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header."""

    scheme: str
    """Lower-case."""
    parameters: Mapping[str, str]
    """Names in lower case."""


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges in ``WWW-Authenticate`` headers; what cannot be read ends the list."""
    challenges: list[Challenge] = []
    for header in headers:
        text, position = header[:_MAX_HEADER], 0
        while match := _SCHEME.match(text, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                position = parameter.end()
                quoted = parameter[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter[3]
                parameters.setdefault(parameter[1].lower(), value)
            challenges.append(Challenge(scheme=match[1].lower(), parameters=parameters))
    return challenges


def find_credentials(registry: str) -> Credentials | None:
    """The user's credentials for ``registry`` (host with optional port), or None.

    Looked for in ``WOODLOT_REGISTRY_{HOST,USER,TOKEN}``, then ``CONTAINER_REGISTRY_…``, then in Docker's
    ``config.json``: the helper of this registry, its entry in ``auths``, the store for all. Blocks while a
    helper runs.

    Raises:
        AuthError: A helper fails, or a file cannot be read.
    """
    for prefix in ("WOODLOT", "CONTAINER"):
        values = [os.environ.get(f"{prefix}_REGISTRY_{name}") for name in ("HOST", "USER", "TOKEN")]
        host, user, token = values
        if host and token and _same_host(host, registry):
            return Credentials(
                username=user or "", password=token, source=f"{prefix}_REGISTRY_TOKEN"
            )
    return _from_docker(registry)


def docker_config_path() -> Path:
    """Docker's configuration of this user; it need not exist."""
    base = os.environ.get("DOCKER_CONFIG")
    return (Path(base) if base else Path.home() / ".docker") / "config.json"


def _from_docker(registry: str) -> Credentials | None:
    path = docker_config_path()
    try:
        document: object = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AuthError(
            f"cannot read the credentials in {path}: {error}", hint="repair the file, or remove it"
        ) from error
    config = _members(document)
    for server, helper in _members(config.get("credHelpers")).items():
        if _same_host(server, registry) and isinstance(helper, str):
            return _from_helper(helper, registry, server)
    for server, entry in _members(config.get("auths")).items():
        if _same_host(server, registry) and (found := _from_entry(_members(entry), path)):
            return found
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        server = "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry
        return _from_helper(store, registry, server)
    return None


def _members(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _from_entry(entry: dict[str, object], path: Path) -> Credentials | None:
    user, password = entry.get("username"), entry.get("password")
    auth, token = entry.get("auth"), entry.get("identitytoken")
    if isinstance(auth, str) and auth:
        try:
            pair = base64.b64decode(auth, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise AuthError(f"{path} has an entry whose auth is not base64") from error
        user, _, password = pair.partition(":")
    if isinstance(token, str) and token:
        name = user if isinstance(user, str) else ""
        return Credentials(username=name, password=token, identity_token=True, source=str(path))
    if isinstance(user, str) and isinstance(password, str) and (user or password):
        return Credentials(username=user, password=password, source=str(path))
    return None


def _from_helper(name: str, registry: str, server: str) -> Credentials | None:
    if not _HELPER_NAME.fullmatch(name):
        raise AuthError(
            f"{docker_config_path()}: {name[:100]!r} is not the name of a credential helper"
        )
    program = f"docker-credential-{name}"
    # The protocol wants the server on the helper's stdin; the words reach the shell as arguments only.
    argv = ["/bin/sh", "-c", 'printf %s "$2" | "$1" get', "sh", program, server]
    try:
        # Helpers find their keychain, agent or cloud profile through the environment.
        done = process.run(argv, timeout_s=HELPER_TIMEOUT_S, env=dict(os.environ), error=AuthError)
    except AuthError as error:
        if "credentials not found" in (error.details or ""):
            return None
        raise AuthError(
            f"the credential helper {program} failed for {registry}",
            details=error.details,
            hint=f"see {docker_config_path()}, or set WOODLOT_REGISTRY_HOST, _USER and _TOKEN",
        ) from error
    try:
        answer = _members(json.loads(done.stdout))
        user, secret = answer.get("Username"), answer.get("Secret")
    except (ValueError, RecursionError):
        # Without its cause: that would quote the answer, which may hold the secret.
        raise AuthError(f"the credential helper {program} gave no usable answer") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise AuthError(f"the credential helper {program} gave no usable answer")
    if not secret:
        return None
    return Credentials(
        username=user, password=secret, identity_token=user == "<token>", source=program
    )


def _same_host(configured: str, registry: str) -> bool:
    host = configured.strip().lower()
    host = host.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in {"index.docker.io", "registry-1.docker.io"}:
        host = DOCKER_HUB
    return host == registry.lower()
