"""Seals: a checkpoint is whole or not there."""

from pathlib import Path

from trainer.job import checkpoint


def make(folder: Path, step: int, *, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.bin").write_bytes(b"12345")
    if sealed:
        assert checkpoint.seal(path, {"step": step}) > 5
    return path


def test_the_newest_sealed_one_counts_by_steps(tmp_path: Path) -> None:
    assert checkpoint.find_newest(tmp_path) is None
    make(tmp_path, 9)
    ten = make(tmp_path, 10)
    make(tmp_path, 11, sealed=False)
    assert checkpoint.find_newest(tmp_path) == ten
    assert checkpoint.read(ten) == {"step": 10}
    assert checkpoint.read(tmp_path / "checkpoint-11") is None


def test_pruning_keeps_the_newest_and_drops_ruins(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        make(tmp_path, step)
    make(tmp_path, 5, sealed=False)
    checkpoint.prune(tmp_path, 2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_a_damaged_seal_is_none(tmp_path: Path) -> None:
    whole = make(tmp_path, 4)
    for step, seal in ((6, "[" * 100_000), (7, "\x00"), (8, "[1]")):
        (make(tmp_path, step) / checkpoint.SEAL).write_text(seal)
    make(tmp_path, 9).rename(tmp_path / "checkpoint-best")
    assert checkpoint.find_newest(tmp_path) == whole
    (tmp_path / checkpoint.IMPORTANCE).write_text("[]")
    assert checkpoint.read_importance(tmp_path, 4) is None
