"""Charts as plotly figures in plain dictionaries, which ``templates/chart.js`` draws.

Only what stands here is drawn there. Colours are names of the page's CSS variables
(``var(--accent)``), so that one figure serves light and dark. Texts go through ``text`` because a
figure's texts have a little markup.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgenas.records import (
    Candidate,
    KernelPrediction,
    LayerPrediction,
    NetworkPoint,
    QuantizeResult,
    SchemeTrial,
    SearchResult,
    TrainResult,
)
from edgenas.units import latency_unit, microsecond_unit

Figure = dict[str, Any]

MOST_POINTS = 2500
LOGARITHMIC_RANGE = 20.0
ACCENT, SECOND, MUTED, GOOD, BAD = (f"var(--{name})" for name in ("accent", "second", "muted", "good", "bad"))


def text(value: object, most: int = 260) -> str:
    """Any text so that a chart shows it as it is; long ones are cut."""
    plain = str(value)
    return html.escape(plain if len(plain) <= most else plain[: most - 3] + "...", quote=False)


def genes(candidate: dict[str, Any]) -> str:
    """A candidate's genes on a few lines for a hover box."""
    lines, line = [], ""
    for name, value in candidate.items():
        part = f"{name}={value}"
        if line and len(line) + len(part) > 56:
            lines.append(text(line))
            line = part
        else:
            line = f"{line}, {part}" if line else part
    return "<br>".join([*lines, text(line)][:10])


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "zeroline": False, **more}


def _figure(traces: list[dict[str, Any]], *, height: int, **layout: Any) -> Figure:
    return {"data": traces, "layout": {"height": height, **layout}}


def _vertical_line(x: float, label: str, color: str) -> dict[str, Any]:
    """A dashed line across the height of the chart, with its name at the top."""
    line = {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    note = {"x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "center", "showarrow": False}
    return {
        "shapes": [{**line, "line": {"color": color, "width": 1.5, "dash": "dash"}}],
        "annotations": [{**note, "text": text(label), "font": {"color": color, "size": 12}}],
    }


# --- search ----------------------------------------------------------------------------------------


def pareto_front(result: SearchResult, device: str, limit_ms: float | None) -> Figure:
    """Accuracy over latency: every candidate, the front, the limit and the winner."""
    shown = _thinned([c for c in result.evaluated if device in c.latency_ms])
    traces = [_candidates("evaluated", shown, device, {"size": 6, "color": MUTED, "opacity": 0.55})]
    front = sorted(
        (c for c in result.front if device in c.latency_ms),
        key=lambda candidate: candidate.latency_ms[device],
    )
    traces.append(
        _candidates("Pareto front", front, device, {"size": 9, "color": ACCENT})
        | {"mode": "lines+markers", "line": {"color": ACCENT, "width": 2, "shape": "hv"}}
    )
    if result.best is not None and device in result.best.latency_ms:
        star = {
            "size": 17,
            "color": SECOND,
            "symbol": "star",
            "line": {"color": "var(--surface)", "width": 1},
        }
        traces.append(_candidates("chosen", [result.best], device, star))
    marks = (
        _vertical_line(limit_ms, f"limit {limit_ms:g} {latency_unit()}", BAD) if limit_ms is not None else {}
    )
    return _figure(
        [trace for trace in traces if trace["x"]],
        height=430,
        xaxis=_axis(f"latency, {latency_unit()}"),
        yaxis=_axis("accuracy, %"),
        hovermode="closest",
        **marks,
    )


def _thinned(candidates: list[Candidate]) -> list[Candidate]:
    if len(candidates) <= MOST_POINTS:
        return candidates
    return [candidates[i * len(candidates) // MOST_POINTS] for i in range(MOST_POINTS)]


def _candidates(
    name: str, candidates: Sequence[Candidate], device: str, marker: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [round(c.latency_ms[device], 5) for c in candidates],
        "y": [round(100 * c.accuracy, 3) for c in candidates],
        "text": [genes(c.candidate) for c in candidates],
        "customdata": [c.latency_source for c in candidates],
        "hovertemplate": (
            f"<b>%{{y:.2f}} %</b> at <b>%{{x:.3f}} {latency_unit()}</b> (%{{customdata}})"
            "<br>%{text}<extra></extra>"
        ),
        "marker": marker,
    }


MOST_OPTIONS_SHOWN = 40


def hypervolume(result: SearchResult) -> Figure:
    """The dominated share over evaluations."""
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [one.evaluations for one in result.hypervolume],
        "y": [round(one.hypervolume, 5) for one in result.hypervolume],
        "line": {"color": ACCENT, "width": 2, "shape": "hv"},
        "hovertemplate": "<b>%{y:.4f}</b> after %{x} evaluations<extra></extra>",
    }
    return _figure([trace], height=300, xaxis=_axis("evaluations"), yaxis=_axis("hypervolume, share"))


def survival_of(result: SearchResult) -> list[tuple[str, str, float, float]]:
    """Gene, option, its share of the evaluated candidates and of the front; genes of one option left out."""
    tried, left = _shares(result.evaluated), _shares(result.front)
    several = Counter(gene for gene, _ in tried)
    return [
        (gene, option, share, left.get((gene, option), 0.0))
        for (gene, option), share in sorted(tried.items(), key=lambda item: item[0][0])
        if several[gene] > 1
    ]


def _shares(candidates: Sequence[Candidate]) -> dict[tuple[str, str], float]:
    """Share of the candidates with that gene that carry each option."""
    pairs = Counter((gene, str(option)) for one in candidates for gene, option in one.candidate.items())
    with_gene = Counter(gene for one in candidates for gene in one.candidate)
    return {pair: count / with_gene[pair[0]] for pair, count in pairs.items()}


def survival(choices: Sequence[tuple[str, str, float, float]]) -> Figure:
    """Share evaluated and share on the front, for the options that changed most."""
    shown = sorted(choices, key=lambda one: -abs(one[3] - one[2]))[:MOST_OPTIONS_SHOWN]
    shown.sort(key=lambda one: (one[0], one[1]), reverse=True)
    names = [text(f"{gene} = {option}", 60) for gene, option, _, _ in shown]
    shares = {"on the front": [one[3] for one in shown], "evaluated": [one[2] for one in shown]}
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [round(100 * share, 2) for share in shares[name]],
            "marker": {"color": color},
            "hovertemplate": f"%{{y}}: <b>%{{x:.1f}} %</b> {name}<extra></extra>",
        }
        for name, color in (("on the front", ACCENT), ("evaluated", MUTED))
    ]
    return _figure(
        traces,
        height=140 + 26 * len(shown),
        xaxis=_axis("share, %"),
        yaxis={"automargin": True},
        barmode="group",
    )


# --- prediction ------------------------------------------------------------------------------------


def predicted_against_measured(points: Sequence[NetworkPoint]) -> Figure:
    """Predicted over measured latency with intervals, inside or outside the band of +-10 %."""
    values = [v for p in points for v in (p.predicted_ms, p.measured_ms)]
    low, high = 0.9 * min(values), 1.1 * max(values)
    kind = {"type": "log"} if high / low > LOGARITHMIC_RANGE else {}
    band = {
        "type": "scatter",
        "mode": "lines",
        "name": "within 10 %",
        "x": [low, high, high, low],
        "y": [0.9 * low, 0.9 * high, 1.1 * high, 1.1 * low],
        "fill": "toself",
        "fillcolor": "var(--band)",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "showlegend": False,
        "x": [low, high],
        "y": [low, high],
        "hoverinfo": "skip",
        "line": {"color": MUTED, "width": 1},
    }
    groups = [("fitted to", False, MUTED), ("held out", True, ACCENT)]
    traces = [_points(name, [p for p in points if p.held_out == held], color) for name, held, color in groups]
    return _figure(
        [band, diagonal, *(trace for trace in traces if trace["x"])],
        height=430,
        xaxis=_axis(f"measured, {latency_unit()}", **kind),
        yaxis=_axis(f"predicted, {latency_unit()}", **kind),
        hovermode="closest",
    )


def _points(name: str, points: Sequence[NetworkPoint], color: str) -> dict[str, Any]:
    errors = [100 * (p.predicted_ms / p.measured_ms - 1) for p in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [round(p.measured_ms, 5) for p in points],
        "y": [round(p.predicted_ms, 5) for p in points],
        "text": [text(f"{p.name} {p.precision}".strip(), 80) for p in points],
        "customdata": [round(error, 2) for error in errors],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(p.high_ms - p.predicted_ms, 5) for p in points],
            "arrayminus": [round(p.predicted_ms - p.low_ms, 5) for p in points],
            "color": color,
            "thickness": 1,
            "width": 0,
        },
        "marker": {"size": 8, "color": color},
        "hovertemplate": (
            f"<b>%{{text}}</b><br>predicted %{{y:.3f}}, measured %{{x:.3f}} {latency_unit()}"
            "<br>%{customdata:+.1f} %<extra></extra>"
        ),
    }


def kernel_bars(kernels: Sequence[KernelPrediction]) -> Figure:
    """One bar per kernel in execution order, from top to bottom."""
    total = sum(kernel.latency_ms for kernel in kernels) or 1.0
    traces = []
    for source, color in (("measured", ACCENT), ("interpolated", SECOND)):
        chosen = [(i, kernel) for i, kernel in enumerate(kernels) if kernel.source == source]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "width": 0.74,
                "name": source,
                "y": [i for i, _ in chosen],
                "x": [round(1000 * kernel.latency_ms, 3) for _, kernel in chosen],
                "text": [text(f"{k.name}", 90) for _, k in chosen],
                "customdata": [
                    [text(k.kind), text(k.layer or "-"), round(100 * k.latency_ms / total, 2)]
                    for _, k in chosen
                ],
                "textposition": "none",
                "hovertemplate": (
                    "<b>%{text}</b><br>%{customdata[0]}, layer %{customdata[1]}<br>"
                    f"%{{x:.1f}} {microsecond_unit()}, %{{customdata[2]}} % of all kernels<extra></extra>"
                ),
                "marker": {"color": color},
            }
        )
    labels = [text(f"{kernel.layer or kernel.name} {kernel.kind}", 30) for kernel in kernels]
    ticks = {"tickvals": list(range(len(kernels))), "ticktext": labels, "tickfont": {"size": 10}}
    return _figure(
        [trace for trace in traces if trace["x"]],
        height=max(260, 17 * len(kernels) + 110),
        xaxis=_axis("", side="top", ticksuffix=f" {microsecond_unit()}", nticks=6),
        yaxis={"autorange": "reversed", "showgrid": False, **ticks},
        barmode="overlay",
    )


# --- quantization and training ---------------------------------------------------------------------


def layer_bars(layers: Sequence[LayerPrediction]) -> Figure:
    """One bar per layer in execution order, measured and interpolated parts end to end."""
    total = sum(layer.latency_ms for layer in layers) or 1.0
    rows = list(range(len(layers)))
    parts = {
        "measured": [layer.measured_ms for layer in layers],
        "interpolated": [layer.latency_ms - layer.measured_ms for layer in layers],
    }
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "width": 0.74,
            "name": name,
            "y": rows,
            "x": [round(1000 * part, 3) for part in parts[name]],
            "text": [text(layer.layer, 90) for layer in layers],
            "customdata": [
                [layer.kernels, round(1000 * layer.latency_ms, 1), round(100 * layer.latency_ms / total, 2)]
                for layer in layers
            ],
            "textposition": "none",
            "hovertemplate": (
                "<b>%{text}</b><br>%{customdata[0]} kernels, %{customdata[1]} "
                f"{microsecond_unit()}, %{{customdata[2]}} % of all layers<br>"
                f"{name}: %{{x:.1f}} {microsecond_unit()}<extra></extra>"
            ),
            "marker": {"color": color},
        }
        for name, color in (("measured", ACCENT), ("interpolated", SECOND))
        if any(part > 0 for part in parts[name])
    ]
    labels = [text(layer.layer, 30) for layer in layers]
    ticks = {"tickvals": rows, "ticktext": labels, "tickfont": {"size": 10}}
    return _figure(
        traces,
        height=max(260, 17 * len(layers) + 110),
        xaxis=_axis(microsecond_unit(), side="top"),
        yaxis={"autorange": "reversed", "showgrid": False, **ticks},
        barmode="stack",
    )


def schemes(result: QuantizeResult) -> Figure:
    """Accuracy over latency of every scheme that ran; without labels the output distance."""
    labelled = any(trial.accuracy is not None for trial in result.tried)
    looks = (("chosen", SECOND, "star", 17), ("kept", ACCENT, "circle", 10), ("rejected", MUTED, "circle", 9))
    traces = []
    for verdict, color, symbol, size in looks:
        chosen = [trial for trial in result.tried if trial.verdict == verdict]
        points = [_SchemePoint(t.scheme, t.latency_ms, _height(t, labelled), t.reason) for t in chosen]
        traces.append(_scheme_points(verdict, points, {"size": size, "color": color, "symbol": symbol}))
    traces.append(_scheme_front(result, labelled))
    height = 0.0 if not labelled else result.float_accuracy and 100 * result.float_accuracy
    reference = _SchemePoint("float", result.float_latency_ms, height, "what all schemes are held to")
    traces.append(_scheme_points("float", [reference], {"size": 11, "color": GOOD, "symbol": "diamond"}))
    return _figure(
        [trace for trace in traces if trace["x"]],
        height=400,
        xaxis=_axis(f"latency, {latency_unit()}"),
        yaxis=_axis("accuracy, %" if labelled else "distance of the outputs to float"),
        hovermode="closest",
        **_vertical_line(result.float_latency_ms, "float", MUTED),
    )


def _scheme_front(result: QuantizeResult, labelled: bool) -> dict[str, Any]:
    """The schemes that no other beats in both latency and quality."""
    better = 1.0 if labelled else -1.0
    known = [(t.latency_ms, _height(t, labelled)) for t in result.tried if t.latency_ms is not None]
    points = sorted((ms, height) for ms, height in known if height is not None)
    front: list[tuple[float, float]] = []
    for ms, height in points:
        if not front or better * height > better * front[-1][1]:
            front.append((ms, height))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [ms for ms, _ in front],
        "y": [height for _, height in front],
        "line": {"shape": "hv", "color": MUTED, "dash": "dot"},
        "hoverinfo": "skip",
    }


def sensitivity(result: QuantizeResult) -> Figure:
    """Error that each part of the network brings alone on integers, and the time that it saves there."""
    parts = result.sensitivity
    names = [text(part.layer, 40) for part in parts]
    error = {
        "type": "bar",
        "name": "error of the outputs",
        "x": names,
        "y": [max(part.squared_error, 1e-9) for part in parts],
        "marker": {"color": [ACCENT if part.integer else SECOND for part in parts]},
        "customdata": ["int8" if part.integer else "float" for part in parts],
        "hovertemplate": "<b>%{x}</b> (%{customdata})<br>error %{y:.3g}<extra></extra>",
    }
    saved = {
        "type": "scatter",
        "mode": "markers",
        "name": "time saved",
        "x": names,
        "y": [round(part.float_ms - part.int8_ms, 5) for part in parts],
        "yaxis": "y2",
        "marker": {"color": GOOD, "size": 8},
        "hovertemplate": f"<b>%{{x}}</b><br>saves %{{y:.4f}} {latency_unit()}<extra></extra>",
    }
    return _figure(
        [error, saved],
        height=400,
        xaxis={**_axis(""), "tickangle": -60},
        yaxis={**_axis("share of the outputs' energy that is error"), "type": "log"},
        yaxis2={**_axis(f"time saved on integers, {latency_unit()}"), "overlaying": "y", "side": "right"},
    )


def _wrapped(sentence: str, width: int = 60) -> list[str]:
    lines = [""]
    for word in sentence.split():
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


class _SchemePoint(NamedTuple):
    scheme: str
    latency_ms: float | None
    height: float | None
    reason: str


def _height(trial: SchemeTrial, labelled: bool) -> float | None:
    if not labelled:
        return trial.output_distance
    return None if trial.accuracy is None else round(100 * trial.accuracy, 3)


def _scheme_points(name: str, points: Sequence[_SchemePoint], marker: dict[str, Any]) -> dict[str, Any]:
    known = [point for point in points if point.latency_ms is not None and point.height is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.latency_ms for point in known],
        "y": [point.height for point in known],
        "text": [text(point.scheme, 60) for point in known],
        "customdata": ["<br>".join(text(line) for line in _wrapped(point.reason)) for point in known],
        "marker": marker,
        "hovertemplate": (
            f"<b>%{{text}}</b><br>%{{y:.3f}} at %{{x:.3f}} {latency_unit()}<br>%{{customdata}}<extra></extra>"
        ),
    }


def training_curves(result: TrainResult) -> Figure:
    """Validation accuracy above, loss below, by epoch."""
    epochs = [epoch.epoch for epoch in result.epochs]
    names = dict.fromkeys(name for epoch in result.epochs for name in epoch.accuracy)
    colors = [ACCENT, SECOND, GOOD, MUTED, BAD]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": text(name, 40),
            "x": [epoch.epoch for epoch in result.epochs if name in epoch.accuracy],
            "y": [round(100 * e.accuracy[name], 3) for e in result.epochs if name in e.accuracy],
            "line": {"color": colors[i % len(colors)], "width": 2},
            "marker": {"size": 5, "color": colors[i % len(colors)]},
            "hovertemplate": "%{y:.2f} %",
        }
        for i, name in enumerate(names)
    ]
    loss = {
        "type": "scatter",
        "mode": "lines",
        "name": "loss",
        "x": epochs,
        "y": [round(epoch.loss, 5) for epoch in result.epochs],
        "yaxis": "y2",
        "line": {"color": MUTED, "width": 2},
        "hovertemplate": "%{y:.4f}",
    }
    return _figure(
        [*traces, loss],
        height=420,
        xaxis=_axis("epoch", anchor="y2"),
        yaxis=_axis("accuracy, %", domain=[0.42, 1]),
        yaxis2=_axis("loss", domain=[0, 0.32]),
        hovermode="x unified",
    )


def kernel_families(families: Sequence[tuple[str, int]]) -> Figure:
    """How many kernels of each family a table knows."""
    return _figure(
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": [count for _, count in families],
                "y": [text(name.replace("com.microsoft.", ""), 40) for name, _ in families],
                "marker": {"color": ACCENT},
                "hovertemplate": "%{y}: %{x} kernels<extra></extra>",
            }
        ],
        height=max(220, 24 * len(families) + 90),
        xaxis=_axis("kernels"),
        yaxis={"autorange": "reversed", "showgrid": False},
        showlegend=False,
    )


# --- the gate over time ------------------------------------------------------------------------------


def trend(points: Sequence[TrendPoint], axis: str) -> Figure:
    """One metric of one model over time: values, the limit that held, and what did not pass."""
    numbers = list(range(1, len(points) + 1))
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "value",
        "x": numbers,
        "y": [point.value for point in points],
        "text": [f"{text(point.when)}<br>{text(point.about)}" for point in points],
        "line": {"color": ACCENT, "width": 2},
        "marker": {
            "size": [8 if point.verdict == "pass" else 13 for point in points],
            "color": [_MOODS[point.verdict] for point in points],
            "symbol": ["circle" if point.verdict == "pass" else "x" for point in points],
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [point.high - point.value for point in points],
            "arrayminus": [point.value - point.low for point in points],
            "color": MUTED,
            "thickness": 1,
            "width": 0,
        },
        "hovertemplate": "<b>%{y}</b><br>%{text}<extra></extra>",
    }
    limit = {
        "type": "scatter",
        "mode": "lines",
        "name": "limit",
        "x": numbers,
        "y": [point.limit for point in points],
        "line": {"color": BAD, "width": 1.5, "dash": "dash", "shape": "hv"},
        "hoverinfo": "skip",
    }
    limited = [limit] if any(point.limit is not None for point in points) else []
    # Results are evenly spaced: a week without a change is no gap in what changed.
    return _figure(
        [line, *limited],
        height=320,
        xaxis=_axis("result", rangemode="tozero", tickformat="d"),
        yaxis=_axis(axis),
        hovermode="closest",
    )


class TrendPoint(NamedTuple):
    """One result of one metric: ``low`` and ``high`` are its interval's ends, or the value itself."""

    when: str
    value: float
    low: float
    high: float
    limit: float | None
    verdict: str
    about: str


_MOODS = {"pass": ACCENT, "fail": BAD, "inconclusive": SECOND, "incomparable": MUTED}
