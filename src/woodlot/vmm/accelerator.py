"""Which accelerator to use: proven by booting a guest, then remembered.

A device that opens proves nothing: `/dev/kvm` may be there, make a virtual machine, and still be unable to run an
ordinary kernel (nested virtualization that is half there does that). So every candidate but the last boots a guest
once. The answer is kept in a file and holds until something it depends on changes:

    {"format": 1, "answers": [{"key": {"host": …, "kvm": …}, "accelerator": "tcg", "reason": …, "tried": […]}, …]}

The newest answer comes first; a few are kept, since guest kernels may alternate. The file may be deleted at any time. While one process finds out, others wait for its answer (a lock beside the file).
"""

import asyncio
import contextlib
import fcntl
import grp
import json
import logging
import os
import platform
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from woodlot import settings
from woodlot.errors import ConfigError, UnsupportedError, WoodlotError
from woodlot.values import dataclass
from woodlot.vmm.base import Accelerator

log = logging.getLogger(__name__)

KVM_DEVICE = Path("/dev/kvm")
TOTAL_TIMEOUT_S = 10.0

_FORMAT = 1
_MAX_ANSWERS = 8
_LOCK_POLL_S = 0.02

TryBoot = Callable[[Accelerator], Awaitable[None]]
"""Boots a guest and returns once it runs; raises WoodlotError if it does not. Cancelled when time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one candidate that is not used."""

    accelerator: Accelerator
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The accelerator to use."""

    accelerator: Accelerator
    reason: str
    """One line for people."""
    tried: tuple[Attempt, ...] = ()
    """Better ones that do not work here, best first."""
    remembered: bool = False
    """Whether the answer came from the file."""


async def choose(
    candidates: Sequence[Accelerator],
    try_boot: TryBoot,
    cache_path: Path,
    key: Mapping[str, str],
) -> Choice:
    """The best of ``candidates`` that boots a guest; the last one is taken at its word.

    The setting ``vm.accel`` overrides all this. A candidate gets ``vm.probe_timeout`` seconds, all together
    `TOTAL_TIMEOUT_S`. A candidate that ran out of time while the host was overloaded is not used now, but the answer
    is not kept either.

    Args:
        candidates: Best first; see `Vmm.accelerators`.
        try_boot: Boots a guest.
        cache_path: The file that holds the answer.
        key: All that the answer depends on; see `host_facts`.

    Raises:
        UnsupportedError: The one that ``vm.accel`` names is not among the candidates, or may not be used.
        ConfigError: ``vm.accel`` is no accelerator.
    """
    forced = settings.get_str("vm.accel")
    if forced != "auto":
        return _forced(forced, candidates)
    if len(candidates) == 1:
        return Choice(accelerator=candidates[0], reason=_only_reason(candidates[0]))
    found = _load(cache_path, key, candidates)
    if found is not None:
        return found
    async with _locked(cache_path):
        found = _load(cache_path, key, candidates)
        if found is not None:
            return found
        choice, certain = await _probe(candidates, try_boot)
        if certain:
            _save(cache_path, key, choice)
    return choice


def kvm_problem(device: Path = KVM_DEVICE) -> tuple[str, str | None] | None:
    """Why KVM cannot be used, and a hint; None if the device opens (which does not prove that it works)."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return (
            f"there is no {device}",
            "load KVM (modprobe kvm_intel or kvm_amd) if the processor has it",
        )
    except PermissionError:
        return f"no permission to open {device}", _permission_hint(device)
    except OSError as error:
        return f"cannot open {device}: {error.strerror}", None
    return None


def _permission_hint(device: Path) -> str:
    """The command that gives the user the right: membership of the device's group, if that group has it."""
    status = device.stat()
    if status.st_gid and stat.S_IMODE(status.st_mode) & 0o060 == 0o060:
        try:
            group = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            group = str(status.st_gid)
        return f"sudo usermod -aG {group} $USER, then log in again"
    return f"sudo chmod 666 {device}, or give it to a group of yours"


def host_facts(program: Path, guest: str, *, device: Path = KVM_DEVICE) -> dict[str, str]:
    """What the answer depends on: the host's kernel and processor, the monitor's program, the device, the guest.

    It is asked for at every start, so the program is told by its file and not by asking it for its version.

    Args:
        program: The monitor's executable.
        guest: What tells one guest's kernel and agent from another's, such as digests.
        device: The host's KVM device.
    """
    real = program.resolve()
    status = real.stat()
    problem = kvm_problem(device)
    if problem is None:
        node = device.stat()
        kvm = f"{node.st_rdev:x} {node.st_ctime_ns}"
    else:
        # With its hint, which the answer repeats.
        kvm = _sentence(problem)
    return {
        "host": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "monitor": f"{real} {status.st_size} {status.st_mtime_ns}",
        "kvm": kvm,
        "guest": guest,
    }


async def _probe(candidates: Sequence[Accelerator], try_boot: TryBoot) -> tuple[Choice, bool]:
    """The choice, and whether it may be kept."""
    tried: list[Attempt] = []
    certain = True
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    for accelerator in candidates[:-1]:
        problem = kvm_problem() if accelerator is Accelerator.KVM else None
        if problem is not None:
            tried.append(Attempt(accelerator=accelerator, problem=_sentence(problem)))
            continue
        budget = min(settings.get_float("vm.probe_timeout"), deadline - time.monotonic())
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, budget)):
                await try_boot(accelerator)
        except TimeoutError:
            certain = certain and not _is_overloaded()
            tried.append(
                Attempt(accelerator=accelerator, problem=f"no guest ran within {budget:.0f} s")
            )
        except WoodlotError as error:
            tried.append(Attempt(accelerator=accelerator, problem=error.message))
        else:
            took = time.monotonic() - begun
            return (
                Choice(
                    accelerator=accelerator,
                    reason=f"a guest booted with it in {took:.1f} s",
                    tried=tuple(tried),
                ),
                certain,
            )
        log.info("%s is not usable: %s", accelerator, tried[-1].problem)
    last = candidates[-1]
    names = ", ".join(f"{attempt.accelerator.upper()}: {attempt.problem}" for attempt in tried)
    return Choice(accelerator=last, reason=names or _only_reason(last), tried=tuple(tried)), certain


def _forced(name: str, candidates: Sequence[Accelerator]) -> Choice:
    try:
        accelerator = Accelerator(name.lower())
    except ValueError:
        raise ConfigError(
            f"the setting vm.accel cannot be {name!r}", hint="use auto, kvm, hvf or tcg"
        ) from None
    problem = kvm_problem() if accelerator is Accelerator.KVM else None
    if problem is not None:
        raise UnsupportedError(f"vm.accel is kvm, but {problem[0]}", hint=problem[1])
    if accelerator not in candidates:
        raise UnsupportedError(
            f"vm.accel is {accelerator}, which this host does not have for such a guest",
            hint="set it to auto",
        )
    return Choice(accelerator=accelerator, reason="the setting vm.accel says so")


def _only_reason(accelerator: Accelerator) -> str:
    if accelerator is not Accelerator.TCG:
        return "it is the only one"
    return "this host offers no hardware acceleration for such a guest"


def _sentence(problem: tuple[str, str | None]) -> str:
    words, hint = problem
    return f"{words} ({hint})" if hint else words


def _is_overloaded() -> bool:
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


def _load(path: Path, key: Mapping[str, str], candidates: Sequence[Accelerator]) -> Choice | None:
    """The remembered answer, if there is one and it still holds."""
    for answer in _read_answers(path):
        try:
            if answer["key"] != dict(key):
                continue
            choice = _parse(answer)
        except (ValueError, KeyError, TypeError) as error:
            log.info("an answer in %s is of no use: %r", path, error)
            continue
        if choice.accelerator in candidates:
            return choice
    return None


def _parse(answer: Mapping[str, Any]) -> Choice:
    return Choice(
        accelerator=Accelerator(answer["accelerator"]),
        reason=str(answer["reason"]),
        tried=tuple(
            Attempt(
                accelerator=Accelerator(attempt["accelerator"]), problem=str(attempt["problem"])
            )
            for attempt in answer["tried"]
        ),
        remembered=True,
    )


def _read_answers(path: Path) -> list[dict[str, Any]]:
    """What the file holds; nothing, if it is missing or damaged."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] == _FORMAT:
            return [dict(answer) for answer in document["answers"]]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.info("%s is made again: %r", path, error)
    return []


def _save(path: Path, key: Mapping[str, str], choice: Choice) -> None:
    answer = {
        "key": dict(key),
        "accelerator": choice.accelerator,
        "reason": choice.reason,
        "tried": [asdict(attempt) for attempt in choice.tried],
    }
    others = [other for other in _read_answers(path) if other.get("key") != dict(key)]
    document = {"format": _FORMAT, "answers": [answer, *others][:_MAX_ANSWERS]}
    import tempfile

    # An answer that cannot be kept is found again next time.
    with contextlib.suppress(OSError):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "w") as stream:
                json.dump(document, stream, indent=2)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    """Hold the lock of ``path``; others, in this process too, wait without blocking the event loop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; on arm64 Linux, what identifies it."""
    wanted = ("model name", "CPU implementer", "CPU part")
    found: dict[str, str] = {}
    try:
        with cpuinfo.open(errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip() in wanted:
                    found.setdefault(name.strip(), value.strip())
                elif not line.strip() and found:
                    break
    except OSError:
        return platform.processor() or platform.machine()
    return " ".join(found.values()) or platform.machine()
