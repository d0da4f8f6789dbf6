"""Sums, powers and arctangents that do not depend on how many threads share the work."""

import pytest
import torch
from threads import Unsteady
from torch import Tensor

from diffrender import steady

COUNTS = (0, 1, 1000, steady.UNDIVIDED, steady.UNDIVIDED + 1, 100_003, 2**20 + 17)
MANY = 100_003  # prime: no number of threads divides it


def numbers(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=dtype) + 0.1


@pytest.mark.parametrize("count", COUNTS)
def test_totals_and_means_are_those_of_all_values(count: int) -> None:
    values = numbers(count)
    # rounded at each of the levels: rows, sums of rows, and within them by torch, pairwise
    torch.testing.assert_close(steady.total(values).double(), values.double().sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(steady.mean(values).double(), values.double().mean(), rtol=1e-6, atol=0, equal_nan=True)
    assert int(steady.total(torch.ones(count, dtype=torch.int64))) == count


@pytest.mark.parametrize("count", COUNTS)
def test_powers_and_arctangents_are_those_of_torch(count: int) -> None:
    x, y = numbers(count, torch.float64), numbers(count, torch.float64).flip(0) - 0.5
    # two implementations of one function, each good to a rounding or two
    torch.testing.assert_close(steady.power(x, 2.4), x**2.4, rtol=1e-15, atol=0)
    torch.testing.assert_close(steady.atan2(y, x), torch.atan2(y, x), rtol=1e-15, atol=0)
    assert steady.spread(x.sum(), count).tolist() == [float(x.sum())] * count


def test_shapes_broadcast_and_stay() -> None:
    x = numbers(300 * 200).reshape(300, 200)
    assert steady.power(x, 2.4).shape == (300, 200)
    found = steady.atan2(x[:, :1], x)
    assert found.shape == (300, 200)
    torch.testing.assert_close(found[:, 7], torch.atan2(x[:, 0], x[:, 7]), rtol=3e-7, atol=0)  # two roundings
    assert steady.total(x.T).ndim == 0


def test_derivatives_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "UNDIVIDED", 5)  # so that a few numbers are many
    monkeypatch.setattr(steady, "ROW", 2)
    x, y = (numbers(26, torch.float64)[k : k + 13].requires_grad_() for k in (0, 13))
    functions = (
        steady.total,
        steady.mean,
        lambda x: steady.power(x, 2.4),
        lambda x: steady.spread(x.prod(), 7),
        lambda x: steady.atan2(x, y),
    )
    for function in functions:
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_products_and_their_derivatives_are_those_of_torch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "ROW", 2)
    rows, matrix = (numbers(3 * n, torch.float64).reshape(n, 3) for n in (count, 4))
    rows, matrix = rows.requires_grad_(), matrix.mT.requires_grad_()
    torch.testing.assert_close(steady.product(rows, matrix), rows @ matrix)
    assert torch.autograd.gradcheck(steady.product, (rows, matrix))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_operation_minds_the_number_of_threads(dtype: torch.dtype) -> None:
    x, y = (numbers(2 * MANY, dtype)[k : k + MANY].requires_grad_() for k in (0, MANY))
    with Unsteady() as unsteady:
        middle = steady.mean(steady.power(x, 2.4))
        loss = steady.total(steady.atan2(y, x) * (x - steady.spread(middle, MANY)))
        torch.autograd.grad(loss, (x, y))
        rows, matrix = (x.detach()[:100_000].reshape(-1, 5).requires_grad_() for x in (x, y[:35]))
        torch.autograd.grad(steady.total(steady.product(rows, matrix.mT)), (rows, matrix))
    assert unsteady.found == []
    assert unsteady.asked > 20


def test_operations_of_torch_do_mind() -> None:
    """Or nothing of this would be needed, and the tests would find nothing."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("without vectors of several numbers torch need not mind")
    x = numbers(MANY)
    with Unsteady() as unsteady:
        _ = x**2.4
        _ = torch.atan2(x, x.flip(0))
    assert [name.split()[0] for name in unsteady.found] == ["aten.pow.Tensor_Scalar", "aten.atan2.default"]
