"""The rate that a benchmark holds its work against: a plain matrix product, in the same process and at the same time."""

import statistics
import time

__all__ = ["CPU_SIZE", "GPU_SIZE", "matrix_flops_per_s"]

CPU_SIZE, GPU_SIZE = 2048, 8192
"""Rows of the square matrices."""

_NUM_TIMED = 7


def matrix_flops_per_s(device: str, dtype: str) -> float:
    """Operations a second of a square matrix product (2048^3 on a CPU, 8192^3 on a GPU), median of seven after one that is not timed."""
    import torch

    size = CPU_SIZE if device == "cpu" else GPU_SIZE
    left, right = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(1 + _NUM_TIMED):
        start_s = time.perf_counter()
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start_s)
    return 2 * size**3 / statistics.median(times[1:])
