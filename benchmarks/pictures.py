"""Draws what was measured: bars, readable in the light and in the dark."""

import statistics
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
DRAWN = {
    "events.svg": "events per second, 10 streams",
    "first-event.svg": "first event, 50 at once, median",
    "gap.svg": "largest gap beside a busy neighbour",
}
UNITS = {"events.svg": "/s", "first-event.svg": "ms", "gap.svg": "ms"}
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1c2330 }
  .title { font-weight: 600; font-size: 15px }
  .bar { fill: #9aa6b8 }
  .ours { fill: #0b57d0 }
  .spread { stroke: #1c2330; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6eaf2 }
    .bar { fill: #5d6a80 }
    .ours { fill: #7cacf8 }
    .spread { stroke: #e6eaf2 }
  }"""
ROW, LEFT, WIDTH, TOP = 28, 230, 420, 44


def draw(taken: dict[str, dict[str, list[float]]], ours: dict[str, bool]) -> None:
    """Draw each picture."""
    for name, measured in DRAWN.items():
        if values := taken.get(measured):
            (FOLDER / name).write_text(bars(measured, UNITS[name], values, ours))


def bars(title: str, unit: str, values: dict[str, list[float]], ours: dict[str, bool]) -> str:
    """Return a bar for each contestant, with the spread of its rounds."""
    most = max(max(each) for each in values.values())
    rows = []
    for number, (name, each) in enumerate(values.items()):
        y = TOP + number * ROW
        middle = statistics.median(each)
        width, low, high = (WIDTH * value / most for value in (middle, min(each), max(each)))
        kind = "ours" if ours.get(name) else "bar"
        rows += [
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{max(width, 1):.1f}" height="16" rx="3"/>',
            f'<line class="spread" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" y1="{y + 10}" y2="{y + 10}"/>',
            f'<text x="{LEFT + max(width, high) + 8:.1f}" y="{y + 14}">{middle:,.0f} {unit}</text>',
        ]
    return _svg(title, LEFT + WIDTH + 110, TOP + len(values) * ROW + 10, rows)


COLOURS = ("#0b57d0", "#c2410c", "#0f766e", "#7c3aed")
"""Of lines: they can be told apart, and read, on white and on black."""


MARGIN, SPAN, TALL = 70, 580, 150
"""Pixels of what changes over time: left of it, across, and up."""


def over_time(title: str, seconds: float, measured: dict[str, dict[str, list[float]]]) -> str:
    """Return what was measured one below the other, each with a line for everybody it was measured of."""
    rows = []
    top = TOP
    for what, series in measured.items():
        rows += _lines(what, series, top)
        top += TALL + 40
    rows.append(f'<text x="{MARGIN + SPAN}" y="{top - 20}" text-anchor="end">{seconds / 60:.0f} min</text>')
    return _svg(title, MARGIN + SPAN + 90, top, rows)


def _lines(what: str, series: dict[str, list[float]], top: int) -> list[str]:
    """Return lines that begin at nothing: growth is seen as what it is."""
    most = max(max(values) for values in series.values()) * 1.1
    bottom = top + TALL
    rows = [
        f'<text x="{MARGIN - 8}" y="{top + 10}" text-anchor="end">{most:.0f}</text>',
        f'<text x="{MARGIN - 8}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{MARGIN}" y="{bottom + 20}">{escape(what)}</text>',
        f'<line class="spread" x1="{MARGIN}" x2="{MARGIN + SPAN}" y1="{bottom}" y2="{bottom}"/>',
    ]
    for (name, values), colour in zip(series.items(), COLOURS, strict=False):
        points = " ".join(
            f"{MARGIN + SPAN * at / max(len(values) - 1, 1):.1f},{bottom - TALL * value / most:.1f}"
            for at, value in enumerate(values)
        )
        y = bottom - TALL * statistics.median(values[-60:]) / most
        rows += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>',
            f'<text x="{MARGIN + SPAN + 8}" y="{y + 4:.1f}">{escape(name)}</text>',
        ]
    return rows


def _svg(title: str, width: int, height: int, rows: list[str]) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}\n</style>",
            f'<text class="title" x="10" y="24">{escape(title)}</text>',
            *rows,
            "</svg>\n",
        ]
    )
