"""Linux capabilities: the default set and what ``--cap-add`` and ``--cap-drop`` make of it."""

from collections.abc import Iterable

from woodlot.errors import ConfigError

# linux/capability.h, in the kernel's order.
ALL = tuple(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)

# Docker's default, which Apple's container shares.
DEFAULT = frozenset(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)


def parse_names(names: Iterable[str], *, flag: str) -> tuple[str, ...]:
    """Capability names in canonical form: ``net_admin`` is ``CAP_NET_ADMIN``; ``ALL`` stays.

    Raises:
        ConfigError: There is no such capability.
    """
    parsed: list[str] = []
    for name in names:
        upper = name.strip().upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full == "CAP_ALL":
            full = "ALL"
        if full != "ALL" and full not in ALL:
            raise ConfigError(
                f"{flag}: there is no capability {name!r}",
                hint="names are as in capabilities(7), for example NET_ADMIN, or ALL",
            )
        parsed.append(full)
    return tuple(parsed)


def build_set(add: Iterable[str], drop: Iterable[str]) -> tuple[str, ...]:
    """The capabilities of a container: the default or, with ``ALL`` dropped, none; then adds; then drops.

    Args:
        add: Names from `parse_names`.
        drop: Names from `parse_names`; a single name dropped wins over ``ALL`` added.
    """
    add, drop = set(add), set(drop)
    chosen = set[str]() if "ALL" in drop else set(DEFAULT)
    chosen |= set(ALL) if "ALL" in add else add
    chosen -= drop
    return tuple(name for name in ALL if name in chosen)
