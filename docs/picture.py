"""Draws the front and the schemes of a run as one SVG, the README's picture.

python docs/picture.py runs/demo-local docs/demo.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from edgenas.pipeline.report import read_run

WIDTH, HEIGHT, MARGIN = 380, 250, 52
Point = tuple[float, float]


class Plot:
    """One chart: accuracy in percent over latency in ms, ``left`` pixels from the edge."""

    def __init__(self, left: int, title: str, points: Sequence[Point]) -> None:
        self.left = left
        xs, ys = [x for x, _ in points], [y for _, y in points]
        across, up = max(xs) - min(xs) or 0.01, max(max(ys) - min(ys), 1.0)
        middle = (max(ys) + min(ys)) / 2
        self.low = (min(xs) - 0.05 * across, middle - 0.55 * up)
        self.high = (max(xs) + 0.05 * across, min(middle + 0.55 * up, 100.0))
        self.parts = [f'<text x="{left + MARGIN}" y="20" font-weight="bold">{escape(title)}</text>']
        for value, end in ((self.low[0], "start"), (self.high[0], "end")):
            x = self.place((value, 0.0))[0]
            self.parts.append(
                f'<text x="{x:.0f}" y="{HEIGHT - 18}" text-anchor="{end}">{value:.3f} ms</text>'
            )
        for value in (self.low[1], self.high[1]):
            y = self.place((0.0, value))[1]
            self.parts.append(
                f'<text x="{left + MARGIN - 4}" y="{y + 4:.0f}" text-anchor="end">{value:.1f} %</text>'
            )

    def place(self, point: Point) -> Point:
        """Pixels of a point."""
        x, y = (
            (v - low) / ((high - low) or 1.0) for v, low, high in zip(point, self.low, self.high, strict=True)
        )
        return self.left + MARGIN + x * (WIDTH - MARGIN - 14), HEIGHT - 40 - y * (HEIGHT - 72)

    def dots(self, points: Sequence[Point], color: str, radius: float) -> None:
        """A circle for each point."""
        for point in points:
            x, y = self.place(point)
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"/>')

    def limit(self, latency_ms: float) -> None:
        """The latency limit as a dashed line."""
        x = self.place((latency_ms, 0.0))[0]
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="32" y2="{HEIGHT - 40}"'
        self.parts.append(f'<line {ends} stroke="#c62f3d" stroke-dasharray="5 4"/>')
        label = f"limit {latency_ms:g} ms"
        self.parts.append(f'<text x="{x:.1f}" y="28" text-anchor="end" fill="#c62f3d">{label}</text>')


def picture(folder: Path) -> str:
    """The SVG of a finished run."""
    run = read_run(folder)
    assert run.search is not None and run.search.best is not None and run.quantize is not None
    device = run.search.devices[0]
    scored = [(one.latency_ms[device], 100 * one.accuracy) for one in run.search.evaluated]
    front = sorted((one.latency_ms[device], 100 * one.accuracy) for one in run.search.front)
    best = (run.search.best.latency_ms[device], 100 * run.search.best.accuracy)
    search = Plot(0, f"{run.search.evaluations} candidates on {device}", [*scored, *front, best])
    search.dots(scored, "#98a1b0", 2)
    search.dots(front, "#1f5fbf", 3.5)
    search.dots([best], "#d2691e", 6)
    search.limit(run.search.limits_ms[0])
    tried = {
        verdict: [(one.latency_ms, 100 * one.accuracy) for one in run.quantize.tried
                  if one.verdict == verdict and one.latency_ms is not None and one.accuracy is not None]
        for verdict in ("rejected", "kept", "chosen")
    }  # fmt: skip
    reference = (run.quantize.float_latency_ms, 100 * (run.quantize.float_accuracy or 0.0))
    schemes = Plot(
        WIDTH + 10,
        "int8 schemes (green: float)",
        [p for group in tried.values() for p in group] + [reference],
    )
    for verdict, color, radius in (
        ("rejected", "#98a1b0", 4),
        ("kept", "#1f5fbf", 4),
        ("chosen", "#d2691e", 6),
    ):
        schemes.dots(tried[verdict], color, radius)
    schemes.dots([reference], "#22863a", 5)
    size = f'width="{2 * WIDTH + 10}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH + 10} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="#1b2330"'
    back = '<rect width="100%" height="100%" fill="#ffffff" rx="8"/>'
    body = "\n".join([back, *search.parts, *schemes.parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(Path(sys.argv[1])), encoding="utf-8")
