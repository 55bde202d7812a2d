"""Instructions of a Dockerfile that change an image's configuration, as ``commit --change`` takes them.

Source: Docker's Dockerfile reference; where that is silent, BuildKit's parser and its lexer of words.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from woodlot.container import options
from woodlot.container.words import expand, split
from woodlot.errors import ConfigError
from woodlot.oci.config import DEFAULT_SHELL, ImageConfig
from woodlot.units import parse_duration
from woodlot.values import dataclass

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_NO_TRIGGER = frozenset(("ONBUILD", "FROM", "MAINTAINER"))
_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_LEAST_S = 0.001


def change(config: ImageConfig, texts: Iterable[str]) -> ImageConfig:
    """The configuration after these instructions, one after the other.

    An ``ENTRYPOINT`` takes away the command, unless that is one of the changes: what an entrypoint is given as its
    arguments was meant for another.

    Raises:
        ConfigError: One is no instruction, none for this, or not complete.
    """
    given = False
    for text in texts:
        for line in re.sub(r"\\[ \t]*\n", "", text).splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            instruction = _Instruction(line.strip())
            name = instruction.name
            config = instruction.apply(config)
            given = given or name == "CMD"
            if name == "ENTRYPOINT" and config.entrypoint and not given:
                config = replace(config, cmd=())
    return config


@dataclass(frozen=True, slots=True)
class _Instruction:
    """One line: a name, and what is to be done."""

    line: str

    @property
    def name(self) -> str:
        return self.line.split(maxsplit=1)[0].upper()

    @property
    def rest(self) -> str:
        return self.line[len(self.name) :].strip()

    def apply(self, config: ImageConfig) -> ImageConfig:
        does = _INSTRUCTIONS.get(self.name)
        if does is None:
            raise ConfigError(
                f"--change cannot be {self.line!r}", hint=f"one of {', '.join(_INSTRUCTIONS)}"
            )
        if not self.rest:
            raise self.wrong("it says nothing")
        try:
            return does(self, config)
        except ValueError as error:
            raise self.wrong(str(error)) from error

    def wrong(self, why: str) -> ConfigError:
        return ConfigError(f"--change {self.line!r}: {why}")

    # What it is given, in the ways that instructions have.

    def text(self, config: ImageConfig) -> str:
        """All of it as one text, which is not empty."""
        found = expand(self.rest, _variables(config))
        if not found:
            raise self.wrong("what it names is empty")
        return found

    def pairs(self, config: ImageConfig) -> dict[str, str]:
        """``NAME=value …``, or as of old a name and a value that is the rest of the line."""
        variables = _variables(config)
        words = split(self.rest)
        if "=" not in words[0]:
            name, _, value = self.rest.partition(" ")
            if not value.strip():
                raise self.wrong("write NAME=value")
            return {expand(name, variables): expand(value.strip(), variables)}
        pairs: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            name = expand(name, variables)
            if not name or not equals:
                raise self.wrong(f"{word!r} is not NAME=value")
            pairs[name] = expand(value, variables)
        return pairs

    def list(self) -> tuple[str, ...] | None:
        """A JSON array of texts, or None for what is not JSON."""
        return _parse_list(self.rest, self)

    def command(self, config: ImageConfig) -> tuple[str, ...]:
        """A program with its arguments, or a text for the shell."""
        found = self.list()
        return (*(config.shell or DEFAULT_SHELL), self.rest) if found is None else found


def _parse_list(text: str, instruction: _Instruction) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    items = cast("Sequence[object]", value)
    if not all(isinstance(item, str) for item in items):
        raise instruction.wrong("only texts can be in its array")
    return tuple(str(item) for item in items)


def _variables(config: ImageConfig) -> Mapping[str, str]:
    return dict(text.split("=", 1) for text in config.env)


def _cmd(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    return replace(config, cmd=instruction.command(config))


def _entrypoint(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    return replace(config, entrypoint=instruction.command(config))


def _env(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    variables = {**_variables(config), **instruction.pairs(config)}
    return replace(config, env=tuple(f"{name}={value}" for name, value in variables.items()))


def _expose(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    ports = set(config.exposed_ports)
    for word in split(instruction.rest):
        found = _PORT.fullmatch(expand(word, _variables(config)))
        first = int(found[1]) if found else 0
        last = int(found[2] or first) if found else 0
        if found is None or not 1 <= first <= last <= 65535:
            raise instruction.wrong(f"{word!r} is no port; write 80, 53/udp or 8000-8010")
        protocol = (found[3] or "tcp").lower()
        ports |= {f"{number}/{protocol}" for number in range(first, last + 1)}
    return replace(config, exposed_ports=tuple(sorted(ports)))


def _healthcheck(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    durations: dict[str, object] = {}
    rest = instruction.rest
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "retries":
            if not value.isdecimal() or int(value) < 1:
                raise instruction.wrong("--retries must be a number, at least 1")
            durations["Retries"] = int(value)
            continue
        if name not in _DURATIONS:
            raise instruction.wrong(f"there is no option {flag!r}")
        seconds = parse_duration(value, what=f"--change HEALTHCHECK --{name}")
        if 0 < seconds < _LEAST_S:
            raise instruction.wrong(f"--{name} must be at least 1ms")
        durations[_DURATIONS[name]] = round(seconds * 1e9)
    kind, _, command = rest.partition(" ")
    command = command.strip()
    test: list[str]
    match kind.upper(), command:
        case "NONE", "" if not durations:
            test = ["NONE"]
        case "CMD", command if command:
            listed = _parse_list(command, instruction)
            test = ["CMD-SHELL", command] if listed is None else ["CMD", *listed]
        case _:
            raise instruction.wrong("write HEALTHCHECK [OPTIONS] CMD command, or HEALTHCHECK NONE")
    return replace(config, healthcheck={"Test": test, **durations})


def _label(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    return replace(config, labels={**config.labels, **instruction.pairs(config)})


def _on_build(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    trigger = instruction.rest.split(maxsplit=1)[0].upper()
    if trigger in _NO_TRIGGER:
        raise instruction.wrong(f"{trigger} cannot be done later")
    return replace(config, on_build=(*config.on_build, instruction.rest))


def _stop_signal(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    signal = instruction.text(config)
    try:
        options.parse_signal(signal)
    except ConfigError as error:
        raise instruction.wrong(error.message) from error
    return replace(config, stop_signal=signal)


def _user(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    return replace(config, user=instruction.text(config))


def _volume(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    listed = instruction.list()
    words = split(instruction.rest) if listed is None else listed
    paths = [expand(word, _variables(config)).strip() for word in words]
    if not all(paths):
        raise instruction.wrong("a path is empty")
    return replace(config, volumes=tuple(sorted({*config.volumes, *paths})))


def _workdir(instruction: _Instruction, config: ImageConfig) -> ImageConfig:
    path = posixpath.join("/", config.workdir, instruction.text(config))
    return replace(config, workdir="/" + posixpath.normpath(path).lstrip("/"))


_INSTRUCTIONS: Mapping[str, Callable[[_Instruction, ImageConfig], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
