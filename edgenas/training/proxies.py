"""Zero-cost proxies: ranks of untrained networks from one or two passes, without any data.

Sources: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic
flow, 2020; Mellor et al., Neural Architecture Search without Training, 2021 (NASWOT); Lin et al.,
Zen-NAS, 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from edgenas.search_spaces import Network
from edgenas.search_spaces.torch_builder import NetworkModule, build_torch

BATCH = 16
PERTURBATION = 0.01

Proxy = Callable[[NetworkModule, Tensor], float]


def proxy_score(name: str, network: Network, seed: int) -> float:
    """The score of one network with weights drawn from ``seed`` and its own shape; higher is better.

    Args:
        name: one of ``PROXIES``.
        network: any network of a space.
        seed: of weights and inputs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed ^ int(network.fingerprint(), 16) % 2**31)
        module = build_torch(network)
        return PROXIES[name](module, torch.randn(BATCH, *network.input_shape))


def synflow(module: NetworkModule, images: Tensor) -> float:
    """log of the sum over all weights of |weight x gradient| of a net of absolute weights fed with ones."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    module(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
    flow = sum((p * p.grad).abs().sum().item() for p in module.parameters() if p.grad is not None)
    return float(np.log(max(flow, 1e-300)))


def naswot(module: NetworkModule, images: Tensor) -> float:
    """log determinant of how alike the signs before the activations are for different inputs."""
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def add(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        signs = (output.flatten(1) > 0).double()
        kernel.add_((signs @ signs.T + (1 - signs) @ (1 - signs).T) / signs.shape[1])

    hooks = [one.register_forward_hook(add) for one in _norms(module)]
    with torch.no_grad():
        module.train()(images)
    for hook in hooks:
        hook.remove()
    return float(torch.linalg.slogdet(kernel + 1e-9 * torch.eye(len(images), dtype=torch.float64))[1])


def zen(module: NetworkModule, images: Tensor) -> float:
    """log of how far the features move with the input, and of the scales that batch norms divide by."""
    module.train()
    scales: list[float] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        scales.append(float(inputs[0].var(dim=(0, 2, 3), unbiased=False).mean().sqrt()))

    with torch.no_grad():
        hooks = [one.register_forward_pre_hook(note) for one in _norms(module)]
        features = _features(module, images)
        for hook in hooks:
            hook.remove()
        moved = _features(module, images + PERTURBATION * torch.randn_like(images))
    distance = float((features - moved).abs().mean())
    return float(np.log(max(distance, 1e-30)) + np.log(np.maximum(scales, 1e-30)).sum())


def _features(module: NetworkModule, images: Tensor) -> Tensor:
    """What the head reads."""
    for layer in module.network.layers[:-1]:
        images = module.get_submodule(layer.name)(images)
    return images


def _norms(module: nn.Module) -> list[nn.Module]:
    return [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]


PROXIES: dict[str, Proxy] = {"synflow": synflow, "naswot": naswot, "zen": zen}
