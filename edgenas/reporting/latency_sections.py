"""The chapters about latency: predictions, the table behind them, kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from edgenas.records import KernelPrediction, NetworkPoint, Prediction, PredictionError, ProfileResult
from edgenas.reporting import charts
from edgenas.reporting.parts import Fact, Grid, Section, duration, milliseconds, percent, threads
from edgenas.units import microsecond_unit


def prediction_section(points: Sequence[NetworkPoint], profile: ProfileResult | None = None) -> Section:
    """Predicted against measured latency with the errors on what was held out."""
    judged = [point for point in points if point.held_out] or list(points)
    which = "held-out networks" if judged[0].held_out else "networks the table was fitted to"
    errors = [abs(point.predicted_ms / point.measured_ms - 1) for point in judged]
    inside = sum(point.low_ms <= point.measured_ms <= point.high_ms for point in judged) / len(judged)
    facts = [
        Fact(label="within 5 %", value=_share(errors, 0.05), note=f"of {len(judged)} {which}"),
        Fact(label="within 10 %", value=_share(errors, 0.10)),
        Fact(label="median error", value=percent(sorted(errors)[len(errors) // 2])),
        Fact(label="in their interval", value=f"{inside:.0%}", note="90 % are meant to be"),
    ]
    if profile:
        note = "how far two halves of the same measurement differ"
        facts.append(Fact(label="noise floor", value=percent(profile.noise_floor), note=note))
    rows = [
        (
            point.name,
            point.precision or "-",
            "held out" if point.held_out else "fitted to",
            milliseconds(point.measured_ms),
            milliseconds(point.predicted_ms),
            f"{milliseconds(point.low_ms)} to {milliseconds(point.high_ms)}",
            f"{100 * (point.predicted_ms / point.measured_ms - 1):+.1f} %",
        )
        for point in points
    ]
    columns = ("network", "precision", "role", "measured", "predicted", "interval", "error")
    return Section(
        key="prediction",
        short="Prediction",
        title="Predicted against measured latency",
        lead="Each dot is one whole network; the band is ±10 %, the bars are 90 % intervals.",
        facts=tuple(facts),
        figure=charts.predicted_against_measured(points),
        describes="Scatter chart of predicted over measured latency; the table below has the numbers.",
        grids=(Grid(caption=f"All {len(rows)} networks as a table", columns=columns, rows=rows),),
    )


def _share(errors: Sequence[float], limit: float) -> str:
    return f"{sum(error <= limit for error in errors) / len(errors):.0%}"


def profile_section(profile: ProfileResult) -> Section:
    """What the latency table holds and how well it predicts what it was not fitted to."""
    rows = [
        (
            *(cell.space, cell.precision, str(cell.threads), str(cell.networks), str(cell.kernels)),
            f"{cell.coverage:.0%}",
            *_errors(cell.error),
        )
        for cell in profile.cells
    ]
    facts = (
        Fact(label="networks measured", value=str(profile.measured_networks + profile.reused_networks)),
        Fact(
            label="failed", value=str(profile.failed_networks), mood="bad" if profile.failed_networks else ""
        ),
        Fact(label="noise floor", value=percent(profile.noise_floor), note="two halves of one measurement"),
        Fact(label="time on the device", value=duration(profile.device_seconds)),
    )
    columns = (
        "space", "precision", "threads", "networks", "kernels", "coverage",
        "held out", "within 5 %", "within 10 %", "the device itself, 5 %", "RMSPE", "Spearman", "in interval",
    )  # fmt: skip
    return Section(
        key="table",
        short="Table",
        title="The latency table behind it",
        lead="Judged on networks that the table was not fitted to, beside the device's own noise.",
        facts=facts,
        grids=(Grid(caption="By space and precision", columns=columns, rows=rows, folded=False),),
    )


def _errors(error: PredictionError | None) -> tuple[str, ...]:
    if error is None:
        return ("-",) * 7
    return (
        str(error.networks),
        f"{error.within_5:.0%}",
        f"{error.within_10:.0%}",
        f"{error.repeat_within_5:.0%}",
        percent(error.rmspe),
        "-" if error.spearman is None else f"{error.spearman:.3f}",
        f"{error.interval_coverage:.0%}",
    )


def kernels_section(prediction: Prediction, title: str = "Where the winner's time goes") -> Section:
    """Where the time of one network goes, kernel by kernel."""
    low, high = prediction.interval_ms
    facts = (
        Fact(
            label="predicted",
            value=milliseconds(prediction.latency_ms),
            note=f"90 %: {milliseconds(low)} to {milliseconds(high)}",
        ),
        Fact(label="overhead of a run", value=milliseconds(prediction.overhead_ms)),
        Fact(
            label="interpolated", value=percent(prediction.interpolated_share, 0), note="of the kernels' time"
        ),
    )
    rows = [
        (str(i + 1), k.layer or "-", k.kind, k.name, f"{1000 * k.latency_ms:.1f}", k.source)
        for i, k in enumerate(prediction.kernels)
    ]
    return Section(
        key="kernels",
        short="Kernels",
        title=title,
        lead=(
            f"{Path(prediction.model).name}: {len(prediction.kernels)} kernels in order, as "
            f"{prediction.runtime} executes them after its own fusion ({threads(prediction.threads)})."
        ),
        facts=facts,
        figure=charts.kernel_bars(prediction.kernels),
        describes="Bar chart of the time of every kernel; the tables below have the numbers.",
        grids=(
            _kind_grid(prediction.kernels),
            Grid(
                caption=f"All {len(rows)} kernels as a table",
                columns=("position", "layer", "kind", "name", microsecond_unit(), "source"),
                rows=rows,
            ),
        ),
    )


def layers_section(prediction: Prediction) -> Section:
    """Where the time of one network goes, layer by layer."""
    layers = prediction.layers()
    rows = [
        (
            *(str(position + 1), one.layer, str(one.kernels), f"{1000 * one.latency_ms:.1f}"),
            percent(one.latency_ms / prediction.latency_ms, 1),
            percent(one.measured_ms / one.latency_ms if one.latency_ms else 0.0, 0),
        )
        for position, one in enumerate(layers)
    ]
    columns = ("position", "layer", "kernels", microsecond_unit(), "share", "measured")
    return Section(
        key="layers",
        short="Layers",
        title="By layer",
        lead="A layer is what the model's builder named; the runtime's own reorders belong to a neighbour.",
        figure=charts.layer_bars(layers),
        describes="Bar chart of the time of every layer; the table below has the numbers.",
        grids=(Grid(caption=f"All {len(rows)} layers as a table", columns=columns, rows=rows),),
    )


def _kind_grid(kernels: Sequence[KernelPrediction]) -> Grid:
    times: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        times[kernel.kind].append(kernel.latency_ms)
    total = sum(kernel.latency_ms for kernel in kernels) or 1.0
    rows = [
        (kind, str(len(values)), f"{1000 * sum(values):.1f}", percent(sum(values) / total, 1))
        for kind, values in sorted(times.items(), key=lambda item: -sum(item[1]))
    ]
    return Grid(
        caption="By kind", columns=("kind", "kernels", microsecond_unit(), "share"), rows=rows, folded=False
    )
