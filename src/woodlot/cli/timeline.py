"""A timeline as a picture: a row for each process and each task in it, a bar for each span."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 1200
_LABELS = 90
_BAR = 18
_ROW = _BAR + 3
_GAP = 14
_AXIS = 24
_CHAR = 6.2
_COLOURS = ("#4c78a8", "#59a14f", "#b07aa1", "#d08a3c", "#3d9a9a")
_STEPS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 60000)

Event = Mapping[str, Any]


def draw(events: Sequence[Event]) -> str:
    """An SVG of a timeline in Chrome's trace format; what took less than a thousandth of it is left out."""
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    begin = min((span["ts"] for span in spans), default=0.0)
    length = max((span["ts"] + span["dur"] for span in spans), default=1.0) - begin
    scale = (_WIDTH - _LABELS - 10) / max(length, 1.0)
    parts: list[str] = []
    y = _AXIS
    for index, (pid, rows) in enumerate(_processes(spans, length / 1000)):
        parts.append(_text(4, y + 13, names.get(pid, str(pid)), "#555"))
        colour = _COLOURS[index % len(_COLOURS)]
        for row in rows:
            for span in row:
                x, width = _LABELS + (span["ts"] - begin) * scale, span["dur"] * scale
                parts.append(_bar(x, y, width, span, colour))
            y += _ROW
        y += _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" font-family="sans-serif" font-size="11">'
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>'
        + "".join(_axis(length, scale, y))
        + "".join(parts)
        + "</svg>\n"
    )


def _processes(spans: Sequence[Event], shortest: float) -> list[tuple[object, list[list[Event]]]]:
    """Each process with its rows, in which no two spans overlap; an outer span is above the inner ones."""
    found: dict[object, list[list[Event]]] = {}
    for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
        if span["dur"] < shortest:
            continue
        rows = found.setdefault(span["pid"], [])
        for row in rows:
            if row[-1]["ts"] + row[-1]["dur"] <= span["ts"]:
                row.append(span)
                break
        else:
            rows.append([span])
    return list(found.items())


def _bar(x: float, y: int, width: float, span: Event, colour: str) -> str:
    label = f"{span['name']} {span['dur'] / 1000:.0f} ms"
    fits = int(width / _CHAR)
    shown = label if len(label) <= fits else span["name"][: max(fits - 1, 0)]
    return (
        f"<g><title>{html.escape(label)}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{max(width, 1):.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        + (_text(x + 3, y + 13, shown, "#fff") if len(shown) > 1 else "")
        + "</g>"
    )


def _axis(length: float, scale: float, height: int) -> list[str]:
    step = next((one for one in _STEPS_MS if one * 1000 * scale >= 60), _STEPS_MS[-1])
    lines: list[str] = []
    for at in range(0, int(length / 1000) + 1, step):
        x = _LABELS + at * 1000 * scale
        lines.append(f'<path d="M{x:.1f} 16V{height}" stroke="#ddd"/>')
        lines.append(_text(x + 2, 12, f"{at} ms", "#888"))
    return lines


def _text(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}">{html.escape(text)}</text>'
