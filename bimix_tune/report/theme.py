"""Colours, number formats and the frame of every figure.

The qualitative colours are those of Okabe and Ito (2008, "Color Universal Design"), which
colour-blind readers can tell apart; where they run out, hatching repeats them. Nothing is said
by colour alone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

ACCENT = "#0072B2"
INK, MUTED, FAINT, RULE = "#1f2933", "#5f6b7a", "#c3cad3", "#e4e8ed"
GOOD, BAD = "#0072B2", "#D55E00"
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C6D31",
    "#6A51A3",
    "#F0E442",
    "#8A94A0",
)
HATCHES = ("", "/", ".", "x")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DIVERGING = ((0.0, "#E8924F"), (0.5, "#F9F9F9"), (1.0, "#62A8D6"))
SEQUENTIAL = ((0.0, "#FFFFFF"), (1.0, "#62A8D6"))
"""Scales of heat maps end where dark text is still readable on them."""
NEGLIGIBLE = 1e-6
"""Shares below it count as none: an optimiser's way to say zero."""


def colour(position: int) -> str:
    """Colour of the nth domain or baseline."""
    return COLOURS[position % len(COLOURS)]


def hatch(position: int) -> str:
    """Hatching of the nth domain: none until the colours run out."""
    return HATCHES[position // len(COLOURS) % len(HATCHES)]


def baseline_colour(position: int) -> str:
    """Colour of the nth baseline: never the accent, which is the recommendation's."""
    others = [c for c in COLOURS if c != ACCENT]
    return others[position % len(others)]


def label(name: str, width: int = 26) -> str:
    """A user's name as plotly text, which reads tags: escaped, and shortened in the middle."""
    return html.escape(short(name, width), quote=False)


def short(name: str, width: int) -> str:
    """A name, shortened in the middle.

    >>> short("common crawl of 2024", 12)
    'common …2024'
    """
    if len(name) <= width:
        return name
    head = (width - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def percent(share: float) -> str:
    """A share for people; small ones keep a second digit.

    >>> percent(0.3126), percent(0.0042), percent(3e-5), percent(0.0)
    ('31.3 %', '0.42 %', '< 0.01 %', '0 %')
    """
    if share < NEGLIGIBLE:
        return "0 %"
    if share < 1e-4:
        return "< 0.01 %"
    return f"{100 * share:.1f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def count(number: float) -> str:
    """A number of tokens or parameters.

    >>> count(1_500_000), count(20_000_000_000), count(950)
    ('1.5 M', '20 B', '950')
    """
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{number / size:.3g} {suffix}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(42), duration(600), duration(86_400)
    ('42 s', '10 min', '24.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def loss(value: float | None) -> str:
    """A loss with four decimals, or a dash.

    >>> loss(3.14159), loss(None)
    ('3.1416', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to zero has none.

    >>> signed(0.0123, 3), signed(-0.0001, 3)
    ('+0.012', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def figure(traces: Sequence[Any], height: int, **layout: Any) -> go.Figure:
    """A figure in the house style.

    Args:
        traces: Plotly traces.
        height: Pixels; the width follows the page.
        **layout: Overrides of the layout.
    """
    axis = {
        "gridcolor": RULE,
        "linecolor": FAINT,
        "zeroline": False,
        "automargin": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": FAINT,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    frame: dict[str, Any] = {
        "height": height,
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 10, "r": 16, "t": 12, "b": 10},
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    }
    template = go.layout.Template(layout={**frame, "xaxis": axis, "yaxis": axis})
    return go.Figure(list(traces), {"template": template, "height": height, **layout})
