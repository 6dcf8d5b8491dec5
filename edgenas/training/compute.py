"""Where training runs: the torch device, the threads and the allocator."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from edgenas.errors import UsageError

TorchDevice = Literal["auto", "cpu", "cuda"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def torch_device(name: str = "auto") -> torch.device:
    """The device to train on: ``auto`` is the GPU where torch sees one, else the CPU.

    Raises:
        UsageError: there is no such device, or no GPU that torch can use.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"'{name}' is not a torch device; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "training was to run on a GPU, torch sees none", hint="--torch-device auto takes what there is"
        )
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def prepare(device: torch.device, threads: int | None = None) -> None:
    """Sets the threads of torch (all cores when None), repeatable kernels and, on the CPU, the allocator."""
    torch.set_num_threads(threads or len(usable_cores()))
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    else:
        _keep_freed_memory()


def mixed_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Forward passes inside run convolutions in bfloat16 where the processor multiplies it natively.

    A training step of a small convolutional network takes two thirds of the time then; weights,
    their updates and batch statistics stay in float32. Elsewhere nothing changes.

    Source: Kalamkar et al., A study of bfloat16 for deep learning training (2019).
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=_multiplies_bfloat16(device))


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    tell = getattr(torch.cpu, "get_capabilities", dict)  # older releases of torch do not
    found: dict[str, Any] = tell()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def usable_cores() -> set[int]:
    """Numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors for the next step.

    By default every activation above 32 MB is mapped anew and cleared by the kernel, which takes up
    to half of a training step on a CPU.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
