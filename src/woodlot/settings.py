"""Every setting: one table that gives name, type, default, environment variable and help.

A value comes from, strongest first: the environment, ``$XDG_CONFIG_HOME/woodlot/config.toml``, the default here.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import cast

from woodlot.errors import ConfigError
from woodlot.units import GIB, parse_size
from woodlot.values import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table."""

    name: str
    parse: Callable[[str], object]
    default: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that overrides it: ``vm.memory`` is ``WOODLOT_VM_MEMORY``."""
        return "WOODLOT_" + self.name.upper().replace(".", "_")


SETTINGS = (
    Setting("container.cpus", float, "0", "CPUs of a container; 0 is the host's, at most 4, or 1 if emulated"),
    Setting("container.memory", parse_size, "1g", "memory of a container"),
    Setting("container.disk", parse_size, "64g", "most a container's writable disk can hold (sparse)"),
    Setting("log.max_size", parse_size, "16m", "size at which a container's log is rotated"),
    Setting("image.max_size", parse_size, str(64 * GIB), "most an image may unpack to"),
    Setting("image.max_ratio", float, "1000", "most a layer may grow when decompressed"),
    Setting("image.max_entries", int, "4000000", "most files an image may hold"),
    Setting("image.concurrent_downloads", int, "3", "blobs fetched at once"),
    Setting("network.subnet", str, "10.86.0.0/24", "IPv4 subnet of the network named default"),
    Setting("network.host_ports", str, "", "ports of the host's loopback that containers may reach, as 5432,8000-8010"),
    Setting("network.subnet_v6", str, "fd01:4579:e05::/64", "IPv6 subnet of the network named default; none for no IPv6"),
    Setting("network.egress", str, "all", "what containers may reach beyond networks that do not say: all, none or allow=…"),
    Setting("registry.default", str, "docker.io", "registry of names that give none"),
    Setting("vm.accel", str, "auto", "auto, kvm, hvf or tcg"),
    Setting("vm.boot", str, "template", "template: go on where a saved machine stood; cold: boot each time"),
    Setting("vm.template_size", parse_size, "4g", "most that saved machines may take on the disk"),
    Setting("vm.template_age", float, "14", "days after which a saved machine that nobody used is removed"),
    Setting("vm.pool", int, "0", "virtual machines that wait for the next containers"),
    Setting("vm.pool_idle", float, "10", "minutes after which one that nobody took leaves"),
    Setting("vm.boot_timeout", float, "60", "seconds until the guest's agent must have answered"),
    Setting("vm.probe_timeout", float, "5", "seconds that an accelerator gets to boot a guest"),
    Setting("kernel.package", str, "linux-image-cloud-{arch}", "Debian package of the default kernel"),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def get_str(name: str) -> str:
    """The text of setting ``name``."""
    return str(_value(name))


def get_int(name: str) -> int:
    """The value of a whole number or size."""
    value = _value(name)
    assert isinstance(value, int)  # noqa: S101 - a wrong call, not a wrong input
    return value


def get_float(name: str) -> float:
    """The value of a number."""
    value = _value(name)
    assert isinstance(value, int | float)  # noqa: S101
    return float(value)


def reread() -> None:
    """Read the file again when it is needed next."""
    _file_values.cache_clear()


def find(name: str) -> Setting:
    """The row of ``name``.

    Raises:
        ConfigError: There is none; the hint tells the nearest.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"there is no setting {name}", hint=_nearest(name))
    return _BY_NAME[name]


def read_text(setting: Setting) -> tuple[str, str]:
    """What a setting is, as text, and where that comes from: a variable, a file, or ``default``."""
    text = os.environ.get(setting.variable)
    if text is not None:
        return text, setting.variable
    text = _file_values().get(setting.name)
    return (setting.default, "default") if text is None else (text, str(config_path()))


def write(name: str, text: str | None) -> None:
    """Set a setting in the file, made if missing; None takes it out. All else in the file stays as it is.

    Raises:
        ConfigError: There is no such setting, it cannot be that, or the file cannot be read or written.
    """
    setting = find(name)
    if text is not None:
        _parse(setting, text, "the command line")
    # Of the file as it is now: what is wrong in it is told before anything is changed.
    _file_values.cache_clear()
    _file_values()
    _file_values.cache_clear()
    import tomlkit

    path = config_path()
    section, _, key = name.partition(".")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = tomlkit.parse(path.read_text() if path.exists() else "")
        table: dict[str, object] = document.setdefault(section, tomlkit.table())
        if text is None:
            table.pop(key, None)
            if not table:
                document.remove(section)
        else:
            table[key] = text
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(tomlkit.dumps(document))  # pyright: ignore[reportUnknownMemberType]
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot change the settings in {path}: {error.strerror}") from error


def _value(name: str) -> object:
    setting = _BY_NAME[name]
    text, source = read_text(setting)
    return _parse(setting, text, source)


def _parse(setting: Setting, text: str, source: str) -> object:
    try:
        return setting.parse(text)
    except (ValueError, ConfigError) as error:
        raise ConfigError(
            f"{setting.name} in {source} cannot be {text!r}", hint=setting.help
        ) from error


def _nearest(name: str) -> str | None:
    import difflib

    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    return f"did you mean {near[0]}?" if near else None


def config_path() -> Path:
    """The settings file; it need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "woodlot/config.toml"


@lru_cache(maxsize=1)
def _file_values() -> dict[str, str]:
    path = config_path()
    # Most have none.
    if not path.exists():
        return {}
    import tomllib

    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the settings in {path}: {error}") from error
    values: dict[str, str] = {}
    for section, entries in tables.items():
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {section} must be a table, as in [container]")
        for key, value in cast("dict[str, object]", entries).items():
            name = f"{section}.{key}"
            if name not in _BY_NAME:
                raise ConfigError(f"{path}: there is no setting {name}", hint=_nearest(name))
            values[name] = str(value)
    return values
