"""The saved machines of this installation.

    templates/ID/memory         the guest's memory, sparse
    templates/ID/state          processors and devices
    templates/ID/console.log    what the kernel said
    templates/ID/manifest.json  what it depends on, and what its files must be; its time is that of the last use
    templates/ID.lock           held by who makes it, and by who removes it
    templates/ID.part/          on the way

One is made when it is first wanted and renamed when whole. All of it may be deleted at any time: who started from it goes
on, and who wants it makes it again.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from woodlot import settings
from woodlot.errors import VmmError, WoodlotError
from woodlot.paths import Paths
from woodlot.process import last_words
from woodlot.store.disk import used_bytes
from woodlot.store.locks import hold, try_hold
from woodlot.template import shape
from woodlot.values import dataclass
from woodlot.vmm.base import SavedMachine, VmSpec
from woodlot.vmm.qemu import binary
from woodlot.vmm.qemu.machine import QemuVmm

log = logging.getLogger(__name__)

_SETTLE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A saved machine."""

    id: str
    directory: Path
    description: Mapping[str, Any]
    """See `shape.describe`."""

    @property
    def machine(self) -> SavedMachine:
        """Its files."""
        return shape.files(self.directory)

    @property
    def console_log(self) -> Path:
        """What its kernel said when it booted."""
        return self.directory / "console.log"

    @property
    def size_bytes(self) -> int:
        """What it takes on the host's disk."""
        return used_bytes(self.directory)

    @property
    def used_at(self) -> float:
        """When one was last started from it, in seconds since 1970."""
        return (self.directory / "manifest.json").stat().st_mtime


async def ensure(paths: Paths, spec: VmSpec, guest: str) -> Template:
    """The template that ``spec`` can start from, made if it is not there or damaged; the first time takes a boot.

    Args:
        paths: The installation.
        spec: The machine that is wanted.
        guest: What tells its kernel and agent from others, such as digests.

    Raises:
        WoodlotError: It cannot be made.
    """
    description = shape.describe(spec, binary.find_qemu(spec.arch), guest)
    template_id = shape.build_id(description)
    found = _load(paths.templates / template_id)
    if found is not None:
        _touch(found)
        return found
    paths.templates.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with hold(_lock(paths, template_id)):
        # Somebody else may have made it meanwhile.
        found = _load(paths.templates / template_id)
        if found is None:
            prune(paths, keep=template_id)
            await _build(paths, template_id, description, spec)
            found = _load(paths.templates / template_id)
    if found is None:
        raise VmmError(
            f"the template {template_id} was gone as soon as it was made",
            hint=f"free some space at {paths.templates}, or set vm.boot=cold",
        )
    return found


def discard(template: Template) -> None:
    """Remove it: it did not work."""
    shutil.rmtree(template.directory, ignore_errors=True)


def list_templates(paths: Paths) -> list[Template]:
    """Those that are whole, the last used first."""
    found = [template for path in _directories(paths) if (template := _load(path)) is not None]
    return sorted(found, key=lambda template: template.used_at, reverse=True)


def is_old(template: Template) -> bool:
    """Whether nobody used it for as long as the setting ``vm.template_age`` says."""
    return time.time() - template.used_at > settings.get_float("vm.template_age") * 86400


def prune(
    paths: Paths, *, keep: str = "", max_bytes: int | None = None, max_age_s: float | None = None
) -> list[Template]:
    """Remove the templates that were not used for long, and of the rest the oldest while all are too large.

    Args:
        paths: The installation.
        keep: The id of one that is spared, as its lock is held.
        max_bytes: What all may take together; the setting ``vm.template_size`` if None.
        max_age_s: How long one may go unused; the setting ``vm.template_age`` if None.

    Returns:
        The removed ones.
    """
    limit = settings.get_int("vm.template_size") if max_bytes is None else max_bytes
    age = settings.get_float("vm.template_age") * 86400 if max_age_s is None else max_age_s
    removed: list[Template] = []
    total, now = 0, time.time()
    for template in list_templates(paths):
        size = template.size_bytes
        total += size
        too_old, too_much = now - template.used_at > age, total > limit
        if template.id == keep or not (too_old or too_much):
            continue
        with try_hold(_lock(paths, template.id)) as held:
            if held:
                discard(template)
                removed.append(template)
                total -= size
    # What is of no use to anybody: not whole, or of a version of ours from before.
    whole = {template.id for template in list_templates(paths)}
    for directory in _directories(paths):
        name = directory.name.removesuffix(".part")
        if name != keep and name not in whole:
            with try_hold(_lock(paths, name)) as held:
                if held:
                    shutil.rmtree(directory, ignore_errors=True)
    return removed


def _directories(paths: Paths) -> Iterator[Path]:
    if paths.templates.is_dir():
        yield from (path for path in sorted(paths.templates.iterdir()) if path.is_dir())


def _lock(paths: Paths, template_id: str) -> Path:
    return paths.templates / f"{template_id}.lock"


def _touch(template: Template) -> None:
    with contextlib.suppress(OSError):
        os.utime(template.directory / "manifest.json")


async def _build(
    paths: Paths, template_id: str, description: Mapping[str, object], spec: VmSpec
) -> None:
    from woodlot.guest.client import Agent

    log.info("making the template %s", template_id)
    part = paths.templates / f"{template_id}.part"
    sockets = paths.runtime / f"t{template_id[:12]}"
    for directory in (part, sockets):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    machine = shape.files(part)
    try:
        saved = shape.to_be_saved(spec, part, sockets)
        async with QemuVmm(spec.arch).start(saved) as vm:
            try:
                async with Agent(vm.control_target) as agent:
                    await agent.hello(timeout_s=settings.get_float("vm.boot_timeout"))
                    await agent.settle(timeout_s=_SETTLE_TIMEOUT_S)
                await vm.save(machine.state)
            finally:
                vm.kill()
            await vm.wait()
        _finish(part, machine, description)
        target = paths.templates / template_id
        # What is there is damaged, or we would not be here.
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except WoodlotError as error:
        error.details = error.details or last_words(part / "console.log")
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(sockets, ignore_errors=True)


def _finish(part: Path, machine: SavedMachine, description: Mapping[str, object]) -> None:
    """Write the manifest, once what it speaks of is on the disk."""
    for path in (machine.memory, machine.state):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    manifest = {
        "description": description,
        "memory": _identity(machine.memory),
        "state": hashlib.sha256(machine.state.read_bytes()).hexdigest(),
    }
    (part / "manifest.json").write_text(json.dumps(manifest, indent=2))


def _load(directory: Path) -> Template | None:
    """The template there, unless there is none or it is not as it was made."""
    try:
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
        description = cast("dict[str, Any]", manifest["description"])
        problem = _problem(directory, manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem, description = repr(error), {}
    if problem is not None:
        log.warning("the template in %s is of no use: %s", directory, problem)
        return None
    return Template(id=directory.name, directory=directory, description=description)


def _problem(directory: Path, manifest: Mapping[str, Any]) -> str | None:
    machine = shape.files(directory)
    if manifest["memory"] != _identity(machine.memory):
        return "its memory was changed"
    if manifest["state"] != hashlib.sha256(machine.state.read_bytes()).hexdigest():
        return "its state was changed"
    if shape.build_id(manifest["description"]) != directory.name:
        return "it is another's, or not whole"
    return None


def _identity(path: Path) -> list[int]:
    """What changes when somebody writes to the file: reading it all would take longer than a start."""
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns]
