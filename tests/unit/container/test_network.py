import re

from woodlot.container.network import Interface, build_interface


def test_the_address_is_qemus() -> None:
    # SHA-256("abc") begins with ba7816.
    assert build_interface("default", "abc") == Interface(
        mac="52:54:00:ba:78:16",
        address="10.0.2.15",
        prefix_length=24,
        gateway="10.0.2.2",
        nameserver="10.0.2.3",
    )


def test_each_container_has_a_mac_of_its_own_and_keeps_it() -> None:
    macs = [build_interface("default", f"{number:064x}") for number in range(50)]
    found = {interface.mac for interface in macs if interface is not None}
    assert len(found) == 50
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", mac) for mac in found)
    assert build_interface("default", f"{7:064x}") == macs[7]


def test_none_is_no_interface() -> None:
    assert build_interface("none", "abc") is None
