"""The gate over time: a chapter per model, a chart per metric, from saved results."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.records import CheckFinding, CheckResult
from edgenas.reporting import charts
from edgenas.reporting.gate import finding_value
from edgenas.reporting.parts import Grid, Section, moment
from edgenas.units import latency_unit

METRICS = {
    "latency_ms": ("Latency", "latency, {unit}", 1.0),
    "size_bytes": ("Size", "size, kB", 1e-3),
    "peak_memory_bytes": ("Peak memory", "peak memory, MB", 1e-6),
    "accuracy": ("Accuracy", "accuracy, %", 100.0),
}


def trend_sections(results: Sequence[CheckResult]) -> list[Section]:
    """One chapter per model and metric that has values, the models in the order of their first result."""
    models = dict.fromkeys(finding.model for result in results for finding in result.findings)
    return [
        section
        for number, model in enumerate(models)
        for metric in METRICS
        if (section := _section(results, model, metric, f"trend-{number}-{metric}"))
    ]


def _section(results: Sequence[CheckResult], model: str, metric: str, key: str) -> Section | None:
    title, axis, unit = METRICS[metric]
    axis = axis.format(unit=latency_unit())
    found = [
        (result, finding)
        for result in results
        for finding in result.findings
        if (finding.model, finding.metric) == (model, metric) and finding.value is not None
    ]
    if not found:
        return None
    failed = sum(finding.verdict == "fail" for _, finding in found)
    times = "once" if len(found) == 1 else f"{len(found)} times"
    return Section(
        key=key,
        short=f"{model}: {title.lower()}",
        title=f"{title} of {model}",
        lead=f"Checked {times}, failed {failed} of them.",
        figure=charts.trend([_point(*pair, unit) for pair in found], axis),
        describes="Line chart of the value over time with its limit; the table below has the numbers.",
        grids=(_grid(found),),
    )


def _point(result: CheckResult, finding: CheckFinding, unit: float) -> charts.TrendPoint:
    assert finding.value is not None
    low, high = finding.interval or (finding.value, finding.value)
    return charts.TrendPoint(
        when=f"{moment(result.created_at)} {result.commit[:7]}",
        value=round(finding.value * unit, 5),
        low=round(low * unit, 5),
        high=round(high * unit, 5),
        limit=None if finding.limit is None else round(finding.limit * unit, 5),
        verdict=finding.verdict,
        about=f"{finding.verdict} {finding.note}".strip(),
    )


def _grid(found: Sequence[tuple[CheckResult, CheckFinding]]) -> Grid:
    rows = [
        (
            moment(result.created_at),
            result.commit[:12],
            *(finding_value(finding, value) for value in (finding.baseline, finding.value, finding.limit)),
            finding.verdict,
            finding.note,
        )
        for result, finding in reversed(found)
    ]
    columns = ("time", "commit", "baseline", "value", "limit", "verdict", "note")
    return Grid(caption=f"Every result ({len(rows)})", columns=columns, rows=rows)
