"""How much each segment's rounding disturbs the outputs, measured one segment at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgenas.progress import track
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.reference_run import Arrays, run_batches
from edgenas.quantization.schemes import QuantizationScheme, with_float_layers
from edgenas.quantization.segments import Segment

SAMPLES = 24


def squared_errors(
    quantizer: Quantizer, scheme: QuantizationScheme, segments: Sequence[Segment], samples: Inputs
) -> list[float]:
    """Squared relative output error with one segment alone on integers, for each segment.

    Runs on the host, whose kernels may differ from the device's: it only ranks; what is proposed is
    measured on the device.
    """
    few = samples.subset(np.arange(min(SAMPLES, len(samples))))
    outputs = [value.name for value in quantizer.float_model.graph.output]
    reference = list(run_batches(quantizer.float_model, outputs, few))
    found = []
    with track("Measuring sensitivity", total=len(segments)) as task:
        for segment in segments:
            others = [name for other in segments if other is not segment for name in other.nodes]
            model = quantizer.quantize(with_float_layers(scheme, others, "sensitivity"))
            found.append(_relative(reference, list(run_batches(model, outputs, few))))
            task.advance()
    return found


def _relative(reference: Sequence[Arrays], outputs: Sequence[Arrays]) -> float:
    """Mean over the outputs of the squared relative distance."""
    ratios = []
    for name in reference[0]:
        pairs = [
            (a[name].astype(np.float64), b[name].astype(np.float64))
            for a, b in zip(reference, outputs, strict=True)
            if a[name].dtype.kind == "f"
        ]
        if pairs:
            norm = sum(float(np.sum(a**2)) for a, _ in pairs)
            ratios.append(sum(float(np.sum((a - b) ** 2)) for a, b in pairs) / max(norm, 1e-30))
    return float(np.mean(ratios)) if ratios else 0.0
