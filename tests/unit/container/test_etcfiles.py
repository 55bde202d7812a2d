"""The files of /etc, held byte for byte: they are those that Docker writes."""

from woodlot.container.etcfiles import build_hostname, build_hosts, build_resolv_conf

LOOPBACK = b"""\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def test_hosts() -> None:
    assert build_hosts("web", []) == LOOPBACK
    assert build_hosts("web", ["10.0.2.15", "fec0::15"]) == (
        LOOPBACK + b"10.0.2.15\tweb\nfec0::15\tweb\n"
    )


def test_hostname() -> None:
    assert build_hostname("web") == b"web\n"


def test_resolv_conf() -> None:
    assert build_resolv_conf([]) == b""
    assert build_resolv_conf(["10.0.2.3", "9.9.9.9"]) == (
        b"nameserver 10.0.2.3\nnameserver 9.9.9.9\n"
    )
