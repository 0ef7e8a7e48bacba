"""Pictures of cost and quality: one PNG a figure, and one HTML page with the table, the pictures and the confusions."""

import base64
import html
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trimtab_classifier.evaluation.curves import Picture
from trimtab_classifier.evaluation.result import Result

OURS: Final = "trimtab"
_OURS_COLOUR: Final = "#0b5fa5"
_COLOURS: Final = ("#d1495b", "#edae49", "#3c896d", "#8f5cb0", "#7a7a7a", "#c97b3c", "#5aa9c4", "#a3b18a", "#b56576")
_STYLES: Final = ("-", "--", "-.")
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Trimtab: evaluation</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1f24; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; }}
td {{ font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; height: auto; }}
.yes {{ color: #1a7f37; }} .no {{ color: #cf222e; }}
</style></head><body>
<h1>Trimtab: evaluation</h1>
<p>{protocol}. Intervals are bootstraps of 95 % over judged rows. Curves are for looking at: they sweep the operating
point over the judged rows. A star is the operating point that was fixed on the rows to learn from; the dotted line is
the quality that has to be kept.</p>
{body}
</body></html>
"""


def _lines(axes: Axes, picture: Picture) -> None:
    others = [name for name in picture.curves if name != OURS]
    for place, name in enumerate(others):
        xs, ys = zip(*sorted(picture.curves[name]), strict=True)
        marker = "o" if len(xs) == 1 else None
        colour, style = _COLOURS[place % len(_COLOURS)], _STYLES[(place + place // len(_COLOURS)) % len(_STYLES)]
        axes.plot(xs, ys, style, color=colour, linewidth=1.2, marker=marker, markersize=5, label=name)
    if OURS in picture.curves:
        xs, ys = zip(*sorted(picture.curves[OURS]), strict=True)
        axes.plot(xs, ys, color=_OURS_COLOUR, linewidth=2.4, label=OURS, zorder=5)


def figure(result: Result, picture: Picture) -> Figure:
    """One picture."""
    drawing = Figure(figsize=(8.6, 4.8), dpi=110, layout="constrained")
    axes = drawing.add_subplot()
    _lines(axes, picture)
    if picture.level is not None:
        axes.axhline(picture.level, color="#444444", linewidth=1, linestyle=":", label="quality to keep")
    if picture.point is not None:
        x, y = picture.point
        axes.plot(
            [x], [y], "*", color=_OURS_COLOUR, markersize=16, markeredgecolor="white", zorder=6, label="fixed point"
        )
    axes.set_xlabel(picture.x)
    axes.set_ylabel(picture.y)
    axes.set_title(f"{result.id}   {result.value:.3f} [{result.low:.3f}, {result.high:.3f}], n = {result.n:,}")
    axes.grid(visible=True, color="#e5e8eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.legend(loc="outside right center", frameon=False, fontsize=9)
    return drawing


def _bar(result: Result) -> str:
    if result.bar is None:
        return ""
    mark = "yes" if result.met else "no"
    return f'<span class="{mark}">{"&ge;" if result.higher else "&le;"} {result.bar:g}: {mark}</span>'


def _table(results: list[Result]) -> str:
    rows = []
    for r in results:
        cells = (r.id, f"{r.value:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.n:,}", _bar(r))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "<tr><th>figure</th><th>value</th><th>95 %</th><th>rows</th><th>bar</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _baselines(result: Result) -> str:
    kept: dict[str, float] = result.details.get("accuracy_difference", {})
    names = {OURS: result.value} | result.baselines
    rows = [
        f"<tr><td>{html.escape(name)}</td><td>{value:.3f}</td>"
        f"<td>{f'{100 * kept[name]:+.1f}' if name in kept else ''}</td></tr>"
        for name, value in names.items()
    ]
    head = f"<tr><th>method</th><th>value</th><th>{'accuracy against the reference, points' if kept else ''}</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _confusion(table: dict[str, dict[str, int]]) -> str:
    names = list(dict.fromkeys([*table, *(name for row in table.values() for name in row)]))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = [
        f"<tr><td>{html.escape(true)}</td>{''.join(f'<td>{table[true].get(name, 0)}</td>' for name in names)}</tr>"
        for true in table
    ]
    return (
        f"<p>Rows are true classes, columns predicted ones.</p><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _section(result: Result, image: Path | None) -> str:
    parts = [f"<h2>{result.id}</h2>"]
    if image is not None:
        data = base64.b64encode(image.read_bytes()).decode()
        parts.append(f'<img alt="{result.id}: cost and quality by method" src="data:image/png;base64,{data}">')
    parts.append(_baselines(result))
    confusion: Any = result.details.get("confusion")
    return "".join([*parts, _confusion(confusion) if confusion else ""])


def draw(results: list[Result], protocol: str, folder: Path) -> list[Path]:
    """Writes the pictures and `index.html`; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    sections = []
    for result in results:
        image = None
        if result.picture is not None:
            image = folder / f"{result.id}.png"
            figure(result, result.picture).savefig(image)
            written.append(image)
        sections.append(_section(result, image))
    page = folder / "index.html"
    page.write_text(_PAGE.format(protocol=html.escape(protocol), body=_table(results) + "".join(sections)), "utf-8")
    return [*written, page]
