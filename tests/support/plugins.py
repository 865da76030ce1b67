"""Installs a plugin distribution for one test: real metadata, real entry points, in a folder of its own."""

from pathlib import Path


def install(site: Path, distribution: str, entries: dict[str, dict[str, str]], **modules: str) -> None:
    """Write what an installer leaves in `site`: `modules` (name → source) and the entry points (group → name → object)."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [
        line
        for group, points in entries.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source)
