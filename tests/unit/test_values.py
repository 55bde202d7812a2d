"""Our `dataclass` is told from the standard library's by its speed alone."""

import builtins
import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from woodlot import values


def make_classes(dataclass: Any) -> tuple[Any, ...]:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Spec:
        """Doc."""

        name: str
        secret: str = field(default="x", repr=False)
        labels: dict[str, str] = field(default_factory=dict[str, str])
        size: int | None = None

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Larger(Spec):
        """Doc."""

        more: tuple[int, ...] = ()

    @dataclass(frozen=True, slots=True)
    class Point:
        """Doc."""

        x: int
        y: int = 2

        def __str__(self) -> str:
            return f"<{self.x}, {self.y}>"

    @dataclass(slots=True)
    class Count:
        """Doc."""

        number: int = 0

    return Spec, Larger, Point, Count


OURS = make_classes(values.dataclass)
THEIRS = make_classes(dataclasses.dataclass)

DONE: list[Callable[[Any, Any, Any, Any], object]] = [
    lambda spec, _larger, _point, _count: repr(spec(name="a", size=3)),
    lambda spec, _larger, _point, _count: spec(name="a") == spec(name="a", labels={}),
    lambda spec, _larger, _point, _count: spec(name="a") == spec(name="b"),
    lambda spec, _larger, _point, _count: spec(name="a").labels is spec(name="a").labels,
    lambda spec, larger, _point, _count: spec(name="a") == larger(name="a"),
    lambda spec, _larger, _point, _count: spec(name="a") == "a",
    lambda _spec, larger, _point, _count: dataclasses.asdict(larger(more=(1,), name="a")),
    lambda _spec, larger, _point, _count: [one.name for one in dataclasses.fields(larger)],
    lambda spec, _larger, _point, _count: repr(dataclasses.replace(spec(name="a"), size=4)),
    lambda spec, _larger, _point, _count: spec("a"),
    lambda spec, _larger, _point, _count: spec(),
    lambda spec, _larger, _point, _count: spec(name="a", colour="red"),
    lambda spec, _larger, _point, _count: hash(spec(name="a")),
    lambda spec, _larger, _point, _count: setattr(spec(name="a"), "name", "b"),
    lambda spec, _larger, _point, _count: delattr(spec(name="a"), "name"),
    lambda spec, _larger, _point, _count: spec(name="a").__dict__,
    lambda spec, _larger, _point, _count: repr(copy.copy(spec(name="a", size=5))),
    lambda _spec, _larger, point, _count: repr(point(1)),
    lambda _spec, _larger, point, _count: repr(point(1, y=3)),
    lambda _spec, _larger, point, _count: str(point(1, 3)),
    lambda _spec, _larger, point, _count: hash(point(1)) == hash(point(1, 2)),
    lambda _spec, _larger, point, _count: {point(1): "a"}[point(1, 2)],
    lambda _spec, _larger, point, _count: point.__match_args__,
    lambda _spec, _larger, point, _count: point(1, 2, 3),
    lambda _spec, _larger, point, _count: point(1, x=1),
    lambda _spec, _larger, _point, count: repr(count(4)),
    lambda _spec, _larger, _point, count: setattr(count(), "number", 5),
    lambda _spec, _larger, _point, count: setattr(count(), "colour", 5),
    lambda _spec, _larger, _point, count: hash(count()),
]


def outcome(do: Callable[..., object], classes: tuple[Any, ...]) -> object:
    try:
        return do(*classes)
    except (TypeError, AttributeError) as error:
        return type(error)


@pytest.mark.parametrize("number", range(len(DONE)))
def test_as_the_standard_library(number: int) -> None:
    assert outcome(DONE[number], OURS) == outcome(DONE[number], THEIRS)


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Doc."""

    name: str
    size: int = 0


def test_pickled() -> None:
    assert pickle.loads(pickle.dumps(Kept(name="a", size=4))) == Kept(name="a", size=4)


def test_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what makes the classes cheap."""
    compiled: list[object] = []
    monkeypatch.setattr(builtins, "exec", lambda *given: compiled.append(given))
    make_classes(values.dataclass)
    assert not compiled
    with contextlib.suppress(KeyError):
        # That this would be seen.
        make_classes(dataclasses.dataclass)
    assert compiled


def test_what_is_wrong_is_named() -> None:
    make: Any = Kept
    with pytest.raises(TypeError, match=r"Kept: fields missing: \['name'\], unknown: \[\]"):
        make(size=1)
    with pytest.raises(TypeError, match=r"Kept: .* unknown: \['colour', 'weight'\]"):
        make(name="a", colour="red", weight=2)
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"Kept\.name cannot be changed"):
        Kept(name="a").name = "b"  # type: ignore[misc]
