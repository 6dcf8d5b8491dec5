"""The page of one prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgenas.records import Prediction, TransferSummary
from edgenas.reporting.latency_sections import kernels_section, layers_section
from edgenas.reporting.parts import Fact, Grid, Page, Section, milliseconds, percent, threads


def prediction_page(prediction: Prediction) -> Page:
    """A model's latency on a device: the number, its interval, and where the time goes."""
    low, high = prediction.interval_ms
    page = Page(
        title=f"{Path(prediction.model).name} on {prediction.device}",
        subtitle=(
            f"{prediction.runtime}, {threads(prediction.threads)}, {prediction.precision}; "
            f"kernels read on the {prediction.structure}"
        ),
        facts=(
            Fact(
                label="predicted",
                value=milliseconds(prediction.latency_ms),
                note=f"90 %: {milliseconds(low)} to {milliseconds(high)}",
            ),
            Fact(label="kernels", value=str(len(prediction.kernels))),
            Fact(label="overhead of a run", value=milliseconds(prediction.overhead_ms)),
            Fact(
                label="measured themselves",
                value=percent(1.0 - prediction.interpolated_share, 0),
                note="of the latency; the rest is interpolated",
            ),
        ),
    )
    page.sections.append(layers_section(prediction))
    # The page's own facts say the rest of what stands in a run's chapter.
    page.sections.append(replace(kernels_section(prediction, "By kernel"), facts=()))
    if prediction.transfer is not None:
        page.sections.append(_transfer_section(prediction.transfer, prediction.device))
    return page


def _transfer_section(transfer: TransferSummary, device: str) -> Section:
    rows = [(one.device, one.runtime, str(one.threads), percent(one.share, 0)) for one in transfer.donors]
    own = transfer.own_leave_one_out_rmspe
    return Section(
        key="donors",
        short="Donors",
        title="Other tables that helped" if transfer.used else "Other tables, which were not needed",
        lead=(
            f"Only {transfer.measured_networks} networks were measured on {device} for this. Leaving each "
            "out says how good the prediction is with other tables and without."
        ),
        facts=(
            Fact(label="error with them", value=percent(transfer.leave_one_out_rmspe, 1)),
            Fact(label="its own table alone", value=percent(own, 1), note="- : it cannot price them all"),
        ),
        grids=(
            Grid(
                caption="Donors and their share of the mean prediction",
                columns=("device", "runtime", "threads", "share"),
                rows=rows,
                folded=False,
            ),
        ),
    )
