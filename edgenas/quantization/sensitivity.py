"""How much each segment's rounding disturbs the outputs, measured one segment at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgenas.progress import track
from edgenas.quantization.device_scoring import Scorer
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.packing import write_model
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.schemes import QuantizationScheme, with_float_layers
from edgenas.quantization.segments import Segment


def squared_errors(
    quantizer: Quantizer, scorer: Scorer, scheme: QuantizationScheme, segments: Sequence[Segment], *,
    samples: Inputs, folder: Path,
) -> list[float]:  # fmt: skip
    """Squared relative output error with one segment alone on integers, for each segment.

    A segment that the device cannot run alone on integers counts as if it lost the outputs.

    Args:
        folder: where each model lies while the device runs it.
    """
    found = []
    with track("Measuring sensitivity", total=len(segments)) as task:
        for segment in segments:
            others = [name for other in segments if other is not segment for name in other.nodes]
            path = folder / "sensitivity.onnx"
            write_model(quantizer.quantize(with_float_layers(scheme, others, "sensitivity")), path)
            answer = scorer.score(path, samples, name=f"sensitivity of {segment.nodes[0]}")
            found.append(1.0 if answer.score is None else answer.score.squared_error)
            task.advance()
    return found
