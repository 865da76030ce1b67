"""Plots of a benchmark: a dot and a name per variant, whole SVG files, nothing where there are no figures."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainer.bench.plot import PLOTS, draw
from trainer.bench.table import Bench, ResultLine

SVG = "{http://www.w3.org/2000/svg}"


def line(variant: str, flops: float, **more: object) -> ResultLine:
    figures: dict[str, object] = {
        "variant": variant,
        "lr": 1e-4,
        "seeds": (0, 1),
        "steps": 10,
        "rho_realised": 0.5,
        "flops": flops,
        "seconds": 20.0,
        "time_ratio": None,
        "joules": 500.0,
        "joules_method": "counter",
        "peak_memory_bytes": None,
        "dev_nll": 2.5,
        "test_nll": None,
        "test_nll_spread": None,
        "metrics": {},
        "gaps": (),
    }
    return ResultLine.model_validate(figures | more)


def bench(*lines: ResultLine) -> Bench:
    return Bench(model="m", data="d", dev_nll_before=3.0, lines=lines, results=())


def parts(file: Path, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(file.read_text()).iter(f"{SVG}{kind}"))  # noqa: S314


def test_every_variant_is_a_dot_with_its_name(tmp_path: Path) -> None:
    found = bench(line("full", 2e15, test_nll=2.4, test_nll_spread=0.1), line("lora", 1e15, test_nll=2.6))
    files = draw(found, tmp_path)
    assert [file.name for file in files] == [f"{name}.svg" for name in PLOTS]
    for file in files:
        assert len(parts(file, "circle")) == 2
        assert {"full", "lora"} <= {text.text for text in parts(file, "text")}
    quality = files[0].read_text()
    assert "test NLL per token" in quality
    assert quality.count('class="spread') == 1, "one of them has seeds enough for a spread"
    assert draw(found, tmp_path)[0].read_text() == quality, "the same figures give the same file"


def test_what_has_no_figure_is_left_out(tmp_path: Path) -> None:
    found = bench(line("full", 2e15, joules=None), line("lora", 1e15, joules=None))
    files = draw(found, tmp_path)
    assert [file.stem for file in files] == ["quality-flops", "seconds-flops"]
    assert "dev NLL per token" in files[0].read_text()
    assert 'class="spread' not in files[0].read_text()


@pytest.mark.parametrize("flops", [0.0, 2e15])
def test_a_single_variant_has_an_axis_too(tmp_path: Path, flops: float) -> None:
    assert len(parts(draw(bench(line("full", flops)), tmp_path)[0], "circle")) == 1
