"""Where everything lives on the host.

data/                      $XDG_DATA_HOME/woodlot, or ROOT with --root / WOODLOT_ROOT
  woodlot.db               records: images and containers (SQLite, WAL); woodlot.db-reserve: room for when the disk is full
  content/sha256/HEX       blobs, whole and checked; content/ingest/ for those on the way
  rootfs/HEX.erofs         one per image, read-only, shared by its containers
  disks/                   preformatted writable disks, copied for each container
  kernels/NAME/            vmlinuz, modules, manifest.json; kernels/default-ARCH -> NAME
  templates/ID/              saved machines that new ones start from; see template/template.py
  initramfs/HEX.cpio       agent and modules for one kernel
  pool/NAME/               a machine that waits; see container/pool.py
  containers/ID/           upper.ext4, console.log, vmm.log, supervisor.log, lock, …
  networks/ID/             switch.log, lock
  volumes/NAME/            data or disk.ext4, lock
runtime/                   $XDG_RUNTIME_DIR/woodlot: sockets only, paths under 100 bytes
  ID12/                    a.sock (agent), s.sock (supervisor), n0.sock (where a network's switch is given a link)
  nID12.sock               a network's switch
  tID12/                   a machine on the way to be saved
  pNAME12/                 a machine that waits for a container
"""

import hashlib
import os
import stat
from pathlib import Path

from woodlot.errors import ConfigError
from woodlot.values import dataclass

# sun_path holds 108 bytes on Linux and 104 on macOS, with the final NUL.
MAX_SOCKET_PATH_BYTES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The directories of one woodlot installation."""

    data: Path
    runtime: Path

    @property
    def database(self) -> Path:
        """Records of images and containers."""
        return self.data / "woodlot.db"

    @property
    def content(self) -> Path:
        """Blobs by digest."""
        return self.data / "content"

    @property
    def rootfs(self) -> Path:
        """EROFS images."""
        return self.data / "rootfs"

    @property
    def disks(self) -> Path:
        """Preformatted writable disks."""
        return self.data / "disks"

    @property
    def kernels(self) -> Path:
        """Guest kernels."""
        return self.data / "kernels"

    @property
    def initramfs(self) -> Path:
        """Initial RAM filesystems."""
        return self.data / "initramfs"

    @property
    def templates(self) -> Path:
        """Saved machines."""
        return self.data / "templates"

    @property
    def pool(self) -> Path:
        """Machines that wait for a container."""
        return self.data / "pool"

    def pool_sockets(self, name: str) -> Path:
        """The directory of the sockets of one of them."""
        return self.runtime / f"p{name[:12]}"

    @property
    def events(self) -> Path:
        """What happened."""
        return self.data / "events"

    @property
    def containers(self) -> Path:
        """One directory for each container."""
        return self.data / "containers"

    @property
    def volumes(self) -> Path:
        """One directory for each volume."""
        return self.data / "volumes"

    def volume(self, name: str) -> Path:
        """The directory of one volume."""
        return self.volumes / name

    def container(self, container_id: str) -> Path:
        """The directory of one container."""
        return self.containers / container_id

    def network(self, network_id: str) -> Path:
        """The directory of one network."""
        return self.data / "networks" / network_id

    def switch_socket(self, network_id: str) -> Path:
        """Where the switch of one network is reached."""
        return self.runtime / f"n{network_id[:12]}.sock"

    def sockets(self, container_id: str) -> Path:
        """The directory of one container's sockets; there as long as its supervisor."""
        return self.runtime / container_id[:12]

    def machine_sockets(self, container_id: str) -> Path:
        """The directory of the sockets of one container's machine; there from a start to its end."""
        return self.sockets(container_id) / "m"


def find_paths(root: str | os.PathLike[str] | None = None) -> Paths:
    """The directories to use, made on the way with mode 0700.

    Args:
        root: Moves all data there; None takes ``$WOODLOT_ROOT`` or the user's data directory.

    Raises:
        ConfigError: A directory cannot be made or belongs to somebody else.
    """
    chosen = root or os.environ.get("WOODLOT_ROOT")
    data = Path(chosen).absolute() if chosen else _xdg("XDG_DATA_HOME", ".local/share") / "woodlot"
    runtime = _runtime_base()
    if chosen:
        runtime /= hashlib.sha256(os.fsencode(data)).hexdigest()[:8]
    paths = Paths(data=data, runtime=runtime)
    for directory in (data, runtime):
        _ensure_private(directory)
    longest = paths.machine_sockets("0" * 12) / "a.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the runtime directory {runtime} is too long for a socket's path",
            hint="set XDG_RUNTIME_DIR to a shorter directory",
        )
    return paths


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def _runtime_base() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and os.access(base, os.W_OK):
        return Path(base) / "woodlot"
    # /run is cleared at boot, as sockets should be, but only root may write there.
    return Path("/run/woodlot") if os.geteuid() == 0 else Path(f"/tmp/woodlot-{os.geteuid()}")  # noqa: S108


def _ensure_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigError(
            f"cannot make the directory {directory}: {error.strerror}",
            hint="choose another place with --root or WOODLOT_ROOT",
        ) from error
    # In a directory that everyone may write to, somebody else could have made it first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(
            f"{directory} is not a directory of ours (owner uid {status.st_uid})",
            hint="remove it, or choose another place with --root or WOODLOT_ROOT",
        )
