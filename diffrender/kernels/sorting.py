"""Sorting whole numbers: on the CPU several times faster than `torch.sort` for the thousands that a render has."""

import numpy as np
import torch
from torch import Tensor

MANY = 100_000  # torch sorts more by their digits, which is as fast


def sort_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers `keys` [N], none negative, in order, and where each of them was; the order is stable.

    >>> sort_keys(torch.tensor([3, 1, 3, 0]))
    (tensor([0, 1, 3, 3]), tensor([3, 1, 0, 2]))
    """
    count = len(keys)
    bits = count.bit_length()
    if keys.is_cuda or not 0 < count < MANY or int(keys.numpy().max()) >> (63 - bits):
        values, order = torch.sort(keys, stable=True)
        return values, order
    # Key and place in one number: numpy sorts these in vector instructions, and none of them are equal.
    packed = (keys.numpy() << bits) | np.arange(count)
    packed.sort()
    return torch.from_numpy(packed >> bits), torch.from_numpy(packed & ((1 << bits) - 1))
