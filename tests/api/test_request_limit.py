import asyncio

import pytest

from carbonsched.api import request_limit
from carbonsched.api.request_limit import AT_A_TIME, OF_ONE, RequestLimit
from carbonsched.errors import StateError

ALICE, BOB, CAROL = 1001, 1002, 1003


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limit, "STUCK_S", 0.5)


def test_what_hangs_of_one_user_leaves_a_place_to_others() -> None:
    async def play() -> list[str]:
        found, seen = RequestLimit("submissions"), list[str]()

        async def hang() -> None:
            async with found.place(ALICE):
                await asyncio.sleep(3600)

        hung = [asyncio.create_task(hang()) for _ in range(OF_ONE + 1)]
        await asyncio.sleep(0.1)
        for _ in range(5):
            async with found.place(BOB):
                seen.append("bob")
        with pytest.raises(StateError, match=r"submissions before this one have not come to an end"):
            await hung[-1]
        for task in hung:
            task.cancel()
        return seen

    assert asyncio.run(play()) == ["bob"] * 5


def test_who_waits_behind_what_hangs_is_told_and_goes_on_once_it_answers() -> None:
    async def play() -> None:
        found, mount = RequestLimit("submissions"), asyncio.Event()

        async def hang(uid: int) -> None:
            async with found.place(uid):
                await mount.wait()

        hung = [asyncio.create_task(hang(uid)) for uid in (ALICE, ALICE, BOB)]
        await asyncio.sleep(0.1)
        with pytest.raises(StateError, match="mount"):
            async with found.place(CAROL):
                pytest.fail("there was no place")
        mount.set()
        await asyncio.gather(*hung)
        async with found.place(CAROL):
            pass

    asyncio.run(play())


def test_a_long_queue_that_moves_is_waited_for() -> None:
    async def play() -> int:
        found, most, now, done = RequestLimit("submissions"), 0, 0, 0

        async def work(uid: int) -> None:
            nonlocal most, now, done
            async with found.place(uid):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.1)
                now -= 1
                done += 1

        await asyncio.gather(*(work(uid % 3) for uid in range(30)))
        assert most == AT_A_TIME
        return done

    assert asyncio.run(play()) == 30
