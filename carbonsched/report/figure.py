"""Charts below each other as one SVG file that stands alone: its style is inside, in colours any viewer knows."""

import re
from collections.abc import Sequence
from typing import Final

from carbonsched.charts import WIDTH, Chart, svg

_COLOURS: Final = ("#0b62a4", "#c2500a", "#0a7d5a", "#7b3fa0", "#8a6d00", "#b0224f", "#4a5560")
STYLES: Final = tuple(f"s{n + 1}" for n in range(len(_COLOURS)))
"""Series styles that a figure can draw apart."""
_MARGIN: Final = 16
_STYLE: Final = """
text { font: 12px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #5b6570; }
text.label, text.legend, text.mark { fill: #1b1f24; }
text.label { font-weight: 600; }
.grid { stroke: #d5dae0; stroke-width: 1; }
.axis { stroke: #5b6570; stroke-width: 1; }
.band { fill: #0b62a4; opacity: .09; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.area { stroke: none; opacity: .16; }
.ring { fill: none; stroke-width: 1.8; }
.bar { stroke-width: 2.4; }
.rule { stroke: #1b1f24; stroke-width: 1.3; stroke-dasharray: 6 4; }
"""


def figure(charts: Sequence[Chart]) -> str:
    """The text of an SVG file."""
    top, parts = _MARGIN, []
    for n, chart in enumerate(charts):
        drawn = str(svg(chart, f"chart{n}"))
        # an inner svg needs its place and size; in a page the style sheet gives them
        place = f'<svg x="{_MARGIN}" y="{top}" width="{WIDTH}" height="{chart.height}"'
        parts.append(re.sub(r"^<svg", place, drawn, count=1))
        top += chart.height + _MARGIN
    style = _STYLE + "".join(
        f".{name} {{ stroke: {colour}; }} .area.{name}, .dot.{name} {{ fill: {colour}; stroke: none; }}\n"
        for name, colour in zip(STYLES, _COLOURS, strict=True)
    )
    width = WIDTH + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
