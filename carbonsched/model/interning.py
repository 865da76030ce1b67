"""Keeps one copy of equal documents: in a sweep of two thousand jobs nearly every part of the spec is the same."""

from typing import Final, TypeVar
from weakref import WeakValueDictionary

from carbonsched.model.base import Doc

_D = TypeVar("_D", bound=Doc)

_held: Final[WeakValueDictionary[tuple[type[Doc], str], Doc]] = WeakValueDictionary()
"""(class, its set fields as JSON) → a copy that somebody holds."""


def shared(doc: _D) -> _D:
    """An equal document that somebody already holds, else this one. Documents are frozen, so sharing has no effect.

    Example:
        >>> from carbonsched.model.job import QueuePart
        >>> held = shared(QueuePart(priority=-1))
        >>> shared(QueuePart(priority=-1)) is held
        True
    """
    return _held.setdefault((type(doc), doc.model_dump_json(exclude_unset=True)), doc)  # type: ignore[return-value]


def with_shared_parts(doc: _D) -> _D:
    """The same document with its parts `shared`; call it only on a new document that nobody else holds."""
    for name, part in doc.__dict__.items():
        if isinstance(part, Doc):
            doc.__dict__[name] = shared(part)  # what was set in it stays as it is, unlike by model_copy
    return doc
