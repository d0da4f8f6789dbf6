"""Kernels that are called without `wp.launch` do what they do with it."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warp as wp
from torch import Tensor

from diffrender.kernels import launch
from diffrender.kernels.arrays import array, vectors


@wp.kernel(module="unique", enable_backward=False)
def every_kind_of_argument(
    small: int,
    half: float,
    large: wp.int64,
    fine: wp.float64,
    vector: wp.types.vector(3, wp.float32),  # type: ignore[valid-type]
    flags: wp.array(dtype=wp.uint8),  # type: ignore[valid-type]
    points: wp.array2d(dtype=wp.types.vector(2, wp.float64)),  # type: ignore[valid-type]
    table: wp.array2d(dtype=wp.int64),  # type: ignore[valid-type]
    strided: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
    first: int,
    sums: wp.array(dtype=wp.float64),  # type: ignore[valid-type]
):
    i = first + wp.tid()
    numbers = wp.float64(small) + wp.float64(half) + wp.float64(large) + fine + wp.float64(vector[2])
    place = points[i, 1][0] + wp.float64(10.0) * points[i, 0][1]
    sums[i] = numbers + wp.float64(flags[i]) + place + wp.float64(table[i, 1]) + wp.float64(strided[i])


def run() -> Tensor:
    sums = torch.full((5,), torch.nan, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    arguments = [
        -3,
        0.25,
        2**40,
        0.1,
        wp.types.vector(3, wp.float32)(1.0, 2.0, 3.0),
        array(torch.arange(5, dtype=torch.uint8)),
        vectors(torch.rand(5, 2, 2, dtype=torch.float64, generator=random)),
        array(torch.arange(15).reshape(5, 3)),
        array(torch.rand(5, 2, generator=random)[:, 1]),
        1,
        array(sums),
    ]
    wp.init()
    launch.launch(every_kind_of_argument, 4, arguments, sums.device)
    return sums


def test_a_direct_call_does_what_warp_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if not wp.__version__.startswith(launch.KNOWN_WARP):
        pytest.skip(
            f"Warp {wp.__version__} goes by wp.launch, more slowly: see whether `invoke` in its context.py calls "
            "functions as `launch` does, and tell KNOWN_WARP"
        )
    direct = run()
    monkeypatch.setattr(launch, "KNOWN_WARP", "none")
    torch.testing.assert_close(run(), direct, rtol=0, atol=0, equal_nan=True)


def test_arguments_arrive_where_they_belong() -> None:
    random = torch.Generator().manual_seed(0)
    points = torch.rand(5, 2, 2, dtype=torch.float64, generator=random)
    strided = torch.rand(5, 2, generator=random)[:, 1].double()
    counted = torch.arange(5) + torch.arange(15).reshape(5, 3)[:, 1]
    expected = -3 + 0.25 + 2**40 + 0.1 + 3.0 + points[:, 1, 0] + 10 * points[:, 0, 1] + counted + strided
    torch.testing.assert_close(run()[1:], expected[1:], rtol=1e-15, atol=0)
    assert bool(run()[0].isnan())


def test_nothing_is_run_no_times() -> None:
    launch.launch(every_kind_of_argument, 0, [], torch.device("cpu"))


def test_arguments_that_are_missing_are_no_null_pointers() -> None:
    wp.init()
    with pytest.raises((AssertionError, RuntimeError)):
        launch.launch(every_kind_of_argument, 1, [1, 0.5], torch.device("cpu"))


def test_kernels_are_made_and_loaded_for_one_thread_at_a_time() -> None:
    """Warp itself does not see to it: threads that all were the first got each other's half-made kernels."""
    at_work, most = [], []

    def busy(*_: object) -> Any:
        at_work.append(1)
        time.sleep(0.01)
        most.append(len(at_work))
        at_work.pop()
        return SimpleNamespace(kernel=SimpleNamespace(module=SimpleNamespace(load=busy)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: launch.load_kernel(busy, "kernel", torch.zeros(1), number), range(4)))
    launch._loaded.cache_clear()
    assert most == 8 * [1]
