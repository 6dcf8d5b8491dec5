"""A model on a device with few measurements, as other tables price it where that is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.donors import Donor, MakeUp
from edgenas.latency_tables.kernels import KernelSpec, elements, macs_of, spec_of
from edgenas.latency_tables.observations import MeasuredNetwork, Observations
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.pipeline.few_shot import fitted_few_shot, is_few, own_rmspe
from edgenas.pipeline.neighbours import Neighbours
from edgenas.records import KernelPrediction, KernelTrace, Prediction, TransferSummary

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TransferredModel:
    """A model's latency and 90 % interval in ms by the donors, and what was found about them."""

    latency_ms: float
    interval_ms: tuple[float, float]
    transfer: TransferSummary

    def prediction(
        self,
        own: LatencyPredictor,
        trace: KernelTrace,
        model: str,
        precision: str,
        structure: Literal["device", "host"],
    ) -> Prediction:
        """The whole prediction; each kernel has its part of the latency.

        Parts are in proportion to what the device's own table says of the kernels; a kernel that it
        does not know counts by its work, at the rate of those that it knows.
        """
        specs = [spec_of(kernel) for kernel in trace.kernels]
        overhead_ms = min(own.overhead_ms, 0.5 * self.latency_ms)
        parts = _proportions(own, specs) * (self.latency_ms - overhead_ms)
        measured = np.array([own.knows(spec) and own.measured(spec.key()) for spec in specs])
        return Prediction(
            model=model,
            device=own.device,
            runtime=trace.runtime,
            precision=precision,
            threads=own.threads,
            latency_ms=self.latency_ms,
            interval_ms=self.interval_ms,
            overhead_ms=overhead_ms,
            interpolated_share=float(min(parts[~measured].sum() / parts.sum(), 1.0)),
            structure=structure,
            virtual_clock=own.virtual_clock,
            kernels=tuple(
                KernelPrediction(
                    name=kernel.name,
                    layer=kernel.layer,
                    kind=kernel.kind,
                    latency_ms=float(part),
                    source="measured" if timed else "interpolated",
                )
                for kernel, part, timed in zip(trace.kernels, parts, measured, strict=True)
            ),
            transfer=self.transfer,
        )


def _proportions(own: LatencyPredictor, specs: Sequence[KernelSpec]) -> Array:
    """The share of each kernel in the time of all, (K,); none is 0."""
    known = np.array([own.knows(spec) for spec in specs])
    times = np.array(
        [own.kernel_ms(spec.key()) if one else 0.0 for one, spec in zip(known, specs, strict=True)]
    )
    work = np.array(
        [1.0 + macs_of(spec) + sum(map(elements, (*spec.inputs, *spec.outputs))) for spec in specs]
    )
    rate = times[known].sum() / work[known].sum() if known.any() else 1.0
    parts = np.where(known, times, work * rate)
    return np.asarray(parts / parts.sum())


def transferred_model(
    *,
    model_sha256: str,
    specs: Sequence[KernelSpec],
    precision: str,
    observations: Observations,
    neighbours: Neighbours,
    structure_on: Callable[[Donor], Sequence[KernelSpec] | None],
) -> TransferredModel | None:
    """A model as donors price it for a device with few networks; None where nothing can help.

    Args:
        model_sha256: the model.
        specs: the kernels that it becomes on the device.
        precision: the networks of the device that are compared with have the same.
        observations: what the device's table says for the threads that are asked about.
        neighbours: the donors.
        structure_on: asks for the kernels that the model becomes on a donor; None where it cannot be
            asked.
    """
    measured = [one for one in observations.with_role("fit") if one.network.precision == precision]
    if not is_few(measured):
        return None
    offers = []
    for donor in neighbours.donors:
        asked = donor.kernels_of(model_sha256, specs) or _counted(donor, structure_on(donor))
        if asked is not None:
            offers.append((donor, _made_by(donor, measured, observations), donor.make_up([asked])))
    found = fitted_few_shot(offers, measured)
    if found is None:
        return None
    few_shot, asked_of = found
    latency, interval = few_shot.predict(asked_of)
    return TransferredModel(
        float(latency[0]),
        (float(interval[0, 0]), float(interval[0, 1])),
        few_shot.summary(own_rmspe(observations, few_shot.networks)),
    )


def _counted(donor: Donor, specs: Sequence[KernelSpec] | None) -> Counter[str] | None:
    return None if specs is None else donor.kernels_of("", specs)


def _made_by(donor: Donor, measured: Sequence[MeasuredNetwork], observations: Observations) -> MakeUp:
    """The measured networks on a donor; infinite where it cannot tell."""
    kernels = [
        donor.kernels_of(
            one.network.model_sha256, [observations.specs[key] for key in one.kernels.elements()]
        )
        for one in measured
    ]
    made = donor.make_up([counts or Counter() for counts in kernels])
    known = np.array([counts is not None for counts in kernels])
    return MakeUp(np.where(known, made.latency_ms, np.inf), made.calls, made.class_ms)
