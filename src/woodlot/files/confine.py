"""Closes a file server in, then becomes it: a program of its own, run as ``python -I -S confine.py JSON``.

The order, as JSON, and what is done with it:

    parent            our parent's process id; when it ends, so do we
    uid_map, gid_map  a user namespace with these maps, rows of [inside, outside, count]; null stays in ours (root)
    source            the directory or file to serve; null serves nothing
    stage             a directory; in our mount namespace, and only there, ``source`` is mounted on it
    single            source is one file: the stage is a read-only directory that holds nothing but it, as ``file``
    read_only         the mounts below the stage are, too, and not only for guests that behave
    argv              what to become

Nothing but the standard library, and little of it: this costs an interpreter for each share. Failures are one line on
stderr and status 1.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import stat
import struct
import sys
from typing import Any

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8  # linux/mount.h
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000  # linux/fcntl.h
_MOUNT_ATTR_RDONLY, _SYS_MOUNT_SETATTR = 1, 442  # linux/mount.h, asm-generic/unistd.h
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 22, 2  # linux/prctl.h
_SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000  # linux/seccomp.h
# linux/audit.h AUDIT_ARCH_*, and the number of setgroups(2) there.
_SETGROUPS = {"x86_64": (0xC000003E, 116), "aarch64": (0xC00000B7, 159)}
_NOFILE = 1_000_000
SINGLE_NAME = "file"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Follow the order in the first argument."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    try:
        if order["uid_map"] is not None:
            _enter_user_namespace(order["uid_map"], order["gid_map"])
            if _is_single(order["gid_map"]):
                _pretend_setgroups()
        else:
            _check(_libc.unshare(_CLONE_NEWNS), "make a mount namespace")
        _mount(None, "/", _MS_REC | _MS_PRIVATE)
        if order["source"] is not None:
            # Opened only now: what an other mount namespace's descriptor leads to cannot be mounted in this one.
            source = os.open(order["source"], os.O_PATH | os.O_CLOEXEC)
            _stage(source, order["stage"], single=order["single"], read_only=order["read_only"])
        _raise_nofile()
        # Entering a user namespace may clear it.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "ask to end with the parent")
        if os.getppid() != order["parent"]:
            raise SystemExit(1)
        os.execv(order["argv"][0], order["argv"])  # noqa: S606 - no shell is the point
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise SystemExit(f"confine: {where}{error.strerror}") from None


def _stage(source: int, stage: str, *, single: bool, read_only: bool) -> None:
    # By descriptor: what was opened is what is served, whatever the path leads to by now.
    opened = f"/proc/self/fd/{source}"
    if stat.S_ISDIR(os.fstat(source).st_mode) is single:
        raise OSError(0, "the source was replaced by something of another kind")
    target = stage
    if single:
        quiet = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount("tmpfs", stage, quiet, "tmpfs", "size=4k,mode=0755")
        target = f"{stage}/{SINGLE_NAME}"
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _mount(opened, target, _MS_BIND)
        _mount(None, stage, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | quiet)
    else:
        _mount(opened, target, _MS_BIND | _MS_REC)
    if read_only:
        attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
        _check(
            _libc.syscall(
                _SYS_MOUNT_SETATTR,
                _AT_FDCWD,
                os.fsencode(target),
                _AT_RECURSIVE,
                attributes,
                ctypes.c_size_t(len(attributes)),
            ),
            "make the source read-only (needs Linux 5.12)",
        )


def _enter_user_namespace(uid_map: list[list[int]], gid_map: list[list[int]]) -> None:
    ready, go = os.pipe()
    helper = 0
    if not _is_single(uid_map) or not _is_single(gid_map):
        # Only from outside may the maps of several ids be written, and by nobody but these two programs.
        ours = os.getpid()
        helper = os.fork()
        if helper == 0:
            os.close(go)
            wanted = os.read(ready, 1)
            failed = wanted and (
                _map("newuidmap", ours, uid_map) or _map("newgidmap", ours, gid_map)
            )
            os._exit(1 if failed else 0)
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "make a user namespace")
    if helper:
        os.write(go, b"1")
        if os.waitpid(helper, 0)[1]:
            raise OSError(
                0, "newuidmap or newgidmap refused the ids of /etc/subuid and /etc/subgid"
            )
    else:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", _row(uid_map[0])),
            ("gid_map", _row(gid_map[0])),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib costs time here
                file.write(text)
    os.close(ready)
    os.close(go)


def _is_single(rows: list[list[int]]) -> bool:
    return len(rows) == 1 and rows[0][2] == 1


def _map(program: str, pid: int, rows: list[list[int]]) -> int:
    argv = [program, str(pid), *(str(number) for row in rows for number in row)]
    return os.waitpid(os.posix_spawnp(program, argv, os.environ), 0)[1]


def _row(numbers: list[int]) -> str:
    return " ".join(str(number) for number in numbers)


def _pretend_setgroups() -> None:
    """Let setgroups(2) succeed and do nothing.

    With one group mapped the kernel refuses the call, and virtiofsd, which wants to be rid of its supplementary
    groups, would give up. It keeps them: they are the user's own.
    """
    found = _SETGROUPS.get(platform.machine())
    if found is None:
        return
    arch, number = found
    jump_eq, load, ret = 0x15, 0x20, 0x06  # linux/bpf_common.h: JMP|JEQ|K, LD|W|ABS, RET|K
    # struct seccomp_data: nr at 0, arch at 4. A jump's two counts: when equal, when not.
    program = [
        (load, 0, 0, 4),
        (jump_eq, 0, 3, arch),
        (load, 0, 0, 0),
        (jump_eq, 0, 1, number),
        (ret, 0, 0, _SECCOMP_RET_ERRNO),
        (ret, 0, 0, _SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check(
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0),
        "set a system call filter",
    )


def _raise_nofile() -> None:
    """One descriptor for each file a guest knows; virtiofsd itself gives up when it may not have a million."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _NOFILE:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, _NOFILE))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE, hard))


def _mount(
    source: str | None, target: str, flags: int, kind: str | None = None, data: str | None = None
) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    _check(
        _libc.mount(
            encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data)
        ),
        f"mount on {target}",
    )


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
