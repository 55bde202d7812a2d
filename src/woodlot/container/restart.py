"""When a container that has ended is started again, and how long that waits; Docker's rules.

Source: Docker's documentation of ``docker run --restart``.
"""

import re

from woodlot.container.spec import RestartPolicy
from woodlot.errors import ConfigError

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 60.0
# One that has run for so long counts as up: the next delay is the first again.
_UP_S = 10.0

_POLICY = re.compile(r"(?P<name>no|always|unless-stopped|on-failure)(?::(?P<retries>[0-9]{1,9}))?")


def parse_policy(text: str) -> RestartPolicy:
    """The policy of ``no``, ``always``, ``unless-stopped`` or ``on-failure[:MAX-RETRIES]``.

    Raises:
        ConfigError: It is none of them.
    """
    match = _POLICY.fullmatch(text)
    if match is None or (match["retries"] and match["name"] != "on-failure"):
        raise ConfigError(
            f"--restart cannot be {text!r}",
            hint="use no, always, unless-stopped, on-failure or on-failure:MAX-RETRIES",
        )
    return RestartPolicy(name=match["name"], max_retries=int(match["retries"] or 0))  # type: ignore[arg-type]


def check(policy: RestartPolicy, *, remove: bool) -> None:
    """See that a container can have this policy.

    Raises:
        ConfigError: It is removed at its end.
    """
    if policy.name != "no" and remove:
        raise ConfigError(
            "--restart conflicts with --rm: what is removed cannot be started again",
            hint="leave out one of them",
        )


def restarts(policy: RestartPolicy, *, exit_code: int, count: int) -> bool:
    """Whether one that has ended by itself is started again.

    Args:
        policy: The container's.
        exit_code: With which it ended.
        count: How often it was started again already.
    """
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return exit_code != 0 and (not policy.max_retries or count < policy.max_retries)
        case "no":
            return False


def resumes(policy: RestartPolicy, *, exit_code: int, count: int, by_user: bool) -> bool:
    """Whether one that is stopped is started when the machine has come up.

    Args:
        policy: The container's.
        exit_code: With which it ended.
        count: How often it was started again already.
        by_user: It was stopped by its user.
    """
    if by_user and policy.name != "always":
        return False
    return restarts(policy, exit_code=exit_code, count=count)


class BackOff:
    """Delays before one start after the other."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def after(self, ran_s: float) -> float:
        """Seconds to wait after a start that lasted ``ran_s`` seconds: 0.1, and twice as long each time, up to 60."""
        if ran_s >= _UP_S:
            self._delay_s = 0.0
        self._delay_s = min(self._delay_s * 2, _MAX_DELAY_S) or _FIRST_DELAY_S
        return self._delay_s
