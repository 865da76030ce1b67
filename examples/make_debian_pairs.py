"""Make examples/debian-pairs: a package's description (source) and its one-line synopsis (target), from Debian's own lists.

    apt-get update -o Acquire::Languages=en
    python examples/make_debian_pairs.py                       # from the lists apt has
    python examples/make_debian_pairs.py Translation-en …      # or from files given

Which packages are taken is decided by the SHA-256 of their names, so the same lists always give the same pairs, and a
later release of Debian mostly the same packages. Packages that share a description (a program, its data, its headers)
count once, so none of the held-out texts was trained on. Standard library only.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TRAIN, DEV = 480, 64
MAX_UNITS = 68
"""Length limit of source + target in `units`, so that both fit 80 tokens of SmolLM2 with the prompt between them."""
MIN_SOURCE = 100
"""Characters; shorter descriptions only repeat the synopsis."""

_UNIT = re.compile(r"[A-Z]{2,3}|[A-Za-z][a-z]{0,6}|[^\sA-Za-z]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Pair:
    package: str
    source: str
    target: str


def units(text: str) -> int:
    """A cheap stand-in for a token count: pieces of up to seven small or three capital letters, digits, marks."""
    return len(_UNIT.findall(text))


def paragraphs(listing: str) -> Iterator[tuple[str, str, str]]:
    """(package, synopsis, first paragraph of the description) of every stanza of a Translation-en file."""
    for stanza in listing.split("\n\n"):
        fields = re.match(r"Package: (\S+)\n(?:.*\n)*?Description-en: (.*)\n((?: .*\n?)*)", stanza + "\n")
        if fields is None:
            continue
        package, synopsis, body = fields.groups()
        first: list[str] = []
        for line in body.splitlines():
            if line.startswith("  ") or line == " .":  # a list or a listing, or the paragraph's end
                break
            first.append(line.strip())
        yield package, synopsis.strip(), " ".join(first)


def shorten(text: str, limit: int) -> str:
    """As many whole sentences of `text` as fit `limit` units; empty where not even one does."""
    kept = ""
    for sentence in _SENTENCE.split(text):
        longer = f"{kept} {sentence}".strip()
        if units(longer) > limit:
            break
        kept = longer
    return kept


def pairs(listings: Iterable[str], wanted: int) -> list[Pair]:
    """The first `wanted` usable pairs in the order of their package names' hashes."""
    by_name = {name: (synopsis, text) for listing in listings for name, synopsis, text in paragraphs(listing)}
    chosen: list[Pair] = []
    seen: set[str] = set()
    for name in sorted(by_name, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        synopsis, text = by_name[name]
        source = shorten(text, MAX_UNITS - units(synopsis))
        base = re.split(r" [-–(]", synopsis)[0].lower()  # `game engine (data files)` is `game engine` again
        fresh = seen.isdisjoint((source, base))
        if not fresh or len(source) < MIN_SOURCE or len(synopsis) < 16 or not source.endswith((".", "!")):
            continue
        if not (source + synopsis).isascii() or "transitional" in (source + synopsis).lower():
            continue
        seen |= {source, base}
        chosen.append(Pair(name, source, synopsis))
        if len(chosen) == wanted:
            return chosen
    raise SystemExit(f"only {len(chosen)} usable pairs in these lists, {wanted} are needed; give more lists")


def apt_lists() -> list[str]:
    """The texts of the Translation-en lists of Debian's main archive that apt has here."""
    query = ["apt-get", "indextargets", "-o", "Acquire::Languages=en", "--format", "$(FILENAME)"]
    found = subprocess.run([*query, "Created-By: Translations"], capture_output=True, text=True, check=True)
    names = [name for name in found.stdout.splitlines() if "_main_i18n_" in name and Path(name).exists()]
    if not names:
        raise SystemExit("apt has no Translation-en list; run: apt-get update -o Acquire::Languages=en")
    read = ["/usr/lib/apt/apt-helper", "cat-file"]  # lists may be compressed, apt knows how
    return [
        subprocess.run([*read, name], capture_output=True, text=True, check=True).stdout for name in names
    ]


def write(path: Path, chosen: list[Pair]) -> None:
    rows = ({"package": pair.package, "source": pair.source, "target": pair.target} for pair in chosen)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description="Make examples/debian-pairs from Debian's Translation-en lists."
    )
    parser.add_argument(
        "lists", nargs="*", type=Path, help="uncompressed Translation-en files; none: what apt has"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "debian-pairs")
    given = parser.parse_args(arguments)
    texts = [path.read_text(encoding="utf-8") for path in given.lists] or apt_lists()
    chosen = pairs(texts, TRAIN + DEV)
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "dev.jsonl", chosen[:DEV])
    write(given.out / "train.jsonl", chosen[DEV:])
    print(f"{TRAIN} train and {DEV} dev pairs in {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
