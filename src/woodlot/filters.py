"""What lists are narrowed by: conditions ``KEY=VALUE``, with Docker's keys and their meaning.

Of several conditions with one key, one must hold; of labels, and of different keys, all.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from woodlot.errors import ConfigError
from woodlot.units import parse_moment

T = TypeVar("T")

Given: TypeAlias = Mapping[str, str | bool | Sequence[str]]
"""Conditions as a program gives them: ``{"status": "running", "label": ["a", "b=c"]}``."""

Test: TypeAlias = Callable[[T], bool]
Maker: TypeAlias = Callable[[str], Test[T]]
"""From a condition's value to what tells whether something meets it; raises ConfigError for a wrong one."""

ALL_MUST_HOLD = frozenset(("label", "label!"))


def parse(texts: Iterable[str]) -> dict[str, list[str]]:
    """Conditions from ``KEY=VALUE`` and ``KEY!=VALUE``, whose key then ends with ``!``.

    Raises:
        ConfigError: A text is none.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--filter cannot be {text!r}", hint="give it as KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found


def check(keys: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """See that all keys are known.

    Raises:
        ConfigError: One is not; the hint names those that are.
    """
    names = sorted(known)
    for key in keys:
        if key not in names:
            shown = key[:-1] + "!=" if key.endswith("!") else key
            raise ConfigError(
                f"{what} cannot be filtered by {shown!r}",
                hint="filters are " + ", ".join(name for name in names if not name.endswith("!")),
            )


def build(given: Given, makers: Mapping[str, Maker[T]], *, what: str) -> Test[T]:
    """What tells whether something meets all conditions.

    Args:
        given: The conditions.
        makers: What each key means.
        what: What is filtered, for errors.

    Raises:
        ConfigError: There is no such key, or a value is not of its kind.
    """
    check(given, makers, what=what)
    tests: list[tuple[bool, list[Test[T]]]] = []
    for key, values in given.items():
        if isinstance(values, bool):
            texts: Sequence[str] = ("true" if values else "false",)
        else:
            texts = (values,) if isinstance(values, str) else values
        tests.append((key in ALL_MUST_HOLD, [makers[key](text) for text in texts]))

    def meets(one: T) -> bool:
        return all(
            (all if every else any)(test(one) for test in group) for every, group in tests if group
        )

    return meets


def label(labels: Callable[[T], Mapping[str, str]]) -> Maker[T]:
    """``KEY`` or ``KEY=VALUE``: the label is there, and has that value."""

    def make(text: str) -> Test[T]:
        key, equals, value = text.partition("=")
        return lambda one: key in labels(one) and (not equals or labels(one)[key] == value)

    return make


def no_label(labels: Callable[[T], Mapping[str, str]]) -> Maker[T]:
    """The opposite of `label`."""

    def make(text: str) -> Test[T]:
        has = label(labels)(text)
        return lambda one: not has(one)

    return make


def pattern(texts: Callable[[T], Iterable[str]]) -> Maker[T]:
    """A regular expression that is found in one of the texts, as a part of it is."""

    def make(text: str) -> Test[T]:
        try:
            expression = re.compile(text)
        except re.error:
            expression = re.compile(re.escape(text))
        return lambda one: any(expression.search(found) for found in texts(one))

    return make


def choice(of: Callable[[T], str], choices: Sequence[str], *, what: str) -> Maker[T]:
    """One of some words."""

    def make(text: str) -> Test[T]:
        if text not in choices:
            raise ConfigError(f"{what} cannot be {text!r}", hint=f"one of {', '.join(choices)}")
        return lambda one: of(one) == text

    return make


def flag(of: Callable[[T], bool], *, what: str) -> Maker[T]:
    """``true`` or ``false``."""

    def make(text: str) -> Test[T]:
        wanted = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
        if wanted is None:
            raise ConfigError(f"{what} cannot be {text!r}", hint="true or false")
        return lambda one: of(one) is wanted

    return make


def until(made_at: Callable[[T], float], now: float) -> Maker[T]:
    """Made before a moment: an age such as ``24h`` or ``1h30m``, a date, or seconds since 1970."""

    def make(text: str) -> Test[T]:
        moment = parse_moment(text, now)
        return lambda one: made_at(one) < moment

    return make
