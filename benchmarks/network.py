"""Throughput of networks with iperf3: the switch, the bridge and Docker, in one run.

    python -m benchmarks.network [--seconds S]

One container sends to the host, receives from it, and sends to another container. Prints a table and writes
build/bench-network.json. Needs root, as the bridge and Docker do.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cli import Cli
from tests.daemon import free_port, run_daemon
from tests.images.cache import BUILD
from tests.images.mkimages import PATH_ENV, ImageLayout, fetch_debian
from tests.peer import Docker, run_docker
from tests.registry.push import push_layout
from tests.registry.server import Registry, serve_registry

OUTPUT = BUILD / "bench-network.json"
IMAGE = "iperf3:3"
NETWORK = "bench"
PROGRAMS = ("docker-registry", "dockerd", "iperf3", "iptables", "mmdebstrap")
ROWS = ("container to host", "host to container", "container to container")
# Each prints one document; the other container may not listen yet.
SCRIPT = """
iperf3 --json -t {seconds} -c {host} -p {port}
iperf3 --json -t {seconds} -c {host} -p {port} --reverse
for _ in $(seq 30); do
    iperf3 --json -t {seconds} -c {other} > /tmp/out && break
    sleep 1
done
cat /tmp/out
"""


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description="Measure networks against Docker's.")
    parser.add_argument("--seconds", type=int, default=10, metavar="S", help="of each transfer")
    seconds: int = parser.parse_args().seconds
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if os.geteuid() != 0:
        missing.insert(0, "root's rights")
    if missing:
        print(f"error: measuring needs {', '.join(missing)}", file=sys.stderr)
        return 1
    results: dict[str, dict[str, float]] = {}
    with open_sides() as (container, docker, registry):
        image = registry.reference(IMAGE)
        container.ok("pull", image)
        docker("pull", "-q", image)
        for driver in ("switch", "bridge"):
            results[driver] = measure_woodlot(container, image, driver, seconds)
        results["docker"] = measure_docker(docker, image, seconds)
    OUTPUT.write_text(json.dumps({"Mbit/s": results}, indent=2) + "\n")
    print("\n".join(render(results)))
    return 0


def ensure_image() -> Path:
    """An OCI image layout with iperf3, made once."""
    layout = BUILD / "bench/iperf3"
    if not layout.exists():
        partial = layout.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        made = ImageLayout(partial)
        config = {"Env": [PATH_ENV], "Cmd": ["iperf3", "-s"]}
        made.tag(IMAGE, made.manifest([fetch_debian("iperf3")], config))
        partial.rename(layout)
    return layout


@contextmanager
def open_sides() -> Iterator[tuple[Cli, Docker, Registry]]:
    """Both sides with empty stores, and the registry they pull from."""
    base = BUILD / "bench"
    kernels, root = base / "kernels", base / "network/woodlot"
    kernels.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(base / "network", ignore_errors=True)
    root.mkdir(parents=True)
    (root / "kernels").symlink_to(kernels)
    with ExitStack() as stack:
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wl-")))
        registry = stack.enter_context(serve_registry(base / "network/registry"))
        push_layout(ensure_image(), registry.endpoint, names=[IMAGE])
        docker = stack.enter_context(run_docker(base / "network/docker", network=True))
        container = Cli(root=root, home=base / "network", runtime=runtime)
        stack.callback(container, "delete", "--all", "--force")
        yield container, docker, registry
    shutil.rmtree(base / "network", ignore_errors=True)


def measure_woodlot(container: Cli, image: str, driver: str, seconds: int) -> dict[str, float]:
    """Mbit/s of each row on a network of that driver."""
    container.ok("network", "create", "--driver", driver, driver)
    port = free_port()
    given = {"WOODLOT_NETWORK_HOST_PORTS": str(port)}

    def command(*args: str) -> str:
        return container.ok(*args, env=given)

    host = "host.container.internal"
    return measure(command, image, driver, host=host, listen=("127.0.0.1", port), seconds=seconds)


def measure_docker(docker: Docker, image: str, seconds: int) -> dict[str, float]:
    """Mbit/s of each row on a network of Docker's."""

    def command(*args: str) -> str:
        return docker(*args).stdout

    command("network", "create", NETWORK)
    try:
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        host = command("network", "inspect", "--format", gateway, NETWORK).strip()
        listen = (host, free_port())
        return measure(command, image, NETWORK, host=host, listen=listen, seconds=seconds)
    finally:
        command("network", "rm", NETWORK)


def measure(
    command: Callable[..., str],
    image: str,
    network: str,
    *,
    host: str,
    listen: tuple[str, int],
    seconds: int,
) -> dict[str, float]:
    """Mbit/s of each row.

    Args:
        command: Ours or Docker's; what it printed.
        image: Has iperf3.
        network: The network to be measured.
        host: What its containers call the host.
        listen: Address and port of the host that this leads to.
        seconds: Of each transfer.
    """
    address, port = listen
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        server = ["iperf3", "-s", "-B", address, "-p", str(port), "--forceflush"]
        with run_daemon(server, log=log, is_ready=lambda: "listening" in log.read_text()):
            command("run", "-d", "--name", "other", "--network", network, image)
            try:
                script = SCRIPT.format(host=host, port=port, other="other", seconds=seconds)
                printed = command("run", "--rm", "--network", network, image, "sh", "-c", script)
            finally:
                command("rm", "-f", "other")
    return dict(zip(ROWS, parse(printed), strict=True))


def parse(printed: str) -> Iterator[float]:
    """Mbit/s as received, of each document of iperf3's that was printed one after the other."""
    decoder, rest = json.JSONDecoder(), printed.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document["end"]["sum_received"]["bits_per_second"] / 1e6
        rest = rest[end:].strip()


def render(results: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The table, a column for each network."""
    yield f"{'Mbit/s':26}" + "".join(f"{name:>10}" for name in results)
    for row in ROWS:
        yield f"{row:26}" + "".join(f"{column[row]:10.0f}" for column in results.values())


if __name__ == "__main__":
    sys.exit(main())
