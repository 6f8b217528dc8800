"""HTML in small pieces. Every string passes `escape` here before it reaches the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go


class Markup(str):
    """HTML that is safe as it is."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as HTML."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> Markup:
    """A table; all but the first ``text_columns`` columns are numbers, set to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if i < text_columns else ' class="n"' for i in range(len(cells))]
        marked = (f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return Markup(
        f'<div class="scroll"><table><thead>{line("th", head)}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def definitions(items: Mapping[str, str]) -> Markup:
    """Names with values."""
    pairs = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items())
    return Markup(f"<dl>{''.join(pairs)}</dl>")


def bullets(items: Iterable[str]) -> Markup:
    """A list, or nothing."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return Markup(f"<ul>{lines}</ul>" if lines else "")


def fold(summary: str, content: str) -> Markup:
    """A part that opens on request."""
    return Markup(f"<details><summary>{escape(summary)}</summary>{escape(content)}</details>")


def caption(text: str) -> Markup:
    """How to read what follows."""
    return Markup(f'<p class="caption">{escape(text)}</p>')


def note(text: str) -> Markup:
    """Something to beware of."""
    return Markup(f'<p class="note">{escape(text)}</p>')


def empty(text: str) -> Markup:
    """What a section says where it has nothing to show."""
    return Markup(f'<p class="empty">{escape(text)}</p>')


def many(number: int, noun: str) -> str:
    """A number of things.

    >>> many(1, "run"), many(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plot(figure: go.Figure, name: str) -> Markup:
    """A figure as a part of the page."""
    content = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        config={"responsive": True, "displayModeBar": False},
        default_height=f"{figure.layout.height}px",
    )
    return Markup(f'<div class="plot">{content}</div>')
