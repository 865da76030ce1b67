"""Feeds the parsers of `support.parsers` a number of inputs with Atheris, which looks where they lead; with Hypothesis where it is absent.

`python -m support.fuzz_feeds --inputs 1000000`, with the root and tests/ on PYTHONPATH (`make fuzz-feeds`), each parser in a
process of its own; a line for each says how many inputs it was given and how many of them it read. What a
parser lets through ends the run with exit code 1, and its input lies in --keep.
"""

import argparse
import hashlib
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.fuzz import mutated

_MOST_BYTES = 20_000
_TELL_EVERY = 10
"""Inputs: libFuzzer ends its process where nothing more can be said."""


class Count:
    """How many inputs a parser was given, how many it read, and what else came of them; of each kind the first input is kept."""

    def __init__(self, name: str, keep: Path) -> None:
        self.name, self.inputs, self.read, self.found = name, 0, 0, set[str]()
        from support.parsers import environment, parser  # here, where Atheris watches what it imports

        os.environ.update(environment())
        self.parser = parser(name)
        self._keep, self._began = keep, time.monotonic()
        keep.mkdir(parents=True, exist_ok=True)

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        try:
            self.read += self.parser.read(data)
        except Exception as e:
            frames = traceback.extract_tb(e.__traceback__)
            ours = [f for f in frames if "/carbonsched/" in f.filename] or frames
            what = f"{type(e).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
            if what not in self.found:
                self.found.add(what)
                kept = self._keep / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
                kept.write_bytes(data)
                print(json.dumps({"found": f"{what}: {str(e)[:200]!r}, input {kept}"}), flush=True)
        if self.inputs % _TELL_EVERY == 0:
            self._tell()

    def _tell(self) -> None:
        took_s = round(time.monotonic() - self._began)
        print(json.dumps({"inputs": self.inputs, "read": self.read, "s": took_s}), flush=True)


def _atheris(name: str, inputs: int, keep: Path) -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(
        include=["carbonsched.feeds", "carbonsched.csv_text", "carbonsched.config"]
    ):
        count = Count(name, keep)
    corpus = keep / re.sub(r"\W+", "-", name)
    corpus.mkdir(exist_ok=True)
    for i, seed in enumerate(count.parser.seeds):
        (corpus / f"seed-{i}").write_bytes(seed)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2 and len(data) > 2:
            return mutated(data, seed)[:most]
        return bytes(atheris.Mutate(data, most))

    known = [f"-runs={inputs}", f"-max_len={_MOST_BYTES}", f"-artifact_prefix={corpus}-", "-timeout=60"]
    quiet = ["-verbosity=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *known, *quiet, str(corpus)], count, custom_mutator=mutate)
    atheris.Fuzz()


def _hypothesis(name: str, inputs: int, keep: Path) -> None:
    count = Count(name, keep)
    each = 20
    some = settings(
        max_examples=-(-inputs // each),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @some
    @given(st.sampled_from(count.parser.seeds), st.lists(st.integers(0, 2**32), min_size=each, max_size=each))
    def tried(data: bytes, seeds: list[int]) -> None:
        for seed in seeds:
            data = mutated(data, seed)[:_MOST_BYTES]
            count(data)

    tried()


ENGINES = {"atheris": _atheris, "hypothesis": _hypothesis}


def _in_a_process(name: str, inputs: int, engine: str, keep: Path) -> tuple[int, bool]:
    """How many inputs `name` was given, and whether all of them were read or refused."""
    keys = ["--only", name, "--inputs", str(inputs), "--engine", engine, "--keep", str(keep)]
    command = [sys.executable, "-m", "support.fuzz_feeds", "--in-this-process", *keys]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    for one in told:
        if "found" in one:
            print(f"{'FOUND':>9}  {name}: {one['found']}")
    count = next((one for one in reversed(told) if "inputs" in one), {"inputs": 0, "read": 0, "s": 0})
    print(f"{count['inputs']:>9,} inputs, {count['read']:>9,} read  {name}  ({count['s']} s)", flush=True)
    if ran.returncode:
        print(f"{'ENDED':>9}  {name}: {ran.stderr[-2000:]}", flush=True)
    return count["inputs"], not ran.returncode and not any("found" in one for one in told)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--inputs", type=int, default=1_000_000, help="for all parsers together")
    asked.add_argument("--only", metavar="PARSER", action="append", help="one parser, or several; else all")
    asked.add_argument("--engine", choices=ENGINES, help="else atheris where it is installed")
    asked.add_argument("--jobs", type=int, default=2, help="processes at a time")
    asked.add_argument(
        "--keep", type=Path, default=Path(".fuzz"), help="folder of what was found interesting"
    )
    asked.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = asked.parse_args()
    logging.disable(logging.CRITICAL)
    engine = args.engine or ("atheris" if find_spec("atheris") else "hypothesis")
    if args.in_this_process:
        ENGINES[engine](args.only[0], args.inputs, args.keep)
        return 0
    from support.parsers import NAMES, SLOW

    names = args.only or list(NAMES)
    shares = {name: 0.2 if name in SLOW else 1.0 for name in names}
    each = args.inputs / sum(shares.values())
    with ThreadPoolExecutor(args.jobs) as pool:
        ran = list(
            pool.map(
                lambda name: _in_a_process(name, math.ceil(each * shares[name]), engine, args.keep), names
            )
        )
    failed = [name for name, (_, good) in zip(names, ran, strict=True) if not good]
    total = sum(count for count, _ in ran)
    print(f"{total:>9,} inputs in all, by {engine}; findings: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
