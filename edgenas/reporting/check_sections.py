"""The page of a gate's history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgenas.records import CheckResult
from edgenas.reporting.gate import finding_value
from edgenas.reporting.parts import Fact, Grid, Page, Section, duration, moment, threads
from edgenas.reporting.run_sections import environment_section
from edgenas.reporting.trend_sections import trend_sections


def checks_page(results: Sequence[CheckResult]) -> Page:
    """The latest result, then every metric over time."""
    latest, counts = results[-1], Counter(result.verdict for result in results)
    page = Page(
        title="Gate",
        subtitle=f"{latest.device}, {threads(latest.threads)}, latency {latest.latency_source}, "
        f"baseline {latest.baseline}",
        verdict=latest.verdict,
        facts=(
            Fact(label="results", value=str(len(results)), note=f"since {results[0].created_at[:10]}"),
            *(Fact(label=verdict, value=str(count)) for verdict, count in counts.most_common()),
            Fact(
                label="the latest took",
                value=duration(latest.elapsed_s),
                note=moment(latest.created_at),
            ),
        ),
    )
    page.sections.append(_latest(latest))
    page.sections.extend(trend_sections(results))
    if latest.environment is not None:
        page.sections.append(environment_section(latest.environment.to_dict(), {}))
    return page


def _latest(result: CheckResult) -> Section:
    rows = [
        (
            finding.model,
            finding.metric,
            *(finding_value(finding, value) for value in (finding.baseline, finding.value, finding.limit)),
            finding.verdict,
            finding.note,
        )
        for finding in result.findings
    ]
    columns = ("model", "metric", "baseline", "now", "limit", "verdict", "note")
    return Section(
        key="latest",
        short="Latest",
        title="The latest result",
        lead=f"Commit {result.commit[:12]}." if result.commit else "",
        grids=(Grid(caption="Every finding", columns=columns, rows=rows, folded=False),),
        commands=(f"edgenas check MODEL.onnx --baseline {result.baseline}",),
    )
