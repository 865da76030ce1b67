"""The chain that the config asks for; every provider says which keys it wants."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from carbonsched.clock import Clock
from carbonsched.config import Config, FeedConfig
from carbonsched.errors import InputError
from carbonsched.feeds.base import Feed
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.http import HttpTransport, Transport
from carbonsched.feeds.neso import NesoFeed
from carbonsched.feeds.replay import ReplayFeed
from carbonsched.feeds.static import StaticFeed, country_mix
from carbonsched.feeds.trace import read_trace
from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.grid import Basis

_COMMON: Final = frozenset({"provider", "name", "max_age", "every"})
_KEYS: Final = {
    "replay": _COMMON | {"file", "hour_s", "phase_h", "anchor", "label", "basis"},
    "neso": _COMMON | {"url", "timeout", "region", "basis"},
    "static": _COMMON | {"country", "g_per_kwh", "basis", "source", "label"},
}


class _Anchor(Doc):
    anchor: UtcTime


def build_chain(config: Config, clock: Clock, state_dir: Path, transport: Transport | None = None) -> Chain:
    """Raises InputError, `feeds[0].file: is missing; …`. `transport`: None asks the network."""
    feeds: list[Feed] = []
    for i, feed in enumerate(config.feeds):
        where = f"feeds[{i}]"
        _check_keys(feed, where)
        name = feed.name or feed.provider
        if name in [other.name for other in feeds]:
            raise InputError(
                f"{where}.name", f"{name!r} is taken by a feed before", "give each feed its own name"
            )
        match feed.provider:
            case "replay":
                feeds.append(_replay(feed, where, name, config, clock, state_dir))
            case "neso":
                transport = transport or HttpTransport()
                feeds.append(_neso(feed, name, config, clock, transport))
            case "static":
                feeds.append(_static(feed, where, name, config, clock))
    return Chain(feeds, config.zone, clock)


def _check_keys(feed: FeedConfig, where: str) -> None:
    used = _KEYS[feed.provider]
    for key, info in FeedConfig.model_fields.items():
        if key not in used and getattr(feed, key) != info.get_default():
            wanted = ", ".join(sorted(used - {"provider"}))
            raise InputError(
                f"{where}.{key}", f"is not a key of provider {feed.provider!r}", f"drop it; it takes {wanted}"
            )


def _replay(feed: FeedConfig, where: str, name: str, config: Config, clock: Clock, state_dir: Path) -> Feed:
    if feed.file is None:
        raise InputError(f"{where}.file", "is missing", "give a CSV of datetime,g_per_kwh")
    return ReplayFeed(
        read_trace(feed.file),
        clock,
        name=name,
        zone=config.zone.name,
        basis=feed.basis or config.zone.basis,
        anchor=feed.anchor or _kept_anchor(state_dir, clock),
        hour_s=feed.hour_s or 3600.0,
        phase_h=feed.phase_h,
        label=feed.label,
        every_s=feed.every,
        max_age_s=feed.max_age,
    )


def _neso(feed: FeedConfig, name: str, config: Config, clock: Clock, transport: Transport) -> Feed:
    return NesoFeed(
        transport,
        clock,
        name=name,
        zone=config.zone.name if feed.region is None else f"{config.zone.name}/{feed.region}",
        region=feed.region,
        url=feed.url,
        timeout_s=feed.timeout,
        every_s=feed.every,
        max_age_s=feed.max_age,
    )


def _static(feed: FeedConfig, where: str, name: str, config: Config, clock: Clock) -> Feed:
    sha256: str | None = None
    if (feed.country is None) == (feed.g_per_kwh is None):
        problem = "is missing" if feed.country is None else "stands beside g_per_kwh"
        raise InputError(
            f"{where}.country", problem, "give either country, like DEU, or g_per_kwh, basis and source"
        )
    if feed.country is not None:
        g_per_kwh, note, sha256 = country_mix(feed.country, f"{where}.country")
        basis = Basis.AVERAGE_LIFECYCLE
        if feed.basis not in (None, basis):
            raise InputError(
                f"{where}.basis", f"codecarbon's country mix is {basis}, not {feed.basis}", "drop it"
            )
        if feed.source is not None:
            raise InputError(f"{where}.source", "is codecarbon's data for a country", "drop it")
    else:
        for key in ("basis", "source"):
            if getattr(feed, key) is None:
                raise InputError(
                    f"{where}.{key}", "is missing", "say what g_per_kwh means and where it comes from"
                )
        assert feed.g_per_kwh is not None and feed.basis is not None  # noqa: S101, PT018
        g_per_kwh, basis, note = feed.g_per_kwh, feed.basis, feed.source or ""
    return StaticFeed(
        clock,
        name=name,
        zone=config.zone.name,
        basis=basis,
        g_per_kwh=g_per_kwh,
        note="; ".join(part for part in (feed.label, note) if part),
        body_sha256=sha256,
        max_age_s=feed.max_age,
    )


def _kept_anchor(state_dir: Path, clock: Clock) -> datetime:
    """When a replay began: this daemon's first start, so that a restarted one goes on in the same phase."""
    path = state_dir / "replay-anchor.json"
    try:
        return _Anchor.model_validate_json(path.read_bytes()).anchor
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as e:
        raise InputError(str(path), "cannot be read", "remove it: the replay then begins anew") from e
    text = json.dumps(_Anchor(anchor=clock.now()).dump())
    draft = path.with_suffix(".tmp")
    state_dir.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return _Anchor.model_validate_json(text).anchor
