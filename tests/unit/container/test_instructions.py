"""``commit --change``: what Docker's documentation and its parser's tests say of each instruction."""

from dataclasses import replace
from typing import Any

import pytest

from woodlot.container.instructions import change
from woodlot.container.words import expand, split
from woodlot.errors import ConfigError
from woodlot.oci.config import ImageConfig
from woodlot.oci.platform import parse_platform

BASE = ImageConfig(
    platform=parse_platform("linux/amd64"),
    diff_ids=(),
    env=("PATH=/bin", "EMPTY=", "A=one two"),
    entrypoint=("/entry",),
    cmd=("serve",),
    labels={"tier": "base"},
    workdir="/srv",
    exposed_ports=("80/tcp",),
    volumes=("/data",),
)
SHELL = ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("plain", "plain"),
        ("$A", "one two"),
        ("${A}s", "one twos"),
        ("$PATH:/x", "/bin:/x"),
        ("$NONE.", "."),
        ("${NONE:-x$PATH}", "x/bin"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:-x}", "one two"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NONE:-${NONE:-y}}", "y"),
        ("${A:?gone}", "one two"),
        ("'$A'", "$A"),
        ('"$A"', "one two"),
        ('"a\\"b\\$A\\n"', 'a"b$A\\n'),
        (r"a\ b\$A", "a b$A"),
        ("a\\", "a\\"),
        ("$", "$"),
        ("$-x", "$-x"),
        ('it"\'"s', "it's"),
    ],
)
def test_words_are_expanded(word: str, expanded: str) -> None:
    assert expand(word, {"PATH": "/bin", "EMPTY": "", "A": "one two"}) == expanded


@pytest.mark.parametrize("word", ["'a", '"a', "${A", "${}", "${A:-x", "${NONE:?gone}", "${A%x}"])
def test_words_that_are_none(word: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is for people
        expand(word, {"A": "1"})


def test_words_are_split_with_their_quotes() -> None:
    assert split("""a  b='c d' "e\\" f"\tg\\ h""") == ["a", "b='c d'", '"e\\" f"', "g\\ h"]
    with pytest.raises(ValueError, match="no end"):
        split("a='b")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (['CMD ["a", "b c"]'], {"cmd": ("a", "b c")}),
        (["CMD a  b $A"], {"cmd": (*SHELL, "a  b $A")}),
        (["cmd []"], {"cmd": ()}),
        (["CMD [a, b]"], {"cmd": (*SHELL, "[a, b]")}),
        (['ENTRYPOINT ["x"]'], {"entrypoint": ("x",), "cmd": ()}),
        (["ENTRYPOINT x y"], {"entrypoint": (*SHELL, "x y"), "cmd": ()}),
        (["ENTRYPOINT []"], {"entrypoint": ()}),
        (['CMD ["c"]', 'ENTRYPOINT ["x"]'], {"entrypoint": ("x",), "cmd": ("c",)}),
        (['ENTRYPOINT ["x"]', 'CMD ["c"]'], {"entrypoint": ("x",), "cmd": ("c",)}),
        (["ENV B=1 C='2 3' PATH=$PATH:/x"], {"env": ("PATH=/bin:/x", "EMPTY=", "A=one two", "B=1", "C=2 3")}),
        (["ENV A b c"], {"env": ("PATH=/bin", "EMPTY=", "A=b c")}),
        (["ENV B=1", "ENV C=${B}2"], {"env": (*BASE.env, "B=1", "C=12")}),
        (["ENV B=1 C=$B"], {"env": (*BASE.env, "B=1", "C=")}),
        (["ENV B="], {"env": (*BASE.env, "B=")}),
        (["EXPOSE 80 53/UDP 8000-8002"], {"exposed_ports": ("53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp")}),
        (['LABEL a=b "c d"="$A"'], {"labels": {"tier": "base", "a": "b", "c d": "one two"}}),
        (["LABEL tier front end"], {"labels": {"tier": "front end"}}),
        (["ONBUILD run x", "ONBUILD COPY a b"], {"on_build": ("run x", "COPY a b")}),
        (["STOPSIGNAL SIGQUIT"], {"stop_signal": "SIGQUIT"}),
        (["STOPSIGNAL 9"], {"stop_signal": "9"}),
        (["USER www:staff"], {"user": "www:staff"}),
        (["VOLUME /a /b"], {"volumes": ("/a", "/b", "/data")}),
        (['VOLUME ["/a b"]'], {"volumes": ("/a b", "/data")}),
        (["WORKDIR /a/../b/"], {"workdir": "/b"}),
        (["WORKDIR c", "WORKDIR d"], {"workdir": "/srv/c/d"}),
        (["HEALTHCHECK NONE"], {"healthcheck": {"Test": ["NONE"]}}),
        (["HEALTHCHECK CMD curl x"], {"healthcheck": {"Test": ["CMD-SHELL", "curl x"]}}),
        (
            ['HEALTHCHECK --interval=1m30s --retries=2 --timeout=0.5s --start-period=2s CMD ["a", "b"]'],
            {"healthcheck": {"Test": ["CMD", "a", "b"], "Interval": 90 * 10**9, "Retries": 2, "Timeout": 5 * 10**8,
                             "StartPeriod": 2 * 10**9}},
        ),
        (["# only\n\nUSER \\\n  me\nSTOPSIGNAL INT"], {"user": "me", "stop_signal": "INT"}),
    ],
)  # fmt: skip
def test_changes(texts: list[str], expected: dict[str, Any]) -> None:
    assert change(BASE, texts) == replace(BASE, **expected)


def test_the_images_own_shell_runs_texts() -> None:
    config = change(replace(BASE, shell=("/bin/bash", "-lc")), ["CMD a b", "ENTRYPOINT c"])
    assert config.cmd == ("/bin/bash", "-lc", "a b")
    assert config.entrypoint == ("/bin/bash", "-lc", "c")


@pytest.mark.parametrize(
    "text",
    [
        "RUN x", "FROM x", "nonsense", "CMD", "ENTRYPOINT  ", "CMD [1]", 'CMD ["a", null]', "ENV A", "ENV A=1 B",
        "ENV =x", "ENV A='x", "EXPOSE 0", "EXPOSE 80-70", "EXPOSE 99999", "EXPOSE 8080:80", "EXPOSE 80/icmp", "EXPOSE x",
        "LABEL a", "ONBUILD FROM x", "ONBUILD ONBUILD RUN x", "STOPSIGNAL NOPE", "USER $NONE", 'VOLUME [""]',
        "VOLUME $NONE", "WORKDIR $NONE", "HEALTHCHECK", "HEALTHCHECK CMD", "HEALTHCHECK NONE x", "HEALTHCHECK RUN x",
        "HEALTHCHECK --interval=1s NONE", "HEALTHCHECK --interval=x CMD a", "HEALTHCHECK --retries=0 CMD a",
        "HEALTHCHECK --nope=1 CMD a", "HEALTHCHECK --interval=1us CMD a", "USER ${NONE:?no user}",
    ],
)  # fmt: skip
def test_what_is_no_change(text: str) -> None:
    with pytest.raises(ConfigError, match=text.split(maxsplit=1)[0]):
        change(BASE, [text])
