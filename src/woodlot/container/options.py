"""What people write on the command line, made into values of a container's spec."""

import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from woodlot.container.spec import Rlimit, Tmpfs
from woodlot.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAX_ENV_FILE_BYTES = 16 << 20
_UNLIMITED = 2**64 - 1
# glibc keeps the first two real-time signals for itself; Docker counts so, too.
_SIGRTMIN, _SIGRTMAX = 34, 64
_REALTIME = re.compile(r"(?:SIG)?RT(?P<end>MIN|MAX)(?P<offset>[+-][0-9]{1,2})?")
_RLIMITS = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_name(name: str, *, what: str = "--name") -> str:
    """A container's name: 1 to 63 letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit.

    Raises:
        ConfigError: It is no such name.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{what} cannot be {name!r}",
            hint="use up to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    return name


def parse_env(assignments: Iterable[str], *, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables from ``NAME=value`` or ``NAME``, which takes the value it has here; None without one.

    Raises:
        ConfigError: A name is empty.
    """
    variables: dict[str, str | None] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise ConfigError(f"-e cannot be {text!r}", hint="write NAME=value or NAME")
        variables[name] = value if equals else environ.get(name)
    return variables


def read_env_file(path: Path, *, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of a file: one a line as `parse_env` takes it.

    Empty lines, ``#`` comments and names that have no value here are skipped.

    Raises:
        ConfigError: The file cannot be read, or a line is no assignment.
    """
    try:
        # Not read_text at once: the file may be a pipe that never ends.
        with path.open("rb") as file:
            data = file.read(_MAX_ENV_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--env-file {path}: {error.strerror}") from error
    if len(data) > _MAX_ENV_FILE_BYTES:
        raise ConfigError(f"--env-file {path}: larger than {_MAX_ENV_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"--env-file {path}: not UTF-8: {error.reason}") from error
    # Not splitlines, which would also split a value at U+2028, a form feed or a lone CR.
    lines = [line.removesuffix("\r").lstrip() for line in text.removeprefix("\ufeff").split("\n")]
    assignments = [line for line in lines if line and not line.startswith("#")]
    for line in assignments:
        name = line.partition("=")[0]
        if not name or any(char.isspace() for char in name) or "\0" in line:
            raise ConfigError(f"--env-file {path}: {line!r} is not NAME=value")
    variables = parse_env(assignments, environ=environ)
    return {name: value for name, value in variables.items() if value is not None}


def merge_env(
    image: Sequence[str], files: Iterable[Path], flags: Iterable[str], *, tty: bool, hostname: str
) -> tuple[str, ...]:
    """The process's environment: Docker's defaults, then the image's, the files', the flags', the last one wins.

    A flag with a name that has no value here takes the variable away.
    """
    environ = os.environ
    variables: dict[str, str | None] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        variables["TERM"] = "xterm"
    # A bare name in an image would hand it a variable of the host's.
    for text in image:
        name, equals, value = text.partition("=")
        if equals and name:
            variables[name] = value
    for path in files:
        variables |= read_env_file(path, environ=environ)
    variables |= parse_env(flags, environ=environ)
    return tuple(f"{name}={value}" for name, value in variables.items() if value is not None)


def parse_ulimit(text: str) -> Rlimit:
    """A limit from ``type=soft[:hard]``; ``-1`` and ``unlimited`` are no limit.

    Raises:
        ConfigError: There is no such type, or soft is more than hard.
    """
    kind, equals, values = text.partition("=")
    if kind not in _RLIMITS or not equals:
        raise ConfigError(
            f"--ulimit cannot be {text!r}",
            hint=f"write TYPE=SOFT[:HARD] with a type of {', '.join(sorted(_RLIMITS))}",
        )
    soft_text, colon, hard_text = values.partition(":")
    soft = _limit(soft_text, text)
    hard = _limit(hard_text, text) if colon else soft
    if soft > hard:
        raise ConfigError(f"--ulimit {text}: the soft limit is above the hard limit")
    return Rlimit(type=kind, soft=soft, hard=hard)


def parse_ulimits(texts: Iterable[str]) -> tuple[Rlimit, ...]:
    """Limits, each type once.

    Raises:
        ConfigError: As `parse_ulimit`, or a type comes twice.
    """
    limits = [parse_ulimit(text) for text in texts]
    kinds = [limit.type for limit in limits]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ConfigError(f"--ulimit {kind} is given twice")
    return tuple(limits)


def _limit(value: str, whole: str) -> int:
    if value in ("-1", "unlimited"):
        return _UNLIMITED
    # 20 digits hold the largest; int() refuses some thousands of them with an error of its own.
    if re.fullmatch("[0-9]{1,20}", value) is None or int(value) > _UNLIMITED:
        raise ConfigError(f"--ulimit {whole}: {value!r} is not a limit")
    return int(value)


def parse_tmpfs(text: str) -> Tmpfs:
    """A memory filesystem from ``/path[:option,…]``; the path comes without ``.`` and needless slashes.

    Raises:
        ConfigError: The path is not absolute or is the root.
    """
    destination, _, options = text.partition(":")
    names = [name for name in destination.split("/") if name not in ("", ".")]
    if not destination.startswith("/") or ".." in names or not names:
        raise ConfigError(
            f"--tmpfs must be an absolute path below /, got {destination!r}",
            hint="for example --tmpfs /scratch:size=64m",
        )
    return Tmpfs(
        destination="/" + "/".join(names),
        options=tuple(option for option in options.split(",") if option),
    )


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels from ``key=value`` or ``key``.

    Raises:
        ConfigError: A key is empty or too long.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or len(key) > 128 or len(text) > 4096:
            raise ConfigError(
                f"--label {text[:60]!r} is not valid",
                hint="write KEY=VALUE, the key at most 128 characters, all at most 4096",
            )
        labels[key] = value
    return labels


def read_labels(given: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """Labels as a program gives them: by their keys, or as texts that `parse_labels` takes.

    Raises:
        ConfigError: A key is empty or too long, or has an ``=`` in it.
    """
    if not isinstance(given, Mapping):
        return parse_labels(given)
    labels = cast("Mapping[str, str]", given)
    if wrong := [key for key in labels if "=" in key]:
        raise ConfigError(f"a label's key cannot be {wrong[0][:60]!r}")
    return parse_labels(f"{key}={value}" for key, value in labels.items())


def parse_signal(text: str) -> int:
    """A signal's number from its name, with or without SIG, or its number.

    Real-time signals, ``RTMIN+3`` or ``RTMAX-2``, count as the C library does, from 34 to 64.

    Raises:
        ConfigError: There is no such signal.
    """
    name = text.strip().upper()
    realtime = _REALTIME.fullmatch(name)
    if re.fullmatch("[0-9]{1,2}", name):
        number = int(name)
    elif realtime is not None:
        offset = int(realtime["offset"] or 0)
        number = _SIGRTMIN + offset if realtime["end"] == "MIN" else _SIGRTMAX + offset
    else:
        number = signal.Signals.__members__.get(f"SIG{name.removeprefix('SIG')}", 0)
    if number not in signal.valid_signals():
        raise ConfigError(f"there is no signal {text!r}", hint="for example TERM or 15")
    return int(number)


def signal_name(number: int) -> str:
    """The name of a signal, from which `parse_signal` gives its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - _SIGRTMIN}"


def join_user(user: str | None, uid: int | None, gid: int | None) -> str | None:
    """One value from ``--user`` and ``--uid``/``--gid``, which may not both be given."""
    if uid is None and gid is None:
        return user
    if user:
        raise ConfigError("--user conflicts with --uid and --gid", hint="give one or the other")
    return f"{uid or 0}" if gid is None else f"{uid or 0}:{gid}"
