"""Reads docs/how-to.md: files to write, commands to run, and what each should print.

What differs from run to run (ids, times, figures, the width of a column) is made alike on both sides before they are compared.
"""

import re
from dataclasses import dataclass

BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.M | re.S)
LEFT_OUT = "…"
_ALIKE = (
    (r"\b([a-z]+)-[0-9a-f]{6}\b", r"\1-ID"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?( UTC|Z)?", "TIME"),
    (r"(?<![\w.])(\d+d \d+h|\d+h \d+m|\d+m \d+s|\d+(\.\d+)? ?s|\d+ min( \d+ s)?)(?!\w)", "N"),
    (r"(?<![A-Za-z_])\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ?([kMmGµ]?(J|Wh|W|g|B)))?(?!\w)", "N"),
    (r"[~+−-](?=N\b)", ""),
    (r"\bin (?=N\b)", ""),
    (r"(?<=[/\s])[-?](?=\s|$)", "N"),
    (r"\s+", " "),
)
"""What differs from run to run, and what is put in its place on both sides: ids, hashes, times, durations, figures, what is not known."""


@dataclass(frozen=True, slots=True)
class Step:
    """A file to write, or a command and what it prints.

    Example:
        >>> steps("### Ask\\n```console\\n$ date\\nnow\\n```\\n")
        [Step(task='Ask', file=None, command='date', text='now\\n')]
    """

    task: str
    file: str | None
    command: str
    text: str


def steps(page: str) -> list[Step]:
    """In the page's order."""
    found, tasks = [], list(re.finditer(r"^### (.+)$", page, flags=re.M))
    for block in BLOCK.finditer(page):
        task = next((t[1] for t in reversed(tasks) if t.start() < block.start()), "")
        kind, file, text = block.groups()
        if kind == "console":
            for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
                command, _, printed = part.partition("\n")
                found.append(Step(task, None, command, printed))
        elif file:
            found.append(Step(task, file, "", text))
    return found


def alike(text: str) -> list[str]:
    """Its lines, with what differs from run to run made the same; without empty ones."""
    lines = []
    for line in text.splitlines():
        shown = line
        for pattern, to in _ALIKE:
            shown = re.sub(pattern, to, shown)
        lines.append(shown.strip())
    return [line for line in lines if line]


def told_as(printed: str, expected: str) -> bool:
    """Whether a command printed what the page says; a line `…` stands for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == LEFT_OUT else re.escape(line) + r"\n" for line in alike(expected)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in alike(printed))) is not None
