"""Notifications are left and not waited for: slow targets, those that fail, and too many of them."""

import logging
import queue
import threading
import time
from dataclasses import dataclass, field

import pytest

from carbonsched.model.notification import Happening, Notification
from carbonsched.notifications.sender import Sender, Senders
from carbonsched.notifications.settings import NotifyConfig
from carbonsched.notifications.targets import DeliveryError

EVERYTHING = frozenset(Happening)


def told(event: Happening = Happening.FAILED, *, asked: bool = False, job: str = "tiny-1") -> Notification:
    return Notification(
        event=event, at="2026-11-22T10:00:00Z", job=job, name="tiny", owner="ada", reason="r", spent_g=1.0,
        budget_g=None, energy_j=1.0, estimated=False, asked=asked,
    )  # fmt: skip


@dataclass
class Scripted:
    """A target that refuses as often as it is told to."""

    refuse: int = 0
    again: bool = True
    gate: threading.Event | None = None
    got: list[Notification] = field(default_factory=list)
    tries: int = 0
    name: str = "it"

    def deliver(self, notification: Notification) -> None:
        self.tries += 1
        if self.gate is not None:
            self.gate.wait(30)
        if self.tries <= self.refuse:
            raise DeliveryError("busy", again=self.again)
        self.got.append(notification)


def test_a_target_that_hangs_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    stuck, well = Scripted(gate=gate), Scripted()
    senders = Senders((Sender(stuck, EVERYTHING, waiting=queue.Queue(3)), Sender(well, EVERYTHING)))
    began = time.monotonic()
    for n in range(10):
        senders.put(told(job=f"tiny-{n}"))
    assert time.monotonic() - began < 5
    senders.senders[1].stop(30)
    assert len(well.got) == 10
    assert "it is not told that it failed: 3 wait" in caplog.text
    senders.senders[0].stop(0)
    assert "notifications are lost" in caplog.text
    gate.set()


@pytest.mark.parametrize(
    ("refuse", "again", "tries", "got"), [(2, True, 3, 1), (9, True, 3, 0), (9, False, 1, 0)]
)
def test_tries_are_bounded(
    refuse: int, again: bool, tries: int, got: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    target = Scripted(refuse=refuse, again=again)
    sender = Sender(target, EVERYTHING, pauses_s=(0.0, 0.0))
    sender.put(told())
    sender.stop(30)
    assert (target.tries, len(target.got)) == (tries, got)
    assert ("told it that it failed" in caplog.text) == (got == 1)


def test_only_what_is_asked_for_is_told() -> None:
    site, owner = Scripted(), Scripted()
    settings = {
        "a": NotifyConfig(webhook="http://a/", on=(Happening.FAILED,)),
        "owner": NotifyConfig(mail="owner", on=()),
    }
    senders = Senders.of(settings.values(), lambda each: owner if each.mail else site)
    for event in Happening:
        senders.put(told(event))
        senders.put(told(event, asked=event is Happening.AT_RISK))
    senders.stop(30)
    assert [each.event for each in site.got] == [Happening.FAILED] * 2
    assert [each.event for each in owner.got] == [Happening.AT_RISK]
