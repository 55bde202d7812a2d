"""What templates can call: Go's own functions, and Docker's. A wrong argument is an `ArgumentError`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\d{1,4})?(?:\.(?P<precision>\d{0,4}))?(?P<verb>[a-zA-Z%])"
)
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class ArgumentError(Exception):
    """What a function was given does not suit it; says why."""


def show(value: object) -> str:
    """A value as Go prints it: ``map[a:1]``, ``[a b]``, ``true``, ``<no value>``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        pairs = sorted(cast("Mapping[str, object]", value).items())
        return f"map[{' '.join(f'{key}:{_inner(item)}' for key, item in pairs)}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(_inner(item) for item in cast('Sequence[object]', value))}]"
    return str(value)


def _inner(value: object) -> str:
    return "<nil>" if value is None else show(value)


def is_true(value: object) -> bool:
    """Whether Go takes the value for true: what is not empty, zero or nil."""
    return bool(value)


def to_json(value: object) -> str:
    """The value as JSON on one line, with its keys in order; as Go, no ``<``, ``>`` or ``&`` stands in it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def _text(value: object, function: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{function} wants a text, not {show(value)}")
    return value


def _whole(value: object, function: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(f"{function} wants a whole number, not {show(value)}")
    return value


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | list | tuple):
        return len(cast("Sequence[object]", value))
    raise ArgumentError(f"{show(value)} has no length")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = cast("Mapping[object, object]", value).get(key)
        elif isinstance(value, list | tuple | str):
            items = cast("Sequence[object]", value)
            place = _whole(key, "index")
            if not 0 <= place < len(items):
                raise ArgumentError(f"there is no place {place}: the length is {len(items)}")
            value = items[place]
        else:
            raise ArgumentError(f"{show(value)} has no places")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, list | tuple | str):
        raise ArgumentError(f"{show(value)} cannot be sliced")
    sequence = cast("Sequence[object]", value)
    start, end = (*(_whole(bound, "slice") for bound in bounds), *(0, len(sequence))[len(bounds) :])
    if not 0 <= start <= end <= len(sequence):
        raise ArgumentError(f"there is no slice {start}:{end}: the length is {len(sequence)}")
    return sequence[start:end]


def _compare(order: Callable[[object, object], bool]) -> Callable[[object, object], bool]:
    def compare(left: object, right: object) -> bool:
        _check_same(left, right)
        return order(left, right)

    return compare


def _check_same(left: object, right: object) -> None:
    kinds = [
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
        for value in (left, right)
    ]
    if kinds[0] != kinds[1] or not isinstance(left, str | int | float):
        raise ArgumentError(f"{show(left)} and {show(right)} cannot be compared")


def _eq(left: object, *others: object) -> bool:
    for other in others:
        if left is not None and other is not None:
            _check_same(left, other)
    return left in others


def _ne(left: object, right: object) -> bool:
    return not _eq(left, right)


def _print(*values: object) -> str:
    shown = ""
    for place, value in enumerate(values):
        # As Go: a space between two values neither of which is a text.
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            shown += " "
        shown += show(value)
    return shown


def _println(*values: object) -> str:
    return " ".join(show(value) for value in values) + "\n"


def _printf(pattern: object, *values: object) -> str:
    rest = list(values)

    def verb(match: re.Match[str]) -> str:
        if match["verb"] == "%":
            return "%"
        if not rest:
            raise ArgumentError(f"printf has no value for {match[0]}")
        value, kind = rest.pop(0), match["verb"]
        precision = match["precision"]
        flags, width = match["flags"], int(match["width"] or 0)
        if kind in "vs":
            text = show(value) if precision is None else show(value)[: int(precision or 0)]
        elif kind == "q":
            text = json.dumps(_text(value, "printf %q"), ensure_ascii=False)
        elif kind == "t" and isinstance(value, bool):
            text = show(value)
        elif kind in "dxXob" and isinstance(value, int) and not isinstance(value, bool):
            text = format(value, ("+" if "+" in flags else "") + kind)
        elif kind in "feEgG" and isinstance(value, int | float) and not isinstance(value, bool):
            sign = "+" if "+" in flags else ""
            text = format(float(value), f"{sign}.{precision or 0}{kind}" if precision is not None else f"{sign}{kind}")  # fmt: skip
        elif kind == "x" and isinstance(value, str):
            text = value.encode().hex()
        else:
            raise ArgumentError(f"printf cannot print {show(value)} with {match[0]}")
        if "-" in flags:
            return text.ljust(width)
        return text.zfill(width) if "0" in flags and kind not in "vsqt" else text.rjust(width)

    shown = _VERB.sub(verb, _text(pattern, "printf"))
    if rest:
        raise ArgumentError("printf has more values than its text has places")
    return shown


def _join(values: object, separator: object) -> str:
    if not isinstance(values, list | tuple):
        raise ArgumentError(f"join wants a list, not {show(values)}")
    return _text(separator, "join").join(show(one) for one in cast("Sequence[object]", values))


def _split(text: object, separator: object) -> list[str]:
    apart = _text(separator, "split")
    return _text(text, "split").split(apart) if apart else list(_text(text, "split"))


def _title(text: object) -> str:
    return re.sub(r"\b\w", lambda match: match[0].upper(), _text(text, "title"))


def _truncate(text: object, length: object) -> str:
    return _text(text, "truncate")[: max(0, _whole(length, "truncate"))]


def _pad(text: object, before: object, after: object) -> str:
    # Of an empty text nothing is made, as in Docker.
    given = _text(text, "pad")
    return given and " " * _whole(before, "pad") + given + " " * _whole(after, "pad")


def _lower(text: object) -> str:
    return _text(text, "lower").lower()


def _upper(text: object) -> str:
    return _text(text, "upper").upper()


def _not(value: object) -> bool:
    return not is_true(value)


# `and` and `or` stop at the value that decides, so they are run where the template is.
LAZY = {"and": False, "or": True}
FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "and": is_true,
    "or": is_true,
    "not": _not,
    "eq": _eq,
    "ne": _ne,
    "lt": _compare(lambda left, right: left < right),  # type: ignore[operator]
    "le": _compare(lambda left, right: left <= right),  # type: ignore[operator]
    "gt": _compare(lambda left, right: left > right),  # type: ignore[operator]
    "ge": _compare(lambda left, right: left >= right),  # type: ignore[operator]
    "index": _index,
    "join": _join,
    "json": to_json,
    "len": _len,
    "lower": _lower,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "split": _split,
    "title": _title,
    "truncate": _truncate,
    "upper": _upper,
}
