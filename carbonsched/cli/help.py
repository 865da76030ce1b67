"""Commands whose `--help` shows no type for a flag without a value."""

from typing import Any

import typer.core


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


class Command(typer.core.TyperCommand):
    """A command of carbonsched.

    Example::

        app.command(cls=Command)(ps)
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class Group(typer.core.TyperGroup):
    """A group of such commands.

    Example::

        app = typer.Typer(cls=Group)
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))
