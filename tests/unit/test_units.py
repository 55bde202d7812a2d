"""Ages and moments."""

import pytest

from woodlot.errors import ConfigError
from woodlot.units import format_age, parse_moment

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "Less than a second"),
        (1.2, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.6 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_ages_are_dockers(seconds: float, shown: str) -> None:
    assert format_age(seconds) == shown


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", 999_910),
        ("1.5s", 999_998.5),
        ("1h30m", 994_600),
        ("2d", 827_200),
        ("1m1h", 996_340),
        ("12345", 12345),
        ("12345.5", 12345.5),
        ("1970-01-02T00:00:00Z", DAY),
        ("1970-01-02T01:00:00+01:00", DAY),
    ],
)
def test_moments(text: str, moment: float) -> None:
    assert parse_moment(text, 1_000_000) == moment


@pytest.mark.parametrize("text", ["", "soon", "-5m", "1970-13-01", "9" * 30, "5x", "1m 1h"])
def test_no_moments(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        parse_moment(text, 0)
