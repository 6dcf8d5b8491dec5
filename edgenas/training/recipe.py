"""How networks are trained: one recipe for supernets, winners and the networks they compete with."""

from __future__ import annotations

import torch
from torch import nn

from edgenas.records import Record


class Recipe(Record):
    """Stochastic gradient descent with Nesterov momentum on a schedule that ends at zero.

    ``warmup_share`` of the budget the learning rate rises linearly, the rest it falls linearly.
    ``weight_decay`` holds for the weights of convolutions and classifiers only. ``random_subnets``
    are trained in every supernet step beside the largest and the smallest; where a pool is given,
    ``pool_networks`` of it are instead. ``distillation`` is the teacher's share of the loss where
    there is a teacher.

    Source: He et al., Bag of tricks (2019), for the decay; Yu et al., BigNAS (2020), for the
    sandwich; Smith and Topin, Super-convergence (2018), for the schedule.
    """

    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup_share: float = 0.15
    gradient_norm: float = 5.0
    random_subnets: int = 2
    pool_networks: int = 1
    distillation: float = 0.5

    def learning_rate_at(self, fraction: float) -> float:
        """Learning rate after ``fraction`` (0..1) of the budget; 0 at its end."""
        if fraction < self.warmup_share:
            return self.learning_rate * max(fraction / self.warmup_share, 0.01)
        return self.learning_rate * (1.0 - fraction) / (1.0 - self.warmup_share)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer for all parameters of ``module``."""
        named = list(module.named_parameters())
        decayed = [value for name, value in named if _is_decayed(name, value)]
        free = [value for name, value in named if not _is_decayed(name, value)]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, nesterov=True)


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Weights are; biases, batch norms and the kernel transforms (matrices near identity) are not."""
    return parameter.ndim > 1 and ".transforms." not in name
