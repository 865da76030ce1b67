"""Reads and checks `[power]` of the config: it names two meters, and beside them stand the keys that these take.

This file loads neither codecarbon nor pynvml: a meter loads what it needs when it is built.
"""

import difflib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from carbonsched import plugins
from carbonsched.model.base import Doc, LocalPath, refusal
from carbonsched.power.amd import AmdSettings
from carbonsched.power.base import MeterSettings
from carbonsched.power.cpu_share import HostIdle
from carbonsched.power.host import HostSettings
from carbonsched.power.intel import IntelSettings
from carbonsched.power.nvml import NvmlSettings
from carbonsched.power.replay import ReplaySettings as ReplayMeterSettings
from carbonsched.settings import Providers

BuiltInGpuMeter = NvmlSettings | AmdSettings | IntelSettings | ReplayMeterSettings
"""What `power.gpu` may name. A new meter is its own file and one name here, or in the next line."""
BuiltInHostMeter = HostSettings
"""What `power.host` may name."""


_NONE: Final = "none"
METERS: Final = {
    "gpu": Providers(MeterSettings, BuiltInGpuMeter, plugins.POWER, words=(_NONE,)),
    "host": Providers(MeterSettings, BuiltInHostMeter, plugins.POWER, words=(_NONE,)),
}
"""Key of `[power]` → the meters that it may name."""


class PowerConfig(Doc):
    """`[power]`: the names of two meters, and beside them the keys that these meters take.

    Example:
        >>> PowerConfig.parse({"gpu": "none"}).meters
        (HostSettings(provider='auto'),)
    """

    model_config = ConfigDict(extra="allow")  # checked below, against the meters that are named

    gpu: str = "auto"
    """auto: NVML where a device answers, else none."""
    host: str = "auto"
    """CPU and RAM by codecarbon's core classes; auto: the same."""
    host_idle: HostIdle = "jobs"
    """Who pays what the host draws when nothing runs. jobs: those that are live, in equal parts, for the box is on for them, and a
    budget that leaves it out holds less than was burnt. box: no job."""
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds between two readings."""
    clocks: Literal["off", "auto"] = "off"
    """auto: the helper `carbonsched-clocks` is asked to lock the clocks of boards whose jobs agree."""
    clocks_socket: LocalPath = "/run/carbonsched-clocks/helper.sock"
    """Where that helper answers."""
    _meters: tuple[MeterSettings, ...] = PrivateAttr(())

    @property
    def meters(self) -> tuple[MeterSettings, ...]:
        """Settings of the meters that `gpu` and `host` name."""
        return self._meters

    @model_validator(mode="after")
    def _choose_meters(self, info: ValidationInfo) -> Self:
        chosen = [
            (name, METERS[key].model(name, key))
            for key, name in (("gpu", self.gpu), ("host", self.host))
            if name != _NONE
        ]
        if len(set(chosen)) < len(chosen):
            raise refusal("host", f"{self.host!r} is power.gpu's meter too", "name it once")
        given = self.model_extra or {}
        for key in given:
            if not any(key in _keys(model) for _, model in chosen):
                raise _stray(key, [model for _, model in chosen])
        self._meters = tuple(
            model.model_validate(
                {"provider": name} | {key: value for key, value in given.items() if key in _keys(model)},
                context=info.context,
            )
            for name, model in chosen
        )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The table as it is written with the built-in meters: their names as choices, and their keys."""
        schema = handler.resolve_ref_schema(super().__get_pydantic_json_schema__(core_schema, handler))
        schema["additionalProperties"] = False
        for key, meters in METERS.items():
            schema["properties"][key]["enum"] = [*meters.built_in, _NONE]
            for model in meters.built_in.values():
                described = model.model_json_schema()["properties"]
                schema["properties"] |= {name: described[name] for name in described if name in _keys(model)}
        return schema


def _keys(model: type[MeterSettings]) -> frozenset[str]:
    return frozenset(model.model_fields) - {"provider"}


def _stray(key: str, chosen: list[type[MeterSettings]]) -> PydanticCustomError:
    """Why a key of `[power]` is refused: it is another meter's, or nobody's."""
    for part, meters in METERS.items():
        if names := [f'"{name}"' for name, model in meters.built_in.items() if key in _keys(model)]:
            listed = " or ".join(each for each in (", ".join(names[:-1]), names[-1]) if each)
            return refusal(key, f"is read only with power.{part} = {listed}", "set that or drop it")
    known = sorted({*PowerConfig.model_fields, *(k for model in chosen for k in _keys(model))})
    close = difflib.get_close_matches(key, known, n=1)
    return refusal(
        key, "unknown key", f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(known)}"
    )
