"""Checks of arguments find what is wrong wherever it is."""

import math

import pytest
import torch
from torch import Tensor

from diffrender.checks import check_finite, extremes


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 7, 100_003])  # the last is divided among threads, and leaves a rest in each part
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_single_value_that_is_not_finite_is_found_at_every_place(dtype: torch.dtype, count: int, bad: float) -> None:
    values = torch.zeros(count, dtype=dtype)
    check_finite("values", values)
    for place in {0, count // 3, count // 2, 2 * count // 3, count - 1}:
        spoilt = values.index_fill(0, torch.tensor([place]), bad)
        with pytest.raises(ValueError, match=rf"values holds 1 values that are NaN .* at index \({place},\)"):
            check_finite("values", spoilt)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("count", [1, 100_000])
def test_extremes_of_few_and_many_values(count: int, dtype: torch.dtype) -> None:
    values = torch.arange(count).to(dtype)
    assert extremes(values) == (0, float(values[-1]))
    if dtype.is_floating_point:
        values[count // 2] = torch.nan
        assert all(map(math.isnan, extremes(values)))


def test_extremes_where_tensors_have_no_memory_of_their_own() -> None:
    def shifted(values: Tensor) -> Tensor:
        assert extremes(values) == (0, 99_999)
        return values + 1

    values = torch.arange(100_000.0)
    torch.testing.assert_close(torch.func.vjp(shifted, values)[0], values + 1)
