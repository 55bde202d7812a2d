"""Makes real OCI images from Debian packages with nothing but the standard library and mmdebstrap.

    python -m tests.images.mkimages OUT [GROUP...]   write the OCI image layout OUT; groups: busybox debian demo

The writer is separate from woodlot's own code on purpose: tests read images that woodlot did not write. The images
are small, and each is there for a reason:

    busybox:1.35     index of linux/amd64 and linux/arm64, one gzip layer each: Debian's static busybox
    debian:12        linux/amd64, one gzip layer
    debian:12-zstd   the same layer, compressed with zstd
    python:3.11      linux/amd64, debian:12 and a gzip layer with python3
    nginx:1.22       linux/amd64, debian:12 and a gzip layer with nginx; EXPOSE 80, STOPSIGNAL SIGQUIT
    postgres:15      linux/amd64, debian:12 and a gzip layer with PostgreSQL and a made cluster; USER postgres
    edge:1           linux/amd64, busybox and three layers of legal but awkward tar entries (`edge_layers`); Docker reads it
    edge:2           edge:1 and a layer with one path twice (the later entry wins) and a hard link to a lower layer's
                     file; Docker refuses both, umoci takes both
    demo:1           on request: this machine's architecture, one gzip layer, the busybox that is installed here
"""

import gzip
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
CREATED = "2026-01-01T00:00:00Z"
CREATED_UNIX = 1767225600
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

Descriptor = dict[str, Any]
Entry = tuple[tarfile.TarInfo, bytes | None]


class ImageLayout:
    """An OCI image layout directory that is being written (image-spec, image-layout.md)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tags: list[Descriptor] = []
        self._layers: dict[tuple[str, str], Descriptor] = {}
        self._blobs = root / "blobs/sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, media_type: str, **extra: object) -> Descriptor:
        """Write a blob and return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **extra}

    def layer(self, tar: bytes, compression: str = "gzip") -> Descriptor:
        """Write a layer, each combination of content and compression once."""
        key = (hashlib.sha256(tar).hexdigest(), compression)
        if key not in self._layers:
            if compression == "zstd":
                argv = ["zstd", "-q", "-3", "-c"]
                packed = subprocess.run(argv, input=tar, stdout=subprocess.PIPE, check=True).stdout
            else:
                packed = gzip.compress(tar, 6, mtime=0)
            self._layers[key] = self.blob(packed, f"{OCI}.layer.v1.tar+{compression}")
        return self._layers[key]

    def manifest(
        self,
        tars: Sequence[bytes],
        config: dict[str, Any],
        *,
        arch: str = "amd64",
        compression: str = "gzip",
    ) -> Descriptor:
        """Write an image of one platform: layers, base first, its config and its manifest."""
        diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
        history = [{"created": CREATED, "created_by": f"layer {i}"} for i in range(len(tars))]
        image_config = {
            "architecture": arch,
            "os": "linux",
            "config": config,
            "created": CREATED,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.blob(json.dumps(image_config).encode(), f"{OCI}.config.v1+json"),
            "layers": [self.layer(tar, compression) for tar in tars],
        }
        return self.blob(
            json.dumps(manifest).encode(),
            f"{OCI}.manifest.v1+json",
            platform={"architecture": arch, "os": "linux"},
        )

    def tag(self, name: str, *manifests: Descriptor) -> None:
        """Give one manifest, or an index of several, a name."""
        if len(manifests) == 1:
            descriptor = dict(manifests[0])
        else:
            descriptor = self.blob(_index(manifests), f"{OCI}.index.v1+json")
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.tags.append(descriptor)
        (self.root / "index.json").write_bytes(_index(self.tags))


def _index(manifests: Sequence[Descriptor]) -> bytes:
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": list(manifests)}
    return json.dumps(index).encode()


def make_entry(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    link: str = "",
    mtime: int = CREATED_UNIX,
    device: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None,
    data: bytes | None = None,
) -> Entry:
    """A tar entry and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = kind, mode, uid, gid
    info.linkname, info.mtime = link, mtime
    info.devmajor, info.devminor = device
    info.pax_headers = pax or {}
    return info, data


def make_file(name: str, data: bytes = b"", mode: int = 0o644, **more: Any) -> Entry:
    """A regular file."""
    return make_entry(name, mode=mode, data=data, **more)


def make_directory(name: str, mode: int = 0o755, **more: Any) -> Entry:
    """A directory."""
    return make_entry(name, tarfile.DIRTYPE, mode=mode, **more)


def make_symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return make_entry(name, tarfile.SYMTYPE, mode=0o777, link=target)


def make_tar(entries: Iterable[Entry]) -> bytes:
    """A PAX tar of the entries, in the order given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            info.size = len(data) if data is not None else info.size
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def fetch_debian(*packages: str, variant: str = "minbase", arch: str = "amd64") -> bytes:
    """A tar of Debian 12 with ``packages``; the variant ``extract`` holds nothing else."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "root.tar")
        argv = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--architectures={arch}"]
        subprocess.run([*argv, f"--include={','.join(packages)}", "bookworm", out], check=True)
        return out.read_bytes()


def build_difference(base: bytes, full: bytes) -> bytes:
    """The layer that turns ``base`` into ``full``: what is new or changed, and a whiteout for what is gone."""
    with (
        tarfile.open(fileobj=io.BytesIO(base)) as base_tar,
        tarfile.open(fileobj=io.BytesIO(full)) as full_tar,
    ):
        old = {info.name: _identity(base_tar, info) for info in base_tar}
        entries: list[Entry] = []
        names: set[str] = set()
        for info in full_tar:
            names.add(info.name)
            if old.get(info.name) != _identity(full_tar, info):
                entries.append((info, _content(full_tar, info)))
    for name in old:
        parent, _, base_name = name.rpartition("/")
        if name not in names and parent in names:
            entries.append(make_file(f"{parent}/.wh.{base_name}"))
    return make_tar(entries)


def _identity(archive: tarfile.TarFile, info: tarfile.TarInfo) -> tuple[object, ...]:
    # Without the time of change, which two builds do not share.
    content = hashlib.sha256(_content(archive, info) or b"").digest()
    return info.type, info.mode, info.uid, info.gid, info.linkname, content


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    stream = archive.extractfile(info) if info.isreg() else None
    return stream.read() if stream else None


def fetch_busybox(arch: str) -> bytes:
    """Debian's static busybox, the program alone."""
    tar = fetch_debian("busybox-static", variant="extract", arch=arch)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        stream = archive.extractfile("./bin/busybox")
        assert stream is not None
        return stream.read()


def list_applets(busybox: bytes) -> list[str]:
    """The names that a busybox of this machine's architecture answers to."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "busybox")
        program.write_bytes(busybox)
        program.chmod(0o755)
        return subprocess.check_output([program, "--list"], text=True).split()


def busybox_layer(busybox: bytes, applets: Iterable[str]) -> bytes:
    """A root filesystem of one program under all its names."""
    modes = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
    directories = [
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "sbin",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "var",
        "var/tmp",
    ]
    passwd = (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"www:x:33:33:www:/var:/bin/sh\n"
        b"nobody:x:65534:65534::/:/bin/false\n"
    )
    return make_tar(
        [
            *(make_directory(name, modes.get(name, 0o755)) for name in directories),
            make_file("bin/busybox", busybox, 0o755),
            *(make_symlink(f"bin/{name}", "busybox") for name in applets if name != "busybox"),
            make_file("etc/passwd", passwd),
            make_file("etc/group", b"root:x:0:\nwww:x:33:\naudio:x:29:www\nnogroup:x:65534:\n"),
            make_file("etc/shadow", b"root:*:19000:0:99999:7:::\n", 0o640),
        ]
    )


def edge_layers() -> list[bytes]:
    """Three layers of legal tar entries that unpackers get wrong."""
    # VFS_CAP_REVISION_2 with the effective bit, CAP_NET_RAW permitted (linux/capability.h).
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    xattrs = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.user.note": "hello",
    }
    deep = "deep/" + "/".join(["d" * 100] * 6)
    owned: dict[str, Any] = {"mode": 0o600, "uid": 1234, "gid": 4321}
    base = make_tar(
        [
            make_directory("a"),
            make_file("a/keep", b"keep\n"),
            make_file("a/gone", b"gone\n"),
            make_directory("opaque"),
            make_file("opaque/old1", b"1"),
            make_directory("opaque/sub"),
            make_file("opaque/sub/old2", b"2"),
            make_file("file-then-dir", b"file"),
            make_directory("dir-then-file"),
            make_file("dir-then-file/x", b"x"),
            make_directory("dir-then-link"),
            make_file("dir-then-link/x", b"x"),
            make_file("hard/one", b"linked\n", **owned),
            make_entry("hard/two", tarfile.LNKTYPE, link="hard/one", **owned),
            make_file("suid", b"#!/bin/sh\n", 0o4755),
            make_file("sgid", b"#!/bin/sh\n", 0o2755),
            make_directory("sticky", 0o1777),
            make_entry("fifo", tarfile.FIFOTYPE),
            make_entry("null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            make_entry("loop0", tarfile.BLKTYPE, mode=0o660, gid=6, device=(7, 0)),
            make_file("bigid", b"big ids\n", uid=3000000000, gid=3000000001),
            make_file("cap", b"\x7fELF", 0o755, pax=xattrs),
            make_file("mtime", pax={"mtime": "1234567890.123456789"}),
            make_file("y1901", mtime=-2000000000),
            make_file("y2106", mtime=4500000000),
            make_file("empty", mode=0o000),
            make_file("page", b"p" * 4096),
            make_file("page1", b"q" * 4097),
            make_file("big", bytes(range(256)) * 40960),
            make_symlink("dangling", "../../nowhere"),
            make_symlink("absolute", "/a/keep"),
            make_symlink("self", "self"),
            make_symlink("longlink", "x" * 4095),
            make_file(f"{deep}/leaf", b"leaf\n"),
            make_file("sp ace\ttab\nnewline", b"n"),
            make_file("ünïcödé-文字", b"u"),
            make_file("n" * 255, b"255"),
            make_file("./dotted/./path", b"dot"),
            make_file("/leading", b"slash"),
            make_directory("many"),
            *(make_file(f"many/{i:05d}") for i in range(3000)),
        ]
    )
    middle = make_tar(
        [
            make_file("a/.wh.gone"),
            make_file("opaque/.wh..wh..opq"),
            make_file("opaque/new", b"new"),
            make_directory("file-then-dir"),
            make_file("file-then-dir/in", b"in"),
            make_file("dir-then-file", b"now a file"),
            make_symlink("dir-then-link", "a"),
            make_file("many/.wh.00007"),
            make_file(".wh.never-existed"),
            make_directory("sticky", 0o700, uid=5),
        ]
    )
    top = make_tar(
        [
            make_file("a/gone", b"back again\n"),
            make_file("hard/.wh.one"),
            make_file("implicit/parents/made", b"ok"),
        ]
    )
    return [base, middle, top]


def repeating_layer() -> bytes:
    """One path twice, and a hard link to a file of a lower layer."""
    return make_tar(
        [
            make_file("twice", b"first"),
            make_file("twice", b"second", 0o600),
            make_entry(
                "hard/three", tarfile.LNKTYPE, mode=0o600, uid=1234, gid=4321, link="hard/two"
            ),
        ]
    )


def add_busybox_images(layout: ImageLayout) -> None:
    """Write busybox:1.35, edge:1 and edge:2."""
    programs = {arch: fetch_busybox(arch) for arch in ("amd64", "arm64")}
    applets = list_applets(programs[HOST_ARCH])
    layers = {arch: busybox_layer(program, applets) for arch, program in programs.items()}
    config: dict[str, Any] = {"Env": [PATH_ENV], "Cmd": ["sh"]}
    layout.tag(
        "busybox:1.35",
        *(layout.manifest([layer], config, arch=arch) for arch, layer in layers.items()),
    )
    config = {
        "Env": [PATH_ENV, "EMPTY=", "SPACED=a b"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["ls -la /"],
        "WorkingDir": "/srv/edge",
        "User": "www",
        "Labels": {"kind": "edge"},
        "Volumes": {"/data": {}},
    }
    tars = [layers["amd64"], *edge_layers()]
    layout.tag("edge:1", layout.manifest(tars, config))
    layout.tag("edge:2", layout.manifest([*tars, repeating_layer()], config))


def add_debian_images(layout: ImageLayout) -> None:
    """Write debian:12, debian:12-zstd, python:3.11, nginx:1.22 and postgres:15."""
    base = fetch_debian("ca-certificates")
    config: dict[str, Any] = {"Env": [PATH_ENV], "Cmd": ["bash"]}
    layout.tag("debian:12", layout.manifest([base], config))
    layout.tag("debian:12-zstd", layout.manifest([base], config, compression="zstd"))
    top = build_difference(base, fetch_debian("ca-certificates", "python3"))
    config = {"Env": [PATH_ENV, "LANG=C.UTF-8"], "Cmd": ["python3"]}
    layout.tag("python:3.11", layout.manifest([base, top], config))
    top = build_difference(base, fetch_debian("ca-certificates", "nginx-light"))
    config = {
        "Env": [PATH_ENV],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }
    layout.tag("nginx:1.22", layout.manifest([base, top], config))
    top = build_difference(base, fetch_debian("ca-certificates", "postgresql-15"))
    config = {
        # Debian's place for the socket is made when the machine boots.
        "Env": [f"{PATH_ENV}:/usr/lib/postgresql/15/bin", "LANG=C.UTF-8", "PGHOST=/tmp"],
        "User": "postgres",
        "Cmd": ["postgres", "-D", "/etc/postgresql/15/main", "-k", "/tmp"],
        "Volumes": {"/var/lib/postgresql": {}},
        "StopSignal": "SIGINT",
    }
    layout.tag("postgres:15", layout.manifest([base, top], config))


def add_demo_image(layout: ImageLayout) -> None:
    """Write demo:1 from the busybox of this machine's package busybox-static."""
    busybox = Path("/bin/busybox").read_bytes()
    layer = busybox_layer(busybox, list_applets(busybox))
    config = {"Env": [PATH_ENV], "Cmd": ["sh"]}
    layout.tag("demo:1", layout.manifest([layer], config, arch=HOST_ARCH))


GROUPS = {"busybox": add_busybox_images, "debian": add_debian_images, "demo": add_demo_image}


def make_images(out: Path, groups: Iterable[str] = ("busybox", "debian")) -> None:
    """Write the image layout ``out`` with the images of the groups."""
    layout = ImageLayout(out)
    for group in groups:
        GROUPS[group](layout)


if __name__ == "__main__":
    make_images(Path(sys.argv[1]), sys.argv[2:] or ("busybox", "debian"))
