"""As whom an ordinary user's files are served."""

from woodlot.files.idmap import IdMap, build_idmap, parse_subids

SUBIDS = """
root:1:5
ann:100000:65536
1000:300000:10
bob:200000:65536
ann:100000:65536
ann:bad:1
ann:5
ann:7:0
"""


def test_ranges_are_found_by_name_and_by_number() -> None:
    assert parse_subids(SUBIDS, ["1000", "ann"]) == ((100000, 65536), (300000, 10))
    assert parse_subids(SUBIDS, ["carl"]) == ()


def test_root_is_the_user_and_the_others_are_subordinate() -> None:
    assert build_idmap(1000, 50, [(100000, 65536), (300000, 10)], [(200000, 7)]) == IdMap(
        uids=((0, 1000, 1), (1, 100000, 65536), (65537, 300000, 10)),
        gids=((0, 50, 1), (1, 200000, 7)),
    )


def test_without_ranges_of_both_kinds_there_is_only_root() -> None:
    single = IdMap(uids=((0, 1000, 1),), gids=((0, 50, 1),))
    assert build_idmap(1000, 50, [(100000, 65536)], []) == single
    assert build_idmap(1000, 50, [], []) == single
    assert single.is_single
