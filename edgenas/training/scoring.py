"""Scores one network of a supernet."""

from __future__ import annotations

from edgenas.search_spaces.space import Genomes
from edgenas.training.examples import Examples
from edgenas.training.loop import accuracy
from edgenas.training.supernet import Supernet


def subnet_accuracy(supernet: Supernet, genome: Genomes, data: Examples) -> float:
    """Validation accuracy of one network: recalibrated, folded, int8 layers simulated.

    Leaves the network active and calibrated, and the supernet in evaluation mode.
    """
    supernet.eval()
    supernet.set_active(genome)
    _, height, width = supernet.network.input_shape
    supernet.calibrate(data.calibration_batches(height, width))
    return accuracy(supernet, data, height, width)
