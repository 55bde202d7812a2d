import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from woodlot.errors import IntegrityError, LimitError, NotFoundError
from woodlot.oci.digest import Digest, digest_bytes
from woodlot.store.content import ContentStore

DATA = b"some bytes" * 100
DIGEST = digest_bytes(DATA)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


async def add(content: ContentStore, data: bytes = DATA, digest: Digest = DIGEST) -> None:
    async with content.ingest(digest, len(data)) as ingest:
        assert ingest is not None
        await ingest.write(data)
        assert not content.has(digest)
        await ingest.commit()


async def test_ingest(content: ContentStore) -> None:
    await add(content)
    assert content.has(DIGEST, len(DATA))
    assert not content.has(DIGEST, 1)
    assert content.read(DIGEST, max_bytes=2000) == DATA
    assert list(content.list()) == [DIGEST]
    assert not list(content.ingest_directory.iterdir())
    async with content.ingest(DIGEST, len(DATA)) as again:
        assert again is None
    with pytest.raises(LimitError):
        content.read(DIGEST, max_bytes=10)
    assert content.delete(DIGEST) == len(DATA)
    assert content.delete(DIGEST) == 0
    with pytest.raises(NotFoundError):
        content.read(DIGEST, max_bytes=10)


def test_draft(content: ContentStore) -> None:
    with content.draft() as draft:
        draft.write(DATA[:7])
        assert not list(content.list())
        draft.write(DATA[7:])
        # Others that clean leave it alone.
        assert content.clean_ingest(older_than_s=-1) == 0
        assert (draft.commit(), draft.size) == (DIGEST, len(DATA))
    assert content.read(DIGEST, max_bytes=2000) == DATA
    with pytest.raises(ZeroDivisionError), content.draft() as draft:  # noqa: PT012
        draft.write(b"x")
        raise ZeroDivisionError
    assert not list(content.ingest_directory.iterdir())
    # A killed process's: of use to nobody, however young.
    (content.ingest_directory / "new-abc").write_bytes(b"12345")
    (content.ingest_directory / f"sha256-{'0' * 64}").write_bytes(b"resumable")
    assert content.clean_ingest() == 5
    assert [path.name[:6] for path in content.ingest_directory.iterdir()] == ["sha256"]


async def test_resume(content: ContentStore) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with content.ingest(DIGEST, len(DATA)) as ingest:
            assert ingest is not None
            await ingest.write(DATA[:300])
            raise ZeroDivisionError
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        assert (ingest.offset, ingest.resumed) == (300, True)
        await ingest.write(DATA[300:])
        await ingest.commit()
    assert content.verify(DIGEST)


async def test_wrong_bytes(content: ContentStore) -> None:
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        await ingest.write(b"x" * len(DATA))
        with pytest.raises(IntegrityError, match="does not match its digest"):
            await ingest.commit()
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        assert ingest.offset == 0
        with pytest.raises(IntegrityError, match="longer"):
            await ingest.write(DATA + b"x")
        await ingest.write(DATA[:-1])
        with pytest.raises(IntegrityError):
            await ingest.commit()
    assert not content.has(DIGEST)
    assert not list(content.ingest_directory.iterdir())


async def test_second_writer_waits_and_reuses(content: ContentStore) -> None:
    order: list[str] = []

    async def second() -> None:
        async with content.ingest(DIGEST, len(DATA)) as ingest:
            order.append("second")
            assert ingest is None

    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        tasks = [asyncio.create_task(second()) for _ in range(5)]
        await asyncio.sleep(0.05)
        await ingest.write(DATA)
        await ingest.commit()
        order.append("first")
    await asyncio.gather(*tasks)
    assert order == ["first"] + ["second"] * 5


async def test_second_writer_takes_over(content: ContentStore) -> None:
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        await ingest.write(DATA[:10])
        task = asyncio.create_task(add_rest(content))
        await asyncio.sleep(0.05)
    assert await task == 10
    assert content.verify(DIGEST)


async def add_rest(content: ContentStore) -> int:
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        offset = ingest.offset
        await ingest.write(DATA[offset:])
        await ingest.commit()
        return offset


async def test_cleaning_spares_what_is_in_use(content: ContentStore) -> None:
    other = digest_bytes(b"other")
    async with content.ingest(other, 5) as ingest:
        assert ingest is not None
        await ingest.write(b"oth")
    async with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest is not None
        await ingest.write(DATA[:10])
        assert content.clean_ingest() == 0
        for path in content.ingest_directory.iterdir():
            os.utime(path, (0, 0))
        assert content.clean_ingest() == 3
        await ingest.write(DATA[10:])
        await ingest.commit()
    assert content.verify(DIGEST)
    assert content.clean_ingest(older_than_s=-1) == 0


async def test_link_in_ingest_is_not_followed(content: ContentStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    content.ingest_directory.mkdir(parents=True)
    (content.ingest_directory / DIGEST.replace(":", "-")).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await add(content)
    assert victim.read_bytes() == b"precious"


def test_put(content: ContentStore) -> None:
    content.put(DATA, DIGEST)
    assert content.verify(DIGEST)
    with pytest.raises(IntegrityError):
        content.put(b"x", DIGEST)
    content.path(DIGEST).write_bytes(b"x" * len(DATA))
    with pytest.raises(IntegrityError, match="on disk"):
        content.read(DIGEST, max_bytes=2000)
    content.put(DATA, DIGEST)
    assert content.verify(DIGEST)


async def test_empty_blob_and_sha512(content: ContentStore) -> None:
    await add(content, b"", digest_bytes(b""))
    strong = digest_bytes(DATA, algorithm="sha512")
    await add(content, DATA, strong)
    assert set(content.list()) == {digest_bytes(b""), strong}
    start = time.monotonic()
    assert content.verify(strong)
    assert time.monotonic() - start < 5


async def test_cancelled_write_ends_before_its_file_is_closed(
    content: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()
    real = os.pwrite

    def slow(fd: int, data: bytes, offset: int) -> int:
        began.set()
        time.sleep(0.2)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)

    async def fetch() -> None:
        async with content.ingest(DIGEST, len(DATA)) as ingest:
            assert ingest is not None
            await ingest.write(DATA[:10])

    task = asyncio.create_task(fetch())
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [partial] = content.ingest_directory.iterdir()
    assert partial.read_bytes() == DATA[:10]
