"""Lets a key of the config choose a component by name, built in or a plugin, whose own file declares its settings.

A feed or a power meter declares what it can be told as a pydantic model with a `provider` literal and a `build` method.
`Providers` finds the model of a name; the config is the union of these models. So the question "where is this key
checked?" has one answer: in the file of the component that reads it.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, get_args

from pydantic import model_validator

from carbonsched import plugins
from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.base import Doc, refusal

_MISSPELT: Final = 0.75
"""Alikeness from which a key is one of this provider's, misspelt: `region`, of another, is no `version`."""


class ProviderSettings(Doc):
    """The settings of one component. A subclass narrows `provider` to a Literal of its names and adds its keys.

    Example::

        class SunSettings(ProviderSettings):
            provider: Literal["sun"]
            panels: int = 1
    """

    provider: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if key in cls.model_fields:
                continue
            known = sorted(set(cls.model_fields) - {"provider"})
            if close := difflib.get_close_matches(str(key), known, n=1, cutoff=_MISSPELT):
                raise refusal(str(key), "unknown key", f"did you mean {close[0]!r}?")
            problem = f"is not a key of provider {data.get('provider')!r}"
            raise refusal(str(key), problem, f"drop it; it takes {', '.join(known) or 'none'}")
        return data


def build_error(error: Exception, settings: ProviderSettings, where: str) -> Exception:
    """The error of a `build` as a user can act on it: with the path to the key, and one line for a plugin's mistake.

    where: the path of the table in the config, e.g. `feeds[0]`.
    """
    if isinstance(error, InputError) and error.field in type(settings).model_fields:
        return InputError(f"{where}.{error.field}", error.problem, error.hint)
    if isinstance(error, CarbonschedError) or type(settings).__module__.startswith("carbonsched."):
        return error
    problem = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(where, f"the plugin of {settings.provider!r} failed: {problem}", "fix or uninstall it")


_CALLED: Final = {"prices": "source of prices", "supply": "source of supply"}


def check_names(table: str, names: Sequence[str]) -> None:
    """Raises InputError where two share a name: the ledger could not tell them apart. table: the config's, e.g. `feeds`."""
    for i, name in enumerate(names):
        if name in names[:i]:
            one = _CALLED.get(table, "feed")
            raise InputError(
                f"{table}[{i}].name", f"{name!r} is taken by a {one} before", f"give each {one} its own name"
            )


_S = TypeVar("_S", bound=ProviderSettings)


class Providers(Generic[_S]):
    """The components that one key of the config chooses from: a union of built-in settings, and those of plugins.

    Example::

        FEEDS = Providers(FeedSettings, NesoSettings | StaticSettings, "carbonsched.feeds")
        settings = FEEDS.model("neso").model_validate({"provider": "neso"})
    """

    def __init__(self, base: type[_S], built_in: Any, group: str, words: tuple[str, ...] = ()) -> None:
        """base: what every settings model of this kind is. built_in: the union of the models that ship with carbonsched.

        group: where plugins add theirs, see `carbonsched.plugins`. words: what the key takes beside names of models;
        no plugin may be called so.
        """
        self._base, self._group, self._words = base, group, words
        self.built_in: dict[str, type[_S]] = {
            name: model for model in (get_args(built_in) or (built_in,)) for name in _names(model)
        }

    def plugins(self) -> tuple[str, ...]:
        """Names that plugins add; refused plugins are logged, and nothing is imported."""
        return plugins.names(self._group, (*self.built_in, *self._words))

    def model(self, name: object, key: str = "provider") -> type[_S]:
        """The settings model called `name`. A plugin is imported. key: what the config calls the choice.

        Raises a refusal (see `carbonsched.model.base`) where nobody has that name, InputError where a plugin is broken.
        """
        if isinstance(name, str) and name in self.built_in:
            return self.built_in[name]
        if isinstance(name, str) and name in (added := self.plugins()):
            return plugins.load(self._group, name, lambda found: self._check(found, name))
        if name is None:
            raise refusal(key, "is missing", "add it")
        choices = [*self.built_in, *self._words, *(added if isinstance(name, str) else ())]
        close = difflib.get_close_matches(str(name), choices, n=1)
        expected = " or ".join(
            part for part in (", ".join(map(repr, choices[:-1])), repr(choices[-1])) if part
        )
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise refusal(key, f"must be {expected}, is {name!r}", hint)

    def _check(self, found: object, name: str) -> type[_S]:
        wanted = f"a subclass of {self._base.__module__}.{self._base.__name__}"
        if not (isinstance(found, type) and issubclass(found, self._base)):
            raise TypeError(f"is not {wanted}")
        if name not in _names(found):
            raise TypeError(f"must declare `provider: Literal[{name!r}]`, the name of its entry point")
        if found.build is self._base.build:  # type: ignore[attr-defined]
            raise TypeError("has no method build of its own")
        return found


def _names(model: type[ProviderSettings]) -> tuple[str, ...]:
    return get_args(model.model_fields["provider"].annotation)
