"""`sort_keys` is a stable sort, whichever way it takes."""

import pytest
import torch

from diffrender.kernels.sorting import MANY, sort_keys


@pytest.mark.parametrize("count", [0, 1, 2, 1000, MANY - 1, MANY])
@pytest.mark.parametrize("most", [1, 50, 2**33, 2**62])  # the last leaves no room beside it
def test_keys_are_sorted_and_the_order_is_stable(count: int, most: int) -> None:
    keys = torch.randint(0, most, (count,), generator=torch.Generator().manual_seed(0))
    values, order = sort_keys(keys)
    expected = torch.sort(keys, stable=True)
    assert torch.equal(values, expected.values)
    assert torch.equal(order, expected.indices)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_keys_of_few_bits_are_sorted_by_all_of_them(dtype: torch.dtype) -> None:
    keys = torch.randint(0, torch.iinfo(dtype).max, (1000,), generator=torch.Generator().manual_seed(0)).to(dtype)
    values, order = sort_keys(keys)
    expected = torch.sort(keys, stable=True)
    assert values.dtype == dtype
    assert torch.equal(values, expected.values)
    assert torch.equal(order, expected.indices)


def test_the_largest_number_has_its_place() -> None:
    keys = torch.tensor([2**63 - 1, 0, 2**63 - 1])
    assert sort_keys(keys)[1].tolist() == [1, 0, 2]
