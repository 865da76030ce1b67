"""`python -m trainer profile | cost | select` as scripts call them: JSON on stdout, one line on stderr, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_llama, tiny_t5

from carbonsched.model.profile import Costs, FrontierDoc, Profile, Selection
from trainer.__main__ import main


def called(capsys: pytest.CaptureFixture[str], *argv: object) -> Any:
    assert main([str(a) for a in argv]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([str(a) for a in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three tensors in a row, by hand."""
    tensors = [
        {"name": n, "numel": 1, "depth_flops": d, "dw_flops": 4} for n, d in (("a", 4), ("b", 8), ("c", 12))
    ]
    file = tmp_path / "P.json"
    file.write_text(
        json.dumps(
            {
                "model": "made", "params": 3, "forward_flops": 8, "full_flops": 32, "tensors": tensors,
                "batch": 1, "seq": 1,
            }
        )
    )  # fmt: skip
    return file


def put(folder: Path, name: str, data: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def test_profile_then_cost_then_select(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_t5(tmp_path / "t5")
    (folder / "model.safetensors").unlink()  # a profile needs no weights
    p = called(capsys, "profile", "--model", folder, "--batch", 2, "--seq", 12, "--target-seq", 5, "--json")
    assert list(p)[:5] == ["model", "params", "forward_flops", "full_flops", "tensors"]
    assert set(p["tensors"][0]) == {"name", "numel", "depth_flops", "dw_flops"}
    assert p["patterns"]
    Profile.parse(p)
    names = [t["name"] for t in p["tensors"]]
    file = put(tmp_path, "P.json", p)

    cost = called(
        capsys, "cost", "--profile", file, "--selections", put(tmp_path, "S.json", [names, names[:1]])
    )
    assert Costs.parse(cost).flops[0] == p["full_flops"]
    assert p["forward_flops"] < cost["flops"][1] < p["full_flops"]

    worth = put(tmp_path, "I.json", dict.fromkeys(names, 1.0))
    selection = Selection.parse(
        called(capsys, "select", "--profile", file, "--importance", worth, "--rho", 0.7, "--json")
    )
    assert 0.4 < selection.rho_planned <= 0.7
    assert selection.importance == len(selection.selected)

    curve = called(capsys, "select", "--profile", file, "--importance", worth, "--frontier")
    assert list(curve) == ["frontier"]
    points = FrontierDoc.parse(curve).frontier
    assert [q.rho for q in points] == sorted(q.rho for q in points)
    assert max(q.importance for q in points if q.rho <= 0.7) == selection.importance
    assert points[-1].importance == len(names)
    few = called(capsys, "select", "--profile", file, "--importance", worth, "--frontier", "--points", 4)
    assert 2 <= len(few["frontier"]) <= 4


def test_a_profile_by_hand_follows_the_chain(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selections = put(tmp_path, "S.json", [["a"], ["c"], ["a", "b"], ["c", "b", "a"], ["b", "b"]])
    answer = called(capsys, "cost", "--profile", chain, "--selections", selections)
    assert answer == {"flops": [16.0, 24.0, 24.0, 32.0, 20.0]}
    worth = put(tmp_path, "I.json", {"a": 1, "b": 3, "c": 2})
    answer = called(capsys, "select", "--profile", chain, "--importance", worth, "--rho", 0.75)
    assert answer == {
        "rho_planned": 0.75,
        "importance": 4.0,
        "selected": ["a", "b"],
        "gradient_share": None,
    }


def test_bad_input_is_one_line_that_names_it(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cost(data: Any) -> str:
        return refused(capsys, "cost", "--profile", chain, "--selections", put(tmp_path, "S.json", data))

    assert "selections[1]" in cost([["a"], ["z"]])
    assert "'z'" in cost([["a"], ["z"]])
    assert "selections[0]: is empty" in cost([[]])
    assert "list of lists" in cost({"a": 1})

    def select(values: Any, *more: object) -> str:
        worth = put(tmp_path, "I.json", values)
        return refused(capsys, "select", "--profile", chain, "--importance", worth, *more)

    good = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert "importance[c]: is missing" in select({"a": 1.0, "b": 1.0}, "--rho", 0.8)
    assert "importance[b]: is nan" in select({**good, "b": float("nan")}, "--rho", 0.8)
    assert "importance[b]" in select({**good, "b": None}, "--rho", 0.8)
    assert "floor 0.500000" in select(good, "--rho", 0.4)
    assert "--frontier" in select(good)
    assert "--frontier" in select(good, "--rho", 0.8, "--frontier")
    assert "--rho" in select(good, "--rho", "much")

    absent = tmp_path / "absent.json"
    assert "absent.json" in refused(capsys, "cost", "--profile", absent, "--selections", chain)
    (tmp_path / "torn.json").write_text('{"model": ')
    assert "not JSON" in refused(capsys, "cost", "--profile", tmp_path / "torn.json", "--selections", chain)
    worse = put(tmp_path, "worse.json", {**json.loads(chain.read_text()), "tensors": []})
    assert "tensors" in refused(capsys, "cost", "--profile", worse, "--selections", chain)
    assert "forward_flops" in refused(capsys, "cost", "--profile", put(tmp_path, "w.json", {
        k: v for k, v in json.loads(chain.read_text()).items() if k != "forward_flops"
    }), "--selections", chain)  # fmt: skip


def test_bad_models_and_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--batch", 1, "--seq", 8)
    assert "no folder" in refused(capsys, "profile", "--model", tmp_path / "absent", *shape)
    assert "config.json" in refused(capsys, "profile", "--model", tmp_path, *shape)
    assert "--batch" in refused(capsys, "profile", "--model", tmp_path, "--batch", 0, "--seq", 8)
    assert "--seq" in refused(capsys, "profile", "--model", tmp_path, "--batch", 1)
    assert "--attn" in refused(capsys, "profile", "--model", tmp_path, *shape, "--attn", "magic")
    assert "No such command" in refused(capsys, "frobnicate")


@pytest.mark.parametrize("command", ["profile", "cost", "select", "check", "run"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example: python -m trainer {command}" in " ".join(capsys.readouterr().out.split())


def test_help_and_selection_do_without_torch(chain: Path, tmp_path: Path) -> None:
    worth = put(tmp_path, "I.json", {"a": 1, "b": 3, "c": 2})
    select = ["select", "--profile", str(chain), "--importance", str(worth), "--rho", "1"]
    for argv in (["--help"], select):
        code = f"import sys; from trainer.__main__ import main; assert main({argv!r}) == 0; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ})


def test_a_step_in_two_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_llama(tmp_path / "llama")
    common = ("profile", "--model", folder, "--batch", 2, "--seq", 12, "--labelled", 3)
    whole, half, least = (
        called(capsys, *common, *more) for more in ((), ("--gradient-share", 0.5), ("--gradient-share", 0.1))
    )
    assert [p["gradient"] for p in (whole, half, least)] == [None, 6, 3]
    assert whole["full_flops"] > half["full_flops"] > least["full_flops"] > whole["forward_flops"] * 0.9
    assert "gradient-share: is 1.5" in refused(capsys, *common, "--gradient-share", 1.5)
    t5 = tiny_t5(tmp_path / "t5")
    common = ("profile", "--model", t5, "--batch", 2, "--seq", 12, "--target-seq", 5)
    assert "cannot run in two parts: it is an encoder-decoder" in refused(
        capsys, *common, "--gradient-share", 0.5
    )
