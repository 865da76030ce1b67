"""Runs a function in a child of this process that has become another user, with only that user's rights.

A fork and no new interpreter: pytest's own may lie in a folder that is closed to others.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def as_user(uid: int, function: Callable[[], T], groups: Sequence[int] = ()) -> T:
    """What `function` returns there; what it raises is raised here. Its gid is its uid."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from Python 3.12 on
        child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                answer = pickle.dumps((function(), None))
            except BaseException as e:
                answer = pickle.dumps((None, (type(e), [str(part) for part in e.args] or [str(e)])))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    result, error = pickle.loads(data)  # noqa: S301 - our own child's
    if error is not None:
        kind, parts = error
        failure = kind.__new__(kind)
        Exception.__init__(failure, *parts)
        raise failure
    return result  # type: ignore[no-any-return]
