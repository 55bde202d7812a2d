"""The files of ``/etc`` that say who the container is: hosts, hostname, resolv.conf, as Docker writes them."""

from collections.abc import Sequence


def build_hosts(
    hostname: str, addresses: Sequence[str], *, more: Sequence[tuple[str, str]] = ()
) -> bytes:
    """``/etc/hosts`` of a container.

    Args:
        hostname: The container's own name.
        addresses: Its addresses, without prefix length; none for a container with no network.
        more: Names and addresses that the user adds.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *(f"{address}\t{name}" for name, address in more),
        *(f"{address}\t{hostname}" for address in addresses),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def build_hostname(hostname: str) -> bytes:
    """``/etc/hostname``."""
    return f"{hostname}\n".encode()


def build_resolv_conf(
    nameservers: Sequence[str], *, search: Sequence[str] = (), options: Sequence[str] = ()
) -> bytes:
    """``/etc/resolv.conf``."""
    lines = [f"nameserver {server}" for server in nameservers]
    if search:
        lines.append(" ".join(("search", *search)))
    if options:
        lines.append(" ".join(("options", *options)))
    return "".join(f"{line}\n" for line in lines).encode()
