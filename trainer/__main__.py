"""`python -m trainer profile | cost | select | check | run` (DESIGN 5). Provisional: check and run only."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.errors import CarbonschedError

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def check(spec: Path, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    from trainer import commands_run

    print(commands_run.check(spec).model_dump_json(indent=2))


@app.command()
def run(job_dir: Path) -> None:
    from trainer import commands_run

    raise typer.Exit(commands_run.run(job_dir))


def main() -> int:
    try:
        code = app(standalone_mode=False)
    except CarbonschedError as e:
        print(f"trainer: {e}", file=sys.stderr)
        return e.exit_code
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
