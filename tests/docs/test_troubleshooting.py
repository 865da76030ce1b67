"""docs/troubleshooting.md quotes what the programs say: each quotation is in their text, and each alert has its row."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "carbonsched").rglob("*.py")))
SPLIT_OVER_LINES = re.sub(r'"\s*\n\s*f?"', "", SOURCE)


def rows(title: str) -> list[str]:
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


QUOTED = [
    quoted
    for title in (
        "The daemon does not start",
        "A job does not start",
        "A job stopped, failed or stands still",
    )
    for row in rows(title)
    for quoted in re.findall(r"`([^`]+)`", row.split("|")[1])
]


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_is_quoted_is_said(quoted: str) -> None:
    for piece in re.split(r"…|\d+", quoted):
        words = piece.strip(" ;,:()'?")
        assert words in SPLIT_OVER_LINES, words
    assert any(len(piece.strip()) >= 5 for piece in quoted.split("…")), "too little to find it by"


def test_every_alert_has_its_row() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "carbonsched.rules.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", rules)
    assert [re.findall(r"`(\w+)`", row)[0] for row in rows("Alerts")] == alerts
