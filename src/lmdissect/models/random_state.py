"""The global random generators, put back as they were: who measures or trains inside somebody's program must leave their draws alone."""

import random  # noqa: TID251 - only to leave its state as it was
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["random_states_kept"]


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the states of Python's, numpy's and torch's global generators (the present CUDA device's too) back after the block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
