"""Which events are shown, and how."""

import pytest

from woodlot import filters as conditions
from woodlot.cli.events import _line
from woodlot.errors import ConfigError
from woodlot.store.events import Event, build_test

DIE = Event(
    type="container",
    action="die",
    id="abcdef",
    time_ns=1767268800_000000007,
    attributes={"name": "web", "image": "docker.io/library/nginx:1.22", "tier": "front", "bad": "a\x1b[2J\nb"},
)  # fmt: skip
SICK = Event(
    type="container", action="health_status: unhealthy", id="abcdef", time_ns=0, attributes={}
)
PULL = Event(
    type="image", action="pull", id="sha256:1", time_ns=0, attributes={"name": "docker.io/library/nginx:1.22"}
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "filters", "expected"),
    [
        (DIE, [], True),
        (DIE, ["event=die"], True),
        (DIE, ["event=start", "event=die"], True),
        (DIE, ["event=start"], False),
        (SICK, ["event=health_status"], True),
        (SICK, ["event=health_status: healthy"], False),
        (DIE, ["type=container", "container=web"], True),
        (DIE, ["container=abc"], True),
        (DIE, ["container=b"], False),
        (DIE, ["container="], False),
        (DIE, ["network=web"], False),
        (DIE, ["image=nginx:1.22"], True),
        (DIE, ["image=nginx"], False),
        (PULL, ["image=nginx:1.22"], True),
        (PULL, ["container=web"], False),
        (DIE, ["label=tier"], True),
        (DIE, ["label=tier=front"], True),
        (DIE, ["label=tier=back"], False),
        (DIE, ["label=none"], False),
    ],
)
def test_filters(event: Event, filters: list[str], *, expected: bool) -> None:
    assert build_test(conditions.parse(filters))(event) is expected


def test_what_is_no_filter() -> None:
    with pytest.raises(ConfigError, match="events cannot be filtered by 'colour'"):
        build_test({"colour": "red"})


def test_a_line_says_all_and_moves_no_cursor() -> None:
    assert _line(DIE) == (
        "2026-01-01T12:00:00.000000007Z container die abcdef"
        " (bad=a�[2J�b, image=docker.io/library/nginx:1.22, name=web, tier=front)"
    )
