"""Names of images: ``[REGISTRY/]REPOSITORY[:TAG][@DIGEST]``.

Source: OCI distribution-spec, "Pulling manifests", and the reference grammar of CNCF distribution, whose
defaults (docker.io, library/, latest) people expect.
"""

import re

from woodlot import settings
from woodlot.errors import ConfigError, IntegrityError
from woodlot.oci.digest import Digest, parse_digest, short
from woodlot.values import dataclass

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
UNNAMED = "<none>"
"""In the place of a name, where there is none."""
MAX_REPOSITORY = 255
MAX_TAG = 128
# Registry, repository and tag; a digest comes on top.
MAX_NAME = 384

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(
    rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_BARE_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The name of an image: exactly one of ``tag`` and ``digest`` is given."""

    registry: str
    """Host with an optional port, ``docker.io`` for Docker Hub; empty for what is unnamed."""
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        """The canonical name, with nothing left to a default."""
        return f"{self.name}{self._suffix}"

    @property
    def is_unnamed(self) -> bool:
        """Whether it stands for an image that is known by its digest alone: none that a registry could have."""
        return self.repository == UNNAMED

    @property
    def name(self) -> str:
        """Registry and repository."""
        return self.repository if self.is_unnamed else f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The short name that people type: without the default registry and ``library/``; of the unnamed, the id."""
        if self.is_unnamed:
            return short(self.digest or "")
        return f"{self.familiar_name}{self._suffix}"

    @property
    def familiar_name(self) -> str:
        """As `familiar`, without tag and digest."""
        default = settings.get_str("registry.default")
        if self.registry != default:  # as also of the unnamed
            return self.name
        short_name = self.repository
        if default == DOCKER_HUB:
            rest = short_name.removeprefix("library/")
            short_name = rest if "/" not in rest else short_name
        head, slash, _ = short_name.partition("/")
        # A shortened name must be read back as the same one.
        if (slash and _is_registry(head)) or (not slash and _BARE_HEX.fullmatch(short_name)):
            return self.name
        return short_name

    @property
    def _suffix(self) -> str:
        return f"@{self.digest}" if self.digest is not None else f":{self.tag}"

    @property
    def endpoint(self) -> str:
        """Host and port that answer for the registry."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry


def unnamed(digest: Digest) -> Reference:
    """In place of the name that the image with ``digest`` lacks."""
    return Reference(registry="", repository=UNNAMED, digest=digest)


def parse_reference(text: str, *, default_registry: str | None = None) -> Reference:
    """The image that ``text`` names; a digest wins over a tag beside it.

    Args:
        text: Such as ``alpine``, ``ghcr.io/org/app:1.2`` or ``localhost:5000/app@sha256:…``.
        default_registry: Registry of a name without one; None takes the setting ``registry.default``.

    Raises:
        ConfigError: ``text`` is not such a name; the hint says what to change.
    """
    if not text:
        raise ConfigError(
            "the name of the image is empty", hint="give a name such as alpine:latest"
        )
    if "://" in text:
        scheme, _, rest = text.partition("://")
        raise _invalid(text, f"it starts with {scheme}://", f"leave that out: {rest[:200]}")
    if _BARE_HEX.fullmatch(text):
        raise _invalid(
            text, "64 hex digits could be an id", f"name a repository: NAME@sha256:{text}"
        )
    if len(text) > MAX_NAME + len("@sha512:") + 128:
        raise _invalid(text, f"it is longer than {MAX_NAME} characters")
    rest, at, digest_text = text.partition("@")
    digest = _digest(text, digest_text) if at else None
    if digest is not None and rest == UNNAMED:
        return unnamed(digest)
    rest, tag = _split_tag(text, rest)
    registry, repository = _split_registry(text, rest, default_registry)
    _check_repository(text, repository)
    if len(registry) + 1 + len(repository) + 1 + len(tag or DEFAULT_TAG) > MAX_NAME:
        raise _invalid(text, f"it is longer than {MAX_NAME} characters")
    if digest is not None:
        return Reference(registry=registry, repository=repository, digest=digest)
    return Reference(registry=registry, repository=repository, tag=tag or DEFAULT_TAG)


def _digest(text: str, digest: str) -> Digest:
    try:
        return parse_digest(digest)
    except IntegrityError as error:
        raise _invalid(text, error.message) from error


def _split_tag(text: str, rest: str) -> tuple[str, str | None]:
    # A colon before the last slash belongs to the registry's port.
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if not colon:
        return rest, None
    if len(tag) > MAX_TAG:
        raise _invalid(text, f"its tag is longer than {MAX_TAG} characters")
    if not _TAG.fullmatch(tag):
        raise _invalid(
            text, f"{tag!r} is not a tag", "a tag has letters, digits, _, . and -, not first . or -"
        )
    return f"{head}{slash}{last}", tag


def _is_registry(component: str) -> bool:
    # A capital alone makes no host here: Org/app is more often a slip than a machine called Org.
    return "." in component or ":" in component or component.lower() == "localhost"


def _split_registry(text: str, rest: str, default: str | None) -> tuple[str, str]:
    head, slash, tail = rest.partition("/")
    if slash and _is_registry(head):
        match = _HOST.fullmatch(head)
        if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
            raise _invalid(text, f"{head!r} is not a registry's host with an optional port")
        registry, repository = head.lower(), tail
    else:
        registry, repository = default or settings.get_str("registry.default"), rest
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_repository(text: str, repository: str) -> None:
    if len(repository) > MAX_REPOSITORY:
        raise _invalid(text, f"its repository is longer than {MAX_REPOSITORY} characters")
    if all(_PATH.fullmatch(part) for part in repository.split("/")):
        return
    lower = text.partition("@")[0].lower()
    if repository != repository.lower() and _is_valid(lower):
        raise _invalid(text, "a repository is lower-case", f"did you mean {lower}?")
    raise _invalid(
        text,
        f"{repository[:200]!r} is not a repository",
        "a repository has lower-case letters, digits and single separators . _ - / between them",
    )


def _is_valid(text: str) -> bool:
    try:
        parse_reference(text)
    except ConfigError:
        return False
    return True


def _invalid(text: str, why: str, hint: str | None = None) -> ConfigError:
    shown = text if len(text) <= 200 else text[:200] + "…"
    return ConfigError(f"{shown!r} is not the name of an image: {why}", hint=hint)
