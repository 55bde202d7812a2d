"""The configuration of an image: what it runs and how.

Source: OCI image-spec, config.md; Docker's image-spec v1.2 for ``Healthcheck`` and ``Shell``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from woodlot.errors import IntegrityError
from woodlot.oci.digest import Digest, parse_digest
from woodlot.oci.jsonvalue import JsonObject, parse_object
from woodlot.oci.manifest import MAX_LAYERS
from woodlot.oci.platform import Platform, make_platform

MAX_CONFIG_BYTES = 8 << 20
_MANY = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How one layer came about."""

    created: datetime | None
    created_by: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's configuration, parsed; strings are the image's and not to be trusted."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    """Digests of the uncompressed layers, base first."""
    env: tuple[str, ...] = ()
    """``NAME=value`` each."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str]
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    """``PORT[/PROTOCOL]`` each."""
    stop_signal: str = ""
    healthcheck: Mapping[str, object] | None = None
    """As it stands in the image, unchecked."""
    created: datetime | None = None
    author: str = ""
    history: tuple[History, ...] = ()


def parse_config(data: bytes, *, what: str) -> ImageConfig:
    """The configuration in ``data``; unknown members are ignored.

    Args:
        data: At most `MAX_CONFIG_BYTES`, already checked against their digest.
        what: The image, for errors.

    Raises:
        IntegrityError: Malformed.
    """
    document = parse_object(data, what=f"configuration of {what}")
    rootfs = document.object_or_empty("rootfs")
    if rootfs.text_or_none("type") not in {None, "layers"}:
        raise IntegrityError(f"configuration of {what}: rootfs.type must be layers")
    config = document.object_or_empty("config")
    healthcheck = config.members.get("Healthcheck")
    return ImageConfig(
        platform=make_platform(
            document.text_or_none("os") or "linux",
            document.text_or_none("architecture") or "unknown",
            document.text_or_none("variant"),
        ),
        diff_ids=tuple(
            parse_digest(text, what=f"configuration of {what}: rootfs.diff_ids[{index}]")
            for index, text in enumerate(rootfs.texts("diff_ids", limit=MAX_LAYERS))
        ),
        # A name alone would inherit the host's value: not for an image to ask.
        env=tuple(entry for entry in config.texts("Env", limit=_MANY) if entry.find("=") > 0),
        entrypoint=_command(config, "Entrypoint"),
        cmd=_command(config, "Cmd"),
        user=config.text_or_none("User") or "",
        workdir=config.text_or_none("WorkingDir") or "",
        labels=config.text_map("Labels", limit=_MANY),
        volumes=config.keys("Volumes", limit=_MANY),
        exposed_ports=config.keys("ExposedPorts", limit=1 << 16),
        stop_signal=config.text_or_none("StopSignal") or "",
        healthcheck=(
            JsonObject.of(healthcheck, what=f"configuration of {what}: Healthcheck").members
            if healthcheck is not None
            else None
        ),
        created=_time(document.text_or_none("created")),
        author=document.text_or_none("author") or "",
        history=tuple(
            _history(item, f"configuration of {what}: history[{index}]")
            for index, item in enumerate(document.items("history", limit=_MANY))
        ),
    )


def _command(config: JsonObject, name: str) -> tuple[str, ...]:
    # Very old builders wrote a lone string.
    if isinstance(config.members.get(name), str):
        return (config.text(name),)
    return config.texts(name, limit=1 << 16)


def _history(value: object, what: str) -> History:
    item = JsonObject.of(value, what=what)
    return History(
        created=_time(item.text_or_none("created")),
        created_by=item.text_or_none("created_by") or "",
        comment=item.text_or_none("comment") or "",
        empty_layer=item.members.get("empty_layer") is True,
    )


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        # Shown to people only: not worth refusing an image.
        return None
    # The year 1 with an offset cannot be converted to UTC.
    return time if time.tzinfo is not None and time.year > 1 else None
