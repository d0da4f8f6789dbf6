"""Sorting whole numbers, picking and grouping.

On the CPU by numpy, several times faster than torch for a render's thousands; nor does it wake torch's threads.
"""

import numpy as np
import torch
from torch import Tensor

from ..derivatives import is_plain_autograd

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
    packed = (keys.numpy().astype(np.int64, copy=False) << bits) | np.arange(count)
    packed.sort()
    return torch.from_numpy(packed >> bits).to(keys.dtype), torch.from_numpy(packed & ((1 << bits) - 1))


def where_true(mask: Tensor) -> Tensor:
    """Indices [K] of what is true in `mask` [N].

    >>> where_true(torch.tensor([True, False, True]))
    tensor([0, 2])
    """
    if mask.is_cpu and is_plain_autograd():
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(-1)


def slots_in_groups(group: Tensor, num_groups: int) -> tuple[Tensor, int]:
    """The slot [N] of each thing if every group had as many of them as the largest has, and how many that is.

    Args:
        group: [N] ascending.

    >>> slots_in_groups(torch.tensor([0, 0, 2]), 3)
    (tensor([0, 1, 4]), 2)
    """
    count = torch.bincount(group, minlength=num_groups)
    first = count.cumsum(0) - count
    most = int(count.max())
    return group * most + torch.arange(len(group), device=group.device) - first.index_select(0, group), most
