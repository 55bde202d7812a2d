"""Conditions of lists."""

import re
from collections.abc import Mapping

import pytest

from woodlot import filters
from woodlot.errors import ConfigError
from woodlot.filters import Maker

Thing = tuple[str, Mapping[str, str]]
WEB: Thing = ("web-1", {"tier": "front", "env": "prod"})
DB: Thing = ("db", {"tier": "back"})

MAKERS: dict[str, Maker[Thing]] = {
    "name": filters.pattern(lambda one: (one[0],)),
    "label": filters.label(lambda one: one[1]),
    "label!": filters.no_label(lambda one: one[1]),
    "kind": filters.choice(lambda one: one[1].get("tier", ""), ("front", "back"), what="kind"),
    "prod": filters.flag(lambda one: one[1].get("env") == "prod", what="prod"),
}


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([], ["web-1", "db"]),
        (["name=web"], ["web-1"]),
        (["name=^eb"], []),
        (["name=d", "name=w"], ["web-1", "db"]),
        (["name=b", "kind=back"], ["db"]),
        (["name=web-1(", "name=["], []),
        (["label=tier"], ["web-1", "db"]),
        (["label=tier=front"], ["web-1"]),
        (["label=tier=front", "label=env"], ["web-1"]),
        (["label=tier", "label=env=test"], []),
        (["label!=env"], ["db"]),
        (["label!=tier=back", "label!=x"], ["web-1"]),
        (["kind=front", "kind=back"], ["web-1", "db"]),
        (["prod=true"], ["web-1"]),
        (["prod=0"], ["db"]),
    ],
)
def test_met(texts: list[str], names: list[str]) -> None:
    meets = filters.build(filters.parse(texts), MAKERS, what="things")
    assert [one[0] for one in (WEB, DB) if meets(one)] == names


def test_a_program_may_give_one_value_or_several() -> None:
    meets = filters.build(
        {"name": ["w", "x"], "prod": True, "label": "tier"}, MAKERS, what="things"
    )
    assert [one[0] for one in (WEB, DB) if meets(one)] == ["web-1"]


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["name"], "--filter cannot be 'name'", "give it as KEY=VALUE"),
        (["=x"], "--filter cannot be '=x'", None),
        (["nme=x"], "things cannot be filtered by 'nme'", "filters are kind, label, name, prod"),
        (["name!=x"], "things cannot be filtered by 'name!='", None),
        (["kind=side"], "kind cannot be 'side'", "one of front, back"),
        (["prod=perhaps"], "prod cannot be 'perhaps'", "true or false"),
    ],
)
def test_refused(texts: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        filters.build(filters.parse(texts), MAKERS, what="things")
    assert hint is None or caught.value.hint == hint


def test_until() -> None:
    make = filters.until(float, now=1000.0)
    assert [moment for moment in (100, 699, 701) if make("5m")(moment)] == [100, 699]
    assert make("1970-01-01T00:01:41+00:00")(100)
    assert not make("100")(100)
