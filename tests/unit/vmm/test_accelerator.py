"""The choice of an accelerator, with boots that are played."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from woodlot.errors import ConfigError, UnsupportedError, VmmError
from woodlot.vmm import accelerator
from woodlot.vmm.accelerator import choose
from woodlot.vmm.base import Accelerator

KVM, HVF, TCG = Accelerator.KVM, Accelerator.HVF, Accelerator.TCG
KEY = {"host": "a", "guest": "b"}


class Boots:
    """A `TryBoot` that works, fails or hangs, and counts."""

    def __init__(self, outcome: Callable[[], Exception | None] = lambda: None) -> None:
        self.outcome = outcome
        self.tried: list[Accelerator] = []
        self.hang = False
        self.cancelled = False

    async def __call__(self, candidate: Accelerator) -> None:
        self.tried.append(candidate)
        if self.hang:
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled = True
        await asyncio.sleep(0.05)
        problem = self.outcome()
        if problem is not None:
            raise problem


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "data" / "accelerator.json"


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WOODLOT_VM_ACCEL", raising=False)
    monkeypatch.setattr(accelerator, "kvm_problem", lambda: None)
    monkeypatch.setattr(accelerator, "_is_overloaded", lambda: False)


async def test_the_best_that_boots_is_taken_and_remembered(cache: Path) -> None:
    boots = Boots()
    first = await choose((KVM, TCG), boots, cache, KEY)
    assert first.accelerator is KVM
    assert "booted" in first.reason
    second = await choose((KVM, TCG), boots, cache, KEY)
    assert second.accelerator is KVM
    assert second.remembered
    assert boots.tried == [KVM]


async def test_one_that_fails_is_told_and_never_tried_again(cache: Path) -> None:
    boots = Boots(lambda: VmmError("QEMU fell over"))
    for _ in range(3):
        choice = await choose((KVM, TCG), boots, cache, KEY)
        assert choice.accelerator is TCG
        assert choice.reason == "KVM: QEMU fell over"
        assert [attempt.accelerator for attempt in choice.tried] == [KVM]
    assert boots.tried == [KVM]


async def test_one_that_hangs_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_VM_PROBE_TIMEOUT", "0.1")
    boots = Boots()
    boots.hang = True
    choice = await choose((KVM, TCG), boots, cache, KEY)
    assert choice.accelerator is TCG
    assert "within" in choice.reason
    assert boots.cancelled
    assert (await choose((KVM, TCG), boots, cache, KEY)).remembered


async def test_a_slow_host_is_no_proof(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_VM_PROBE_TIMEOUT", "0.1")
    monkeypatch.setattr(accelerator, "_is_overloaded", lambda: True)
    boots = Boots()
    boots.hang = True
    assert (await choose((KVM, TCG), boots, cache, KEY)).accelerator is TCG
    boots.hang = False
    assert (await choose((KVM, TCG), boots, cache, KEY)).accelerator is KVM


async def test_all_together_have_a_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_VM_PROBE_TIMEOUT", "60")
    monkeypatch.setattr(accelerator, "TOTAL_TIMEOUT_S", 0.2)
    boots = Boots()
    boots.hang = True
    async with asyncio.timeout(5):
        choice = await choose((KVM, HVF, TCG), boots, cache, KEY)
    assert choice.accelerator is TCG


async def test_any_change_asks_again(cache: Path) -> None:
    boots = Boots()
    await choose((KVM, TCG), boots, cache, KEY)
    await choose((KVM, TCG), boots, cache, {**KEY, "host": "other"})
    assert len(boots.tried) == 2
    # Both answers are kept.
    assert (await choose((KVM, TCG), boots, cache, KEY)).remembered
    for number in range(20):
        await choose((KVM, TCG), boots, cache, {"n": str(number)})
    assert len(json.loads(cache.read_text())["answers"]) == 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": 1, "answers": [1]}',
        b'{"format": 1, "answers": [{}]}',
        json.dumps({"format": 1, "answers": [{"key": KEY, "accelerator": "warp"}]}).encode(),
        json.dumps(
            {
                "format": 1,
                "answers": [{"key": KEY, "accelerator": "hvf", "reason": "", "tried": []}],
            }
        ).encode(),
        json.dumps({"format": 99, "answers": []}).encode(),
    ],
)
async def test_a_damaged_file_is_made_again(cache: Path, content: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert (await choose((KVM, TCG), Boots(), cache, KEY)).accelerator is KVM
    again = Boots()
    assert (await choose((KVM, TCG), again, cache, KEY)).remembered
    assert again.tried == []


async def test_many_starters_probe_once(cache: Path) -> None:
    boots = Boots()
    choices = await asyncio.gather(*(choose((KVM, TCG), boots, cache, KEY) for _ in range(10)))
    assert {choice.accelerator for choice in choices} == {KVM}
    assert boots.tried == [KVM]


async def test_only_one_candidate_is_not_probed(cache: Path) -> None:
    boots = Boots()
    assert (await choose((TCG,), boots, cache, KEY)).accelerator is TCG
    assert boots.tried == []
    assert not cache.exists()


async def test_no_permission_is_told_with_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "kvm_problem", lambda: ("no permission", "do this"))
    boots = Boots()
    choice = await choose((KVM, TCG), boots, cache, KEY)
    assert choice.accelerator is TCG
    assert choice.reason == "KVM: no permission (do this)"
    assert boots.tried == []


async def test_a_bug_is_not_taken_for_an_answer(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        await choose((KVM, TCG), Boots(ZeroDivisionError), cache, KEY)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["tcg", "TCG", "kvm"])
async def test_the_setting_wins(cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WOODLOT_VM_ACCEL", name)
    boots = Boots()
    choice = await choose((KVM, TCG), boots, cache, KEY)
    assert choice.accelerator == name.lower()
    assert boots.tried == []


async def test_a_setting_that_cannot_be(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_VM_ACCEL", "warp")
    with pytest.raises(ConfigError, match=r"vm\.accel"):
        await choose((KVM, TCG), Boots(), cache, KEY)
    monkeypatch.setenv("WOODLOT_VM_ACCEL", "hvf")
    with pytest.raises(UnsupportedError):
        await choose((KVM, TCG), Boots(), cache, KEY)
    monkeypatch.setenv("WOODLOT_VM_ACCEL", "kvm")
    monkeypatch.setattr(accelerator, "kvm_problem", lambda: ("no permission", "do this"))
    with pytest.raises(UnsupportedError, match="no permission"):
        await choose((KVM, TCG), Boots(), cache, KEY)


def test_what_is_wrong_with_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    missing = accelerator.kvm_problem(tmp_path / "kvm")
    assert missing is not None
    assert "there is no" in missing[0]
    device = tmp_path / "device"
    device.touch()
    assert accelerator.kvm_problem(device) is None
    if os.geteuid() != 0:
        device.chmod(0)
        denied = accelerator.kvm_problem(device)
        assert denied is not None
        assert denied[1] is not None
        assert "chmod" in denied[1]


def test_facts_change_with_what_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    program, device = tmp_path / "qemu", tmp_path / "kvm"
    program.write_text("1")
    device.touch()
    before = accelerator.host_facts(program, "kernel", device=device)
    assert accelerator.host_facts(program, "kernel", device=device) == before
    program.write_text("22")
    assert accelerator.host_facts(program, "kernel", device=device) != before
    assert accelerator.host_facts(program, "other", device=device) != before
    device.unlink()
    assert accelerator.host_facts(program, "kernel", device=device)["kvm"].startswith("there is no")
