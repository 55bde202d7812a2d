"""As whom files are served: an ordinary user's file server has a user namespace, where root is that user.

With ids of their own in /etc/subuid and /etc/subgid the other users of a container are those; without, there is only
root. So a container's root writes files that are the user's, as with rootless Podman.
"""

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from woodlot.values import dataclass

Row: TypeAlias = tuple[int, int, int]
"""First id inside, first id outside, count: a line of user_namespaces(7)'s uid_map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """The users and groups of a user namespace."""

    uids: tuple[Row, ...]
    gids: tuple[Row, ...]

    @property
    def is_single(self) -> bool:
        """Whether there is nobody but root."""
        return len(self.uids) == 1 or len(self.gids) == 1


def find_idmap() -> IdMap | None:
    """The map for this user; None for root, who needs none."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return None
    owners = [str(uid)]
    with contextlib.suppress(KeyError):
        owners.append(pwd.getpwuid(uid).pw_name)
    can_map = shutil.which("newuidmap") is not None and shutil.which("newgidmap") is not None
    return build_idmap(
        uid,
        gid,
        parse_subids(_read(Path("/etc/subuid")), owners) if can_map else (),
        parse_subids(_read(Path("/etc/subgid")), owners) if can_map else (),
    )


def build_idmap(
    uid: int, gid: int, subuids: Iterable[tuple[int, int]], subgids: Iterable[tuple[int, int]]
) -> IdMap:
    """Root is ``uid`` and ``gid``; the ids from 1 on are the subordinate ones, range after range.

    Without either kind of subordinate ids there are none of the other kind: a map of one id needs no helper.
    """
    uids, gids = _rows(uid, subuids), _rows(gid, subgids)
    if len(uids) == 1 or len(gids) == 1:
        uids, gids = uids[:1], gids[:1]
    return IdMap(uids=uids, gids=gids)


def parse_subids(text: str, owners: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """The ranges, first id and count, that /etc/subuid or /etc/subgid gives one of ``owners`` (subuid(5))."""
    names = set(owners)
    found: list[tuple[int, int]] = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            first, count = int(fields[1]), int(fields[2])
            if count > 0 and (first, count) not in found:
                found.append((first, count))
    return tuple(found)


def _rows(own: int, ranges: Iterable[tuple[int, int]]) -> tuple[Row, ...]:
    rows: list[Row] = [(0, own, 1)]
    inside = 1
    for first, count in ranges:
        rows.append((inside, first, count))
        inside += count
    return tuple(rows)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
