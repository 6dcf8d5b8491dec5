"""Random crops, flips and cut-outs of image tensors, repeatable from a numpy generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgenas.records import Record


class Augmentation(Record):
    """What happens to a training image.

    ``crop_share`` is the padding on each side before a random crop, as a share of the size;
    ``cutout_share`` the side of a square that is blanked, 0 for none. ``mixup_alpha`` is the Beta
    parameter with which pairs of images are blended, 0 for never.

    Source: DeVries and Taylor, Cutout (2017); Zhang et al., mixup (2018).
    """

    crop_share: float = 0.125
    flip: bool = True
    cutout_share: float = 0.0
    mixup_alpha: float = 0.0


def default_augmentation(class_names: Sequence[str]) -> Augmentation:
    """Crops always; flips unless the classes are single characters, which a mirror changes."""
    characters = bool(class_names) and all(len(name) == 1 for name in class_names)
    return Augmentation(flip=not characters, crop_share=0.0625 if characters else 0.125)


def augment(
    images: torch.Tensor, augmentation: Augmentation, blank: torch.Tensor, generator: np.random.Generator
) -> torch.Tensor:
    """Images uint8 (N, C, H, W), each cropped, flipped and cut at random; same type and shape.

    Args:
        blank: uint8 (C,), the colour of padding and cut-outs.
    """
    images = _crop(images, augmentation.crop_share, blank, generator)
    if augmentation.flip:
        flipped = _on(generator.random(len(images)) < 0.5, images)
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    if augmentation.cutout_share:
        images = _cut(images, augmentation.cutout_share, blank, generator)
    return images


def mixup_pairs(
    count: int, alpha: float, generator: np.random.Generator
) -> tuple[torch.Tensor, float] | None:
    """Partners (N,) and the weight of the first of each pair, at least a half; None without mixup."""
    if not alpha:
        return None
    weight = float(generator.beta(alpha, alpha))
    return torch.from_numpy(generator.permutation(count)), max(weight, 1.0 - weight)


def _crop(
    images: torch.Tensor, share: float, blank: torch.Tensor, generator: np.random.Generator
) -> torch.Tensor:
    """Pads with ``blank`` and cuts the old size out at a random place, by one gather."""
    count, channels, height, width = images.shape
    pad = round(share * min(height, width))
    if not pad:
        return images
    padded = blank.view(1, -1, 1, 1).expand(count, channels, height + 2 * pad, width + 2 * pad).contiguous()
    padded[:, :, pad : pad + height, pad : pad + width] = images
    rows = _on(generator.integers(0, 2 * pad + 1, count), images)[:, None] + _range(height, images)
    columns = _on(generator.integers(0, 2 * pad + 1, count), images)[:, None] + _range(width, images)
    which = _range(count, images)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut(
    images: torch.Tensor, share: float, blank: torch.Tensor, generator: np.random.Generator
) -> torch.Tensor:
    count, _, height, width = images.shape
    half = share * min(height, width) / 2
    inside = [
        (_range(size, images) - _on(generator.uniform(0, size, count), images)[:, None]).abs() < half
        for size in (height, width)
    ]
    mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(mask, blank.view(1, -1, 1, 1), images)


def _on(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)


def _range(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, device=like.device)


def resized(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Images uint8 (N, C, H, W) at another size, bicubic with antialiasing as the shipped model gets them."""
    if images.shape[2:] == (height, width):
        return images
    values = F.interpolate(
        images.float(), size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return values.round_().clamp_(0, 255).to(torch.uint8)
