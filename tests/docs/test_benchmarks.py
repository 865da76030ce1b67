"""How the pages, and the benchmarks themselves, say that a benchmark is started."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.py"), ROOT / "Makefile"]


def test_what_is_started_by_its_path_needs_no_package_and_every_one_that_is_named_is_there() -> None:
    """`python FILE` puts the file's own folder on the path, so that `import benchmarks` fails; `python -m` does not."""
    wrong = []
    for page in PAGES:
        for how, name in re.findall(r"python (benchmarks/|-m benchmarks\.)([a-z_]+)", page.read_text()):
            file = ROOT / "benchmarks" / f"{name}.py"
            if not file.exists() and not (ROOT / "benchmarks" / name).is_dir():
                wrong.append(f"{page.name}: there is no {name}")
            elif (
                how == "benchmarks/"
                and file.exists()
                and re.search(r"^(from|import) benchmarks", file.read_text(), re.M)
            ):
                wrong.append(f"{page.name}: python -m benchmarks.{name}")
    assert wrong == []
