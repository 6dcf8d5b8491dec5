"""Divides what a user gave into samples that calibrate, that screen and that select."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas.progress import warn
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.samples import spread, suspicious

CALIBRATION_SAMPLES = 300
CALIBRATION_SHARE = 0.6  # of the samples where there are few; the others select
SELECTION_SAMPLES = 2000
SCREENING_SAMPLES = 48


@dataclass(frozen=True)
class Parts:
    """Samples by purpose; calibration and selection share none, screening is some of the selection's."""

    calibration: Inputs
    selection: Inputs
    screening: Inputs
    warnings: tuple[str, ...]


def divide(
    samples: Inputs, unseen: Inputs | None, seed: int, expected: tuple[float, float] | None = None
) -> Parts:
    """Divides what the user gave: at most 300 samples calibrate, the others select.

    Args:
        samples: what the user gave, or the part of it that the model was trained on.
        unseen: the part that was held out in training, which selects; None where that is not known.
        expected: lowest and highest value of an image in training, where known.
    """
    warnings = suspicious(samples, expected)
    share = 1.0 if unseen is not None else CALIBRATION_SHARE
    count = min(CALIBRATION_SAMPLES, max(1, round(share * len(samples))))
    calibration, rest = spread(samples, count, seed)
    if unseen is not None:
        rest = unseen
    elif len(rest) == 0:
        warnings.append("one sample calibrates and selects: give more")
        rest = calibration
    selection = spread(rest, SELECTION_SAMPLES, seed + 1)[0]
    screening = spread(selection, SCREENING_SAMPLES, seed + 2)[0]
    for warning in warnings:
        warn(warning)
    return Parts(calibration, selection, screening, tuple(warnings))
