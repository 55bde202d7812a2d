"""Docker's rules for starting a container again."""

import pytest

from woodlot.container.restart import BackOff, parse_policy, restarts, resumes
from woodlot.container.spec import RestartPolicy
from woodlot.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("no", RestartPolicy()),
        ("always", RestartPolicy(name="always")),
        ("unless-stopped", RestartPolicy(name="unless-stopped")),
        ("on-failure", RestartPolicy(name="on-failure")),
        ("on-failure:0", RestartPolicy(name="on-failure")),
        ("on-failure:3", RestartPolicy(name="on-failure", max_retries=3)),
    ],
)
def test_policies(text: str, policy: RestartPolicy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    ["", "yes", "always:3", "no:0", "on-failure:", "on-failure:-1", "on-failure:x", "Always"],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(ConfigError, match="--restart cannot be"):
        parse_policy(text)


@pytest.mark.parametrize(
    ("policy", "exit_code", "count", "expected"),
    [
        ("no", 1, 0, False),
        ("always", 0, 1000, True),
        ("unless-stopped", 0, 0, True),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 1000, True),
        ("on-failure:2", 137, 1, True),
        ("on-failure:2", 137, 2, False),
    ],
)
def test_after_an_end(policy: str, exit_code: int, count: int, *, expected: bool) -> None:
    assert restarts(parse_policy(policy), exit_code=exit_code, count=count) is expected


@pytest.mark.parametrize(
    ("policy", "exit_code", "by_user", "expected"),
    [
        ("no", 137, False, False),
        ("always", 0, True, True),
        ("unless-stopped", 137, False, True),
        ("unless-stopped", 137, True, False),
        ("on-failure", 137, False, True),
        ("on-failure", 0, False, False),
        ("on-failure", 137, True, False),
    ],
)
def test_when_the_host_has_come_up(
    policy: str, exit_code: int, *, by_user: bool, expected: bool
) -> None:
    resumed = resumes(parse_policy(policy), exit_code=exit_code, count=0, by_user=by_user)
    assert resumed is expected


def test_each_delay_is_twice_the_one_before_up_to_a_minute() -> None:
    back_off = BackOff()
    delays = [back_off.after(0) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [60.0, 60.0]
    assert back_off.after(9.9) == 60.0
    assert back_off.after(10.0) == 0.1
