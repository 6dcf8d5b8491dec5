"""Trains weight-sharing supernets and single networks, and scores the networks of a space."""

import os

# libgomp reads this once, when torch loads it. Waiting threads that spin make a training step up to
# ten times slower as soon as another process wants the same cores; sleeping costs nothing measurable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from edgenas.training.accuracy import SupernetAccuracy
from edgenas.training.augmentation import Augmentation, default_augmentation
from edgenas.training.budget import Budget
from edgenas.training.compute import TorchDevice, prepare, torch_device
from edgenas.training.data import TrainingData
from edgenas.training.networks import TrainedNetwork, train_network
from edgenas.training.recipe import Recipe
from edgenas.training.starts import train_from_better_start
from edgenas.training.supernet import Supernet
from edgenas.training.supernets import load_supernet, train_supernet

__all__ = [
    "Augmentation",
    "Budget",
    "Recipe",
    "Supernet",
    "SupernetAccuracy",
    "TorchDevice",
    "TrainedNetwork",
    "TrainingData",
    "default_augmentation",
    "load_supernet",
    "prepare",
    "torch_device",
    "train_from_better_start",
    "train_network",
    "train_supernet",
]
