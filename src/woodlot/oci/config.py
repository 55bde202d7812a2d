"""The configuration of an image: what it runs and how.

Source: OCI image-spec, config.md; Docker's image-spec v1.2 for ``Healthcheck`` and ``Shell``.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from woodlot.errors import IntegrityError
from woodlot.oci.digest import Digest, parse_digest
from woodlot.oci.jsonvalue import JsonObject, parse_object
from woodlot.oci.manifest import MAX_LAYERS
from woodlot.oci.platform import Platform, make_platform
from woodlot.values import dataclass

MAX_CONFIG_BYTES = 8 << 20
DEFAULT_SHELL = ("/bin/sh", "-c")
_MANY = 4096
# Of the machine that a builder of Docker's ran, or of another image.
_NOT_INHERITED = ("container", "container_config", "docker_version", "id", "parent")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How one layer came about."""

    created: datetime | None
    created_by: str
    comment: str
    empty_layer: bool
    author: str = ""


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
    shell: tuple[str, ...] = ()
    """What runs a command that is a text; empty for `DEFAULT_SHELL`."""
    on_build: tuple[str, ...] = ()
    """Instructions for whoever builds on it."""
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
        shell=config.texts("Shell", limit=_MANY),
        on_build=config.texts("OnBuild", limit=_MANY),
        created=_time(document.text_or_none("created")),
        author=document.text_or_none("author") or "",
        history=tuple(
            _history(item, f"configuration of {what}: history[{index}]")
            for index, item in enumerate(document.items("history", limit=_MANY))
        ),
    )


def extend_config(base: bytes, config: ImageConfig) -> bytes:
    """The document of a configuration that is made from another.

    Args:
        base: The other's document, which `parse_config` has read. What `ImageConfig` does not tell stays as it is there,
            and so do the entries of its history.
        config: With its history after the other's.
    """
    document: dict[str, Any] = json.loads(base)
    for name in (*_NOT_INHERITED, "author"):
        document.pop(name, None)
    if config.author:
        document["author"] = config.author
    runs: dict[str, object] = dict(document.get("config") or {})
    values: dict[str, object] = {
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "User": config.user,
        "WorkingDir": config.workdir,
        "Labels": dict(config.labels),
        "Volumes": {path: {} for path in config.volumes},
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "StopSignal": config.stop_signal,
        "Healthcheck": config.healthcheck,
        "Shell": config.shell,
        "OnBuild": config.on_build,
    }
    for name, value in values.items():
        runs.pop(name, None)
        if value:
            runs[name] = value
    history: list[object] = document.get("history") or []
    added = config.history[len(history) :]
    document |= {
        "created": _rfc3339(config.created),
        "config": runs,
        "rootfs": {"type": "layers", "diff_ids": config.diff_ids},
        "history": [*history, *map(_history_entry, added)],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _history_entry(entry: History) -> dict[str, object]:
    values: dict[str, object] = {
        "created": _rfc3339(entry.created),
        "created_by": entry.created_by,
        "author": entry.author,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }
    return {name: value for name, value in values.items() if value}


def _rfc3339(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None


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
        author=item.text_or_none("author") or "",
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
