"""What the processor is and what it can do, in one vocabulary for x86 and ARM."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple

# Names of the kernel for what changes which kernels a runtime picks, and ours where they differ.
_FEATURES: Dict[str, str] = {
    "sse4_2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512f",
    "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16", "avx_vnni_int8": "avx_vnni_int8",
    "amx_tile": "amx_tile", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16",
    "asimd": "neon", "neon": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip

# Source: the MIDR part numbers of Arm's Technical Reference Manuals, as arch/arm64/include/asm/cputype.h
# of Linux lists them; implementer 0x41 is Arm.
_ARM_PARTS: Dict[int, str] = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1",
    0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2",
}  # fmt: skip


def text_of(path: str) -> str:
    """The text of a small file of the kernel; empty where it cannot be read."""
    try:
        return Path(path).read_bytes()[: 1 << 20].decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def output_of(*command: str) -> str:
    """What a command prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def describe_cpu() -> Tuple[str, Tuple[str, ...]]:
    """The processor's name and its features, sorted."""
    if platform.system() == "Darwin":
        return _describe_macos()
    fields = _cpuinfo()
    flags = " ".join(fields.get("flags", []) + fields.get("Features", [])).split()
    features = tuple(sorted({_FEATURES[flag] for flag in flags if flag in _FEATURES}))
    return _linux_name(fields), features


def fastest_cores(threads: int) -> Optional[Set[int]]:
    """The cores of the fastest kind, where there are several kinds and enough of them; else None."""
    return chosen_cores(_core_speeds(), threads)


def _core_speeds() -> Dict[int, int]:
    """A number for each core that this thread may have, larger for faster kinds; 0 where nobody tells."""
    speeds: Dict[int, int] = {}
    for core in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        folder = f"/sys/devices/system/cpu/cpu{core}"
        speed = text_of(f"{folder}/cpu_capacity") or text_of(f"{folder}/cpufreq/cpuinfo_max_freq")
        speeds[core] = int(speed) if speed.isdigit() else 0
    return speeds


def chosen_cores(speeds: Dict[int, int], threads: int) -> Optional[Set[int]]:
    """The fastest of the cores by speed, if there are slower ones and at least ``threads`` fast ones."""
    best = max(speeds.values(), default=0)
    # Cores of one kind may differ by a boost bin; kinds differ by far more.
    fast = {core for core, speed in speeds.items() if speed >= 0.9 * best}
    return fast if threads <= len(fast) < len(speeds) else None


@contextlib.contextmanager
def on_fastest_cores(threads: int) -> Iterator[None]:
    """Keeps this thread, and those that it starts inside the block, on cores of the fastest kind."""
    cores = fastest_cores(threads)
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def own_cores(threads: int) -> List[int]:
    """A core for each thread of a session, the caller's first; none where threads cannot be placed."""
    speeds = _core_speeds()
    if not 2 <= threads <= len(speeds) or not _may_place():
        return []
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    siblings = {core: text_of(folder.format(core)) or str(core) for core in speeds}
    return cores_apart(siblings, speeds)[:threads]


def cores_apart(siblings: Dict[int, str], speeds: Dict[int, int]) -> List[int]:
    """Logical cores, one of each physical core before any second one, fast ones first.

    Args:
        siblings: by core a text that all cores of one physical core share.
    """
    seen: Dict[str, int] = {}
    ranks = {}
    for core in sorted(siblings):
        ranks[core] = seen[siblings[core]] = seen.get(siblings[core], -1) + 1
    return sorted(siblings, key=lambda core: (ranks[core], -speeds[core], core))


def _may_place() -> bool:
    """Whether the system lets a thread choose its cores; some containers do not."""
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keeps this thread on one core, unless that has been taken away meanwhile."""
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _cpuinfo() -> Dict[str, List[str]]:
    """The distinct values of each field of /proc/cpuinfo, in order."""
    fields: Dict[str, List[str]] = {}
    for line in text_of("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        values = fields.setdefault(name.strip(), [])
        if value.strip() not in values:
            values.append(value.strip())
    return fields


def _linux_name(fields: Dict[str, List[str]]) -> str:
    parts = [_ARM_PARTS.get(int(part, 16), part) for part in fields.get("CPU part", []) if _is_hex(part)]
    board = text_of("/proc/device-tree/model")
    if parts:
        return " + ".join(parts) + (f" ({board})" if board else "")
    names = fields.get("model name") or fields.get("Model") or [board or platform.processor() or "unknown"]
    return names[0]


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"0x[0-9a-fA-F]+", text) is not None


def _describe_macos() -> Tuple[str, Tuple[str, ...]]:
    flags = output_of("sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features").lower()
    found = {_FEATURES[flag] for flag in flags.replace("avx1.0", "avx").split() if flag in _FEATURES}
    for name, feature in (("FEAT_DotProd", "dotprod"), ("FEAT_I8MM", "i8mm"), ("FEAT_BF16", "bf16")):
        if output_of("sysctl", "-n", f"hw.optional.arm.{name}") == "1":
            found |= {feature, "neon"}
    return output_of("sysctl", "-n", "machdep.cpu.brand_string") or "unknown", tuple(sorted(found))
