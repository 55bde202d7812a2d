"""Strictly typed reading of JSON that somebody else wrote."""

import json
from collections.abc import Sequence
from typing import cast

from woodlot.errors import IntegrityError
from woodlot.values import dataclass

MAX_STRING = 1 << 20


def parse_object(data: bytes, *, what: str) -> "JsonObject":
    """The JSON object in ``data``.

    Raises:
        IntegrityError: ``data`` is not one; ``what`` names it.
    """
    try:
        value: object = json.loads(data)
    # A deep nesting ends in RecursionError, a bad encoding or a huge number in ValueError.
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is not JSON: {str(error)[:200]}") from error
    return JsonObject.of(value, what=what)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object and its name for errors; a member that is null counts as missing."""

    members: dict[str, object]
    what: str

    @classmethod
    def of(cls, value: object, *, what: str) -> "JsonObject":
        """``value`` if it is an object."""
        if not isinstance(value, dict):
            raise IntegrityError(f"{what} must be an object, got {_kind(value)}")
        return cls(cast("dict[str, object]", value), what)

    def __contains__(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self.members.get(name) is not None

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text_or_none(name)
        if value is None:
            raise IntegrityError(f"{self.what}: {name} is missing")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A string, or None."""
        value = self.members.get(name)
        if value is None:
            return None
        return _text(value, f"{self.what}: {name}")

    def size(self, name: str) -> int:
        """A whole number of bytes, from 0 to 2**63 - 1."""
        value = self.members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise IntegrityError(f"{self.what}: {name} must be a size in bytes, got {_kind(value)}")
        return value

    def object_or_empty(self, name: str) -> "JsonObject":
        """An object, empty if there is none."""
        value = self.members.get(name)
        return JsonObject.of({} if value is None else value, what=f"{self.what}: {name}")

    def items(self, name: str, *, limit: int) -> Sequence[object]:
        """The items of an array, empty if there is none; at most ``limit``."""
        value = self.members.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise IntegrityError(f"{self.what}: {name} must be an array, got {_kind(value)}")
        items = cast("list[object]", value)
        if len(items) > limit:
            raise IntegrityError(f"{self.what}: {name} has {len(items)} items, more than {limit}")
        return items

    def texts(self, name: str, *, limit: int) -> tuple[str, ...]:
        """The strings of an array."""
        return tuple(
            _text(item, f"{self.what}: {name}[{index}]")
            for index, item in enumerate(self.items(name, limit=limit))
        )

    def text_map(self, name: str, *, limit: int) -> dict[str, str]:
        """An object whose values are strings; a null value is the empty string."""
        members = self.object_or_empty(name).members
        if len(members) > limit:
            raise IntegrityError(f"{self.what}: {name} has more than {limit} members")
        return {
            _text(key, f"{self.what}: {name}"): (
                "" if value is None else _text(value, f"{self.what}: {name}[{key!r}]")
            )
            for key, value in members.items()
        }

    def keys(self, name: str, *, limit: int) -> tuple[str, ...]:
        """The member names of an object that is used as a set, sorted."""
        members = self.object_or_empty(name).members
        if len(members) > limit:
            raise IntegrityError(f"{self.what}: {name} has more than {limit} members")
        return tuple(sorted(_text(key, f"{self.what}: {name}") for key in members))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise IntegrityError(f"{what[:300]} must be a string, got {_kind(value)}")
    if len(value) > MAX_STRING:
        raise IntegrityError(f"{what[:300]} is longer than {MAX_STRING} characters")
    # Such a string becomes an argument, a variable or a path, none of which can hold a NUL.
    if "\0" in value:
        raise IntegrityError(f"{what[:300]} contains a NUL character")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise IntegrityError(f"{what[:300]} is not valid Unicode")
    return value


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {str(value)[:32]}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
