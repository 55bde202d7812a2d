"""From an image and what the user asks of it to a container's spec: one frozen request, one pure function."""

import os
import time
from collections.abc import Iterable
from dataclasses import field, replace
from pathlib import Path

from woodlot import settings
from woodlot.container import capabilities, health, network, options, ports, restart, sockets
from woodlot.container.health import HealthRequest
from woodlot.container.lifecycle import new_id
from woodlot.container.mounts import Mounts, build_mounts, check_sources
from woodlot.container.spec import ContainerSpec, DnsSpec, ProcessSpec, RestartPolicy, SocketSpec
from woodlot.errors import ConfigError
from woodlot.image.image import Image
from woodlot.network import egress
from woodlot.units import MIB, parse_size
from woodlot.values import dataclass

# Docker's least.
MIN_MEMORY_BYTES = 6 * MIB
_MAX_DEFAULT_CPUS = 4
MIN_CPUS = 0.01
MAX_HOSTNAME = 64  # HOST_NAME_MAX, sethostname(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks of an image; None and empty leave it to the image, then to the settings."""

    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    name: str | None = None
    interactive: bool = False
    tty: bool = False
    env: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()
    user: str | None = None
    uid: int | None = None
    gid: int | None = None
    workdir: str | None = None
    cpus: float | None = None
    memory: str | None = None
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    shm_size: str | None = None
    ulimits: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    init: bool = False
    networks: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    publish_all: bool = False
    publish_sockets: tuple[str, ...] = ()
    ssh: bool = False
    hostname: str | None = None
    hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    no_dns: bool = False
    kernel: Path | None = None
    kernel_args: tuple[str, ...] = ()
    remove: bool = False
    restart: str | None = None
    health: HealthRequest = field(default_factory=HealthRequest)

    def check(self) -> None:
        """Find what is wrong before anything is fetched or made.

        Raises:
            ConfigError: The first thing that is.
        """
        if self.name is not None:
            options.check_name(self.name)
        if self.kernel is not None and not self.kernel.is_file():
            raise ConfigError(
                f"the kernel {self.kernel} is not a file",
                hint="give the path of a bzImage (amd64) or an Image (arm64), or leave out --kernel",
            )
        for argument in self.kernel_args:
            if not argument or any(char.isspace() or char == "\0" for char in argument):
                raise ConfigError(f"--kernel-arg cannot be {argument!r}", hint="give one argument")
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise ConfigError(f"--workdir must be absolute, got {self.workdir!r}")
        self._check_files()
        self._check_network()
        options.parse_ulimits(self.ulimits)
        options.parse_labels(self.labels)
        options.join_user(self.user, self.uid, self.gid)
        options.parse_env(self.env, environ=os.environ)
        for path in self.env_files:
            # A pipe can be read only once: when its variables are wanted.
            if path.is_file() or not os.access(path, os.R_OK) or path.is_dir():
                options.read_env_file(path, environ=os.environ)
        if self.shm_size is not None:
            parse_size(self.shm_size, what="--shm-size")
        capabilities.parse_names(self.cap_add, flag="--cap-add")
        capabilities.parse_names(self.cap_drop, flag="--cap-drop")
        choose_cpus(self.cpus)
        choose_memory(self.memory)
        self.health.check()
        restart.check(self.parse_restart(), remove=self.remove)

    def parse_restart(self) -> RestartPolicy:
        """When it is started again."""
        return restart.parse_policy(self.restart) if self.restart else RestartPolicy()

    def build_mounts(self, image_volumes: Iterable[str] = ()) -> Mounts:
        """What is mounted in the container: as the flags say, and where they do not, as the image declares."""
        return build_mounts(
            self.volumes,
            self.mounts,
            self.tmpfs,
            directory=Path.cwd(),
            image_volumes=image_volumes,
        )

    def parse_sockets(self) -> tuple[SocketSpec, ...]:
        """The sockets that lead to the container."""
        return sockets.parse_published(self.publish_sockets, directory=Path.cwd())

    def own_env(self) -> tuple[str, ...]:
        """Variables that flags other than ``--env`` give, which comes after them."""
        return (f"{sockets.SSH_VARIABLE}={sockets.SSH_SOCKET}",) if self.ssh else ()

    def _check_files(self) -> None:
        mounted = self.build_mounts()
        check_sources(mounted.shared)
        sockets.check(self.parse_sockets(), mounted.shared, ssh=self.ssh, environ=os.environ)
        taken = {mount.destination for mount in mounted.shared}
        taken |= {mount.destination for mount in mounted.tmpfs}
        if self.ssh and sockets.SSH_SOCKET in taken:
            raise ConfigError(
                f"two mounts have the destination {sockets.SSH_SOCKET}",
                hint="leave out --ssh, or what you mount there",
            )

    def _check_network(self) -> None:
        networks = network.parse_networks(self.networks)
        if (ports.parse_publish(self.ports) or self.publish_all) and not networks:
            raise ConfigError("--publish needs a network", hint="leave out --network none")
        if self.egress:
            egress.join(self.egress)
            if not networks:
                raise ConfigError("--egress needs a network", hint="leave out --network none")
        if self.hostname is not None:
            network.check_host_name(self.hostname, what="--hostname")
            if len(self.hostname) > MAX_HOSTNAME:
                raise ConfigError(f"--hostname is longer than {MAX_HOSTNAME} characters")
        self.parse_dns()

    def parse_dns(self) -> DnsSpec:
        """How the container is to resolve names."""
        return network.parse_dns(
            hosts=self.hosts,
            nameservers=self.dns,
            search=self.dns_search,
            options=self.dns_options,
            enabled=not self.no_dns,
        )


def build_spec(image: Image, request: Request, *, emulated: bool = False) -> ContainerSpec:
    """The container that ``request`` asks of ``image``.

    Args:
        image: What it is made from.
        request: What is asked.
        emulated: Its processor will be; one thread of the host's then does all its work.

    Raises:
        ConfigError: A part of the request is not valid, or image and request name no command.
    """
    request.check()
    config = image.config
    container_id = new_id()
    hostname = request.hostname or container_id[:12]
    published = ports.parse_publish(request.ports)
    if request.publish_all:
        published += ports.parse_exposed(config.exposed_ports, published)
    # As Docker: an entrypoint of the user's discards the image's command too, and one empty word is none.
    entrypoint = config.entrypoint if request.entrypoint is None else (request.entrypoint,)
    if entrypoint == ("",):
        entrypoint = ()
    command = request.args or (config.cmd if request.entrypoint is None else ())
    args = (*entrypoint, *command)
    if not args:
        raise ConfigError(
            f"image {image.reference.familiar} names no command",
            hint="give one after the image's name",
        )
    add = capabilities.parse_names(request.cap_add, flag="--cap-add")
    drop = capabilities.parse_names(request.cap_drop, flag="--cap-drop")
    mounted = request.build_mounts(config.volumes)
    spec = ContainerSpec(
        id=container_id,
        name=request.name or container_id[:12],
        image=str(image.reference),
        image_digest=str(image.manifest_digest),
        platform=str(image.platform),
        rootfs=str(image.rootfs),
        process=ProcessSpec(
            args=args,
            entrypoint_args=len(entrypoint),
            env=options.merge_env(
                (*config.env, *request.own_env()),
                request.env_files,
                request.env,
                tty=request.tty,
                hostname=hostname,
            ),
            cwd=request.workdir or config.workdir or "/",
            user=options.join_user(request.user, request.uid, request.gid) or config.user,
            tty=request.tty,
            stdin=request.interactive,
            capabilities=capabilities.build_set(add, drop),
            rlimits=options.parse_ulimits(request.ulimits),
            init=request.init,
        ),
        cpus=choose_cpus(request.cpus, emulated=emulated),
        memory_bytes=choose_memory(request.memory),
        disk_bytes=settings.get_int("container.disk"),
        hostname=hostname,
        networks=network.parse_networks(request.networks),
        egress=str(egress.join(request.egress)) if request.egress else "",
        ports=published,
        sockets=request.parse_sockets(),
        ssh=request.ssh,
        dns=request.parse_dns(),
        read_only=request.read_only,
        tmpfs=mounted.tmpfs,
        mounts=tuple(
            replace(mount, source=new_id()) if mount.anonymous else mount
            for mount in mounted.shared
        ),
        shm_bytes=parse_size(request.shm_size or "64m", what="--shm-size"),
        labels={**config.labels, **options.parse_labels(request.labels)},
        cap_add=add,
        cap_drop=drop,
        kernel=str(request.kernel.absolute()) if request.kernel else None,
        kernel_args=request.kernel_args,
        remove=request.remove,
        restart=request.parse_restart(),
        health=health.build_spec(request.health, config.healthcheck),
        stop_signal=_stop_signal(config.stop_signal),
        created_at=time.time(),
    )
    _check_text(spec)
    return spec


def _check_text(spec: ContainerSpec) -> None:
    """See that the guest can be told everything: the protocol's texts are UTF-8, a host's arguments any bytes."""
    process = spec.process
    destinations = [
        *(mount.destination for mount in spec.tmpfs),
        *(mount.destination for mount in spec.mounts),
        *(one.container_path for one in spec.sockets),
    ]
    flags = (flag for mount in spec.tmpfs for flag in mount.options)
    probe = spec.health.args if spec.health else ()
    for text in (
        *probe,
        *process.args,
        *process.env,
        process.cwd,
        process.user,
        *destinations,
        *flags,
    ):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{text!r} is not UTF-8") from error


def choose_cpus(asked: float | None, *, emulated: bool = False) -> float:
    """The CPUs of a container that asks for so many, or for none in particular.

    Raises:
        ConfigError: This machine has not so many.
    """
    host = os.cpu_count() or 1
    cpus = settings.get_float("container.cpus") if asked is None else asked
    if asked is None and cpus == 0:
        cpus = 1 if emulated else min(_MAX_DEFAULT_CPUS, host)
    if not MIN_CPUS <= cpus <= host:
        raise ConfigError(f"--cpus must be from {MIN_CPUS:g} to {host}, got {cpus:g}")
    return cpus


def choose_memory(asked: str | None) -> int:
    """The memory of a container that asks for so much, or for none in particular; in bytes.

    Raises:
        ConfigError: It is no size, or one that cannot be had.
    """
    memory = (
        settings.get_int("container.memory")
        if asked is None
        else parse_size(asked, what="--memory")
    )
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not MIN_MEMORY_BYTES <= memory <= host:
        raise ConfigError(
            f"--memory must be from 6m to this machine's {host // MIB}m, got {memory // MIB}m",
            hint="give less with --memory, or set container.memory"
            if memory > host
            else "give more with --memory, or set container.memory",
        )
    return memory


def _stop_signal(text: str) -> str:
    try:
        return options.signal_name(options.parse_signal(text or "SIGTERM"))
    except ConfigError:
        # An image may name a signal that there is not; stopping it must work all the same.
        return "SIGTERM"
