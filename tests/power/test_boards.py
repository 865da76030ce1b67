"""Which boards are ours: by name, by index and by UUID, in NVML's order and in CUDA's."""

import pytest

from carbonsched.errors import InputError
from carbonsched.power.boards import Board, choose

A, B, C = (
    Board("GPU-aa11", 0, "NVIDIA A100-SXM4-80GB"),
    Board("GPU-aa22", 1, "NVIDIA A10", instances=("MIG-bb1",)),
    Board("GPU-cc33", 2, "NVIDIA GeForce RTX 4090", displays=True),
)
PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def ours(*wanted: str | int, boards: tuple[Board, ...] = (A, B, C), **env: str) -> list[int]:
    return [board.index for board in choose(boards, wanted, env).boards]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((), [0, 1]),
        ((0,), [0]),
        (("1",), [1]),
        (("GPU-AA11",), [0]),
        (("gpu-aa",), [0, 1]),
        (("a10",), [1]),
        (("A100-SXM4-80GB",), [0]),
        (("nvidia",), [0, 1, 2]),
        (("MIG-bb1",), [1]),
        ((2,), [2]),
        ((2, "A10", 1), [1, 2]),
    ],
)
def test_boards_are_named_by_index_uuid_and_product(
    wanted: tuple[str | int, ...], expected: list[int]
) -> None:
    assert ours(*wanted) == expected


@pytest.mark.parametrize("wanted", [(7,), ("H100",), ("GPU-ff",), ("A1",), ("",)])
def test_a_name_of_nothing_is_refused_with_what_is_here(wanted: tuple[str | int, ...]) -> None:
    with pytest.raises(InputError, match=r"power\.boards.*0 GPU-aa11 NVIDIA A100"):
        ours(*wanted)


def test_one_of_two_that_is_not_here_is_said_and_the_other_taken() -> None:
    choice = choose((A, B), (0, "H100"), {})
    assert choice.boards == (A,)
    assert "'H100' names no board" in choice.warnings[0]


def test_a_screen_is_left_out_unless_it_is_named_or_the_only_board() -> None:
    assert "drives a screen" in choose((A, C), (), {}).warnings[0]
    assert ours(boards=(C,)) == [2]
    assert ours(CUDA_VISIBLE_DEVICES="GPU-cc33") == [2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,0", [0, 1]),
        ("0, 7,1", [0]),
        ("GPU-aa22", [1]),
        ("GPU-aa", []),
        ("MIG-bb1,GPU-aa11", [0, 1]),
    ],
)
def test_the_daemons_own_environment_is_read_as_cuda_reads_it(text: str, expected: list[int]) -> None:
    assert ours(**PCI, CUDA_VISIBLE_DEVICES=text) == expected


def test_an_index_of_cudas_is_refused_where_boards_differ_and_taken_where_they_do_not() -> None:
    with pytest.raises(InputError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        ours(CUDA_VISIBLE_DEVICES="1")
    twins = (A, Board("GPU-dd44", 1, A.name))
    assert ours(boards=twins, CUDA_VISIBLE_DEVICES="1") == [1]


def test_config_and_environment_must_both_allow_a_board() -> None:
    choice = choose((A, B), (0, 1), {**PCI, "CUDA_VISIBLE_DEVICES": "1"})
    assert choice.boards == (B,)
    assert "hidden from this daemon" in choice.warnings[0]
