"""What the helper reads is read strictly: whoever speaks to it may be broken into."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.clocks.request import Request
from carbonsched.errors import InputError

LOCK = {"op": "lock", "board": "GPU-1f2e3d4c-aaaa", "mhz": 1200, "pid": 4711, "lease_s": 15.0}


def test_what_is_written_is_read() -> None:
    request = Request("lock", "GPU-1f2e3d4c-aaaa", 1200, 4711, 15.0)
    assert json.loads(request.write()) == LOCK
    assert Request.read(request.write()) == request
    reset = Request("reset", "GPU-1f2e3d4c-aaaa")
    assert Request.read(reset.write()) == reset


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"op": "unlock"}, "op"),
        ({"op": ["lock"]}, "op"),
        ({"board": "GPU-../../etc/passwd"}, "board"),
        ({"board": "GPU-1f2e3d4c\n"}, "board"),
        ({"board": "MIG-1f2e3d4c-aaaa"}, "board"),
        ({"board": 0}, "board"),
        ({"mhz": 0}, "mhz"),
        ({"mhz": True}, "mhz"),
        ({"mhz": 1200.0}, "mhz"),
        ({"pid": 1}, "pid"),
        ({"pid": 2**31}, "pid"),
        ({"lease_s": 3600}, "lease_s"),
        ({"lease_s": float("nan")}, "lease_s"),
        ({"lease_s": "15"}, "lease_s"),
        ({"more": 1}, "lock"),
    ],
)
def test_anything_else_is_refused_by_its_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as refused:
        Request.read(json.dumps(LOCK | change).encode())
    assert refused.value.field == named


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(
        st.binary(max_size=600),
        st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
    )
)
def test_damage_is_refused_in_one_line(line: bytes) -> None:
    with pytest.raises(InputError) as refused:
        Request.read(line)
    assert "\n" not in str(refused.value)
