"""The chapters of a latency table's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgenas.records import TableCell
from edgenas.reporting import charts
from edgenas.reporting.contents import TableContents
from edgenas.reporting.latency_sections import prediction_section
from edgenas.reporting.parts import Fact, Grid, Page, Section, moment, percent, size, threads
from edgenas.reporting.run_sections import environment_section
from edgenas.units import microsecond_unit


def table_page(contents: TableContents) -> Page:
    """The whole page of a latency table."""
    summary = contents.summary
    updated = moment(summary.updated_at)
    page = Page(
        title=f"Latency table of {summary.device}",
        subtitle=f"{summary.runtime}, {threads(contents.threads)}, last measured {updated}",
        facts=(
            Fact(label="kernels", value=str(summary.kernels)),
            Fact(label="networks end to end", value=str(summary.networks)),
            Fact(label="environments", value=str(summary.environments)),
            Fact(label="profiling runs", value=str(summary.runs)),
            Fact(
                label="file", value=size(summary.size_bytes), note=f"schema version {summary.schema_version}"
            ),
        ),
    )
    if contents.networks:
        page.sections.append(prediction_section(contents.networks))
    if contents.error:
        page.sections.append(_error_section(contents))
    if contents.cells:
        page.sections.append(_cells_section(contents.cells))
    if contents.kernels:
        page.sections.append(_kernels_section(contents))
    page.sections.append(environment_section(contents.environment, {}))
    page.sections.append(
        Section(
            key="reproduce",
            short="More",
            title="How to measure more",
            lead="Profiling always goes on where it stopped; nothing is measured twice.",
            commands=(f"edgenas profile --device {summary.device}",),
        )
    )
    return page


def _cells_section(cells: Sequence[TableCell]) -> Section:
    rows = [
        (
            cell.space,
            cell.precision,
            str(cell.threads),
            str(cell.fitted_networks),
            str(cell.held_out_networks),
            f"{cell.timed_kernels} of {cell.kernels}",
            percent(cell.coverage, 0),
        )
        for cell in cells
    ]
    columns = ("space", "precision", "threads", "networks", "held out", "kernels timed", "coverage")
    return Section(
        key="measured",
        short="Measured",
        title="What was measured",
        lead="Coverage is the share of kernel calls whose kernel was timed in place; the others are "
        "predicted from kernels like them, with wider intervals.",
        grids=(Grid(caption="By space, precision and threads", columns=columns, rows=rows, folded=False),),
    )


def _error_section(contents: TableContents) -> Section:
    error = contents.error
    assert error is not None
    return Section(
        key="error",
        short="Error",
        title="How good the predictions are",
        lead=(
            f"On {error.networks} networks that the table was not fitted to, "
            "beside the device's own repeatability."
        ),
        facts=(
            Fact(
                label="within 5 %",
                value=f"{error.within_5:.0%}",
                note=f"the device itself {error.repeat_within_5:.0%}",
            ),
            Fact(
                label="within 10 %",
                value=f"{error.within_10:.0%}",
                note=f"the device itself {error.repeat_within_10:.0%}",
            ),
            Fact(label="RMSPE", value=percent(error.rmspe)),
            Fact(
                label="rank correlation",
                value="-" if error.spearman is None else f"{error.spearman:.3f}",
                note="Spearman",
            ),
            Fact(
                label="in their interval", value=f"{error.interval_coverage:.0%}", note="90 % are meant to be"
            ),
        ),
    )


def _kernels_section(contents: TableContents) -> Section:
    families = Counter(kernel.family for kernel in contents.kernels).most_common()
    rows = [
        (
            kernel.label,
            kernel.family,
            "-" if kernel.latency_ms is None else f"{1000 * kernel.latency_ms:.1f}",
            str(kernel.networks),
        )
        for kernel in contents.kernels
    ]
    return Section(
        key="kernels",
        short="Kernels",
        title="Kernels it knows",
        lead="A kernel is what the runtime executes after its own fusion; times are medians in place.",
        figure=charts.kernel_families(families),
        describes="Bar chart of the number of kernels per family; the table below lists them.",
        grids=(
            Grid(
                caption=f"All {len(rows)} kernels",
                columns=("kernel", "family", microsecond_unit(), "networks"),
                rows=rows,
            ),
        ),
    )
