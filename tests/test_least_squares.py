"""Least squares against SciPy, certified values, closed forms, and what batches and blocks must leave alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from diffrender.least_squares import Cauchy, Huber, Named, least_squares


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rosenbrock(p: Named) -> Tensor:
    x, y = p["x"].unbind(-1)
    return (
        torch.stack((10 * (y - x * x), 1 - x), -1)[:, None] if x.ndim else torch.stack((10 * (y - x * x), 1 - x))[None]
    )


def helical_valley(p: Named) -> Tensor:
    x, y, z = p["x"].unbind(-1)
    turn = torch.atan2(y, x) / (2 * math.pi)
    return torch.stack((10 * (z - 10 * turn), 10 * ((x * x + y * y).sqrt() - 1), z))[:, None]


def powell_singular(p: Named) -> Tensor:
    a, b, c, d = p["x"].unbind(-1)
    return torch.stack((a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2))[:, None]


def beale(p: Named) -> Tensor:
    x, y = p["x"].unbind(-1)
    return torch.stack([c - x * (1 - y**i) for i, c in enumerate((1.5, 2.25, 2.625), start=1)])[:, None]


def box(p: Named) -> Tensor:
    t = 0.1 * torch.arange(1, 11, dtype=torch.float64)
    a, b, c = p["x"].unbind(-1)
    return (torch.exp(-a * t) - torch.exp(-b * t) - c * (torch.exp(-t) - torch.exp(-10 * t)))[:, None]


def kowalik_osborne(p: Named) -> Tensor:
    y = vector(0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
    u = vector(4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)
    a, b, c, d = p["x"].unbind(-1)
    return (y - a * (u * u + u * b) / (u * u + u * c + d))[:, None]


# Moré, Garbow & Hillstrom 1981, "Testing unconstrained optimization software": their starts.
CLASSICS: list[tuple[Callable[[Named], Tensor], tuple[float, ...]]] = [
    (rosenbrock, (-1.2, 1.0)),
    (helical_valley, (-1.0, 0.0, 0.0)),
    (powell_singular, (3.0, -1.0, 0.0, 1.0)),
    (beale, (1.0, 1.0)),
    (box, (0.0, 10.0, 20.0)),
    (kowalik_osborne, (0.25, 0.39, 0.415, 0.39)),
]


@pytest.mark.parametrize(("function", "start"), CLASSICS, ids=lambda v: getattr(v, "__name__", ""))
def test_classic_problems_end_where_scipy_ends(function: Callable[[Named], Tensor], start: tuple[float, ...]) -> None:
    found = least_squares(function, {"x": vector(*start)})
    peer = scipy.optimize.least_squares(
        lambda x: function({"x": torch.from_numpy(x)}).numpy().ravel(), start, method="lm", xtol=1e-14, ftol=1e-14
    )
    assert found.converged
    assert found.steps <= 60  # SciPy's own needs 10 to 60 of them on these
    assert float(found.cost) <= peer.cost * (1 + 1e-9) + 1e-20
    # Where the cost is flat (the singular function's minimum is of fourth order) the place is known less well.
    assert np.abs(found.parameters["x"].numpy() - peer.x).max() < (1e-3 if function is powell_singular else 1e-6)


def test_misra1a_has_its_certified_values_and_standard_deviations() -> None:
    """NIST StRD, nonlinear regression, data set Misra1a, first start."""
    x = vector(77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0)
    y = vector(10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78)
    found = least_squares(
        lambda p: (p["b1"] * (1 - torch.exp(-p["b2"] * x)) - y)[:, None],
        {"b1": torch.tensor(500.0, dtype=torch.float64), "b2": torch.tensor(1e-4, dtype=torch.float64)},
    )
    assert float(found.parameters["b1"]) == pytest.approx(2.3894212918e02, rel=1e-9)
    assert float(found.parameters["b2"]) == pytest.approx(5.5015643181e-04, rel=1e-9)
    assert float(found.deviations["b1"]) == pytest.approx(2.7070075241e00, rel=1e-6)
    assert float(found.deviations["b2"]) == pytest.approx(7.2668688436e-06, rel=1e-6)
    assert 2 * float(found.cost) == pytest.approx(1.2455138894e-01, rel=1e-9)


@pytest.mark.parametrize(("kernel", "name"), [(Huber(0.3), "huber"), (Cauchy(0.3), "cauchy")])
def test_kernels_end_where_scipy_s_losses_end(kernel: Huber | Cauchy, name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.linspace(0, 4, 40, dtype=torch.float64)
    y = 2 * torch.exp(-0.7 * x) + 0.1 * torch.randn(40, generator=generator, dtype=torch.float64)
    y[::10] += 3.0

    def residuals(p: Named) -> Tensor:
        return (p["x"][0] * torch.exp(-p["x"][1] * x) - y)[:, None]

    found = least_squares(residuals, {"x": vector(1.5, 0.5)}, kernel=kernel)
    peer = scipy.optimize.least_squares(
        lambda v: residuals({"x": torch.from_numpy(v)}).numpy().ravel(),
        (1.5, 0.5), loss=name, f_scale=0.3, xtol=1e-14, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip
    assert float(found.cost) == pytest.approx(peer.cost, rel=1e-8)
    assert np.abs(found.parameters["x"].numpy() - peer.x).max() < 1e-5
    assert float(found.weights[::10].max()) < 0.3 < float(found.weights.mean())  # the outliers count for less


def views(seed: int, noise: float, num_views: int = 5, num_points: int = 12) -> tuple[Named, Tensor, Tensor]:
    """A toy with the structure of a calibration: a shared scale and bend, a shift and slope for each view."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(-1, 1, num_points, dtype=torch.float64)
    truth = {
        "bend": vector(1.5, -0.4),
        "shift": torch.randn(num_views, 2, generator=generator, dtype=torch.float64),
    }
    y = bent(truth, x)
    return truth, x, y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)


def bent(p: Named, x: Tensor) -> Tensor:
    """[*B, V, N, 2]"""
    a, b = (p["bend"][..., i, None, None] for i in (0, 1))
    s, t = p["shift"][..., 0, None], p["shift"][..., 1, None]
    return torch.stack((torch.sin(a * (x + s)) + t, torch.exp(b * (x + s)) - t), dim=-1)


def nearby(truth: Named, seed: int = 1) -> Named:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in truth.items()
    }


def test_blocks_give_what_the_dense_problem_gives() -> None:
    truth, x, y = views(0, noise=0.05)
    start = nearby(truth)
    arrow = least_squares(lambda p: bent(p, x) - y, start, per_block=["shift"])
    dense = least_squares(lambda p: (bent(p, x) - y).flatten(0, 1), start)
    assert arrow.residuals.shape == (5, 12, 2)
    assert (float(arrow.cost), arrow.steps) == (pytest.approx(float(dense.cost), rel=1e-12), dense.steps)
    for name in start:
        assert torch.allclose(arrow.parameters[name], dense.parameters[name], rtol=0, atol=1e-9)
        assert torch.allclose(arrow.deviations[name], dense.deviations[name], rtol=1e-7, atol=0)
    assert torch.allclose(arrow.covariance, dense.covariance[:2, :2], rtol=1e-7, atol=1e-15)


def test_exact_data_give_the_truth_back() -> None:
    truth, x, y = views(1, noise=0.0)
    found = least_squares(lambda p: bent(p, x) - y, nearby(truth), per_block=["shift"])
    for name in truth:
        assert (found.parameters[name] - truth[name]).abs().max() < 1e-9


def test_batch_of_problems_is_each_problem_alone() -> None:
    cases = [views(seed, noise=0.02 * seed) for seed in range(4)]
    x, y = cases[0][1], torch.stack([case[2] for case in cases])
    starts = [nearby(case[0], seed=7) for case in cases]
    start = {name: torch.stack([s[name] for s in starts]) for name in starts[0]}
    together = least_squares(lambda p: bent(p, x) - y, start, per_block=["shift"], batched=True)
    for b, one in enumerate(starts):
        alone = least_squares(lambda p, b=b: bent(p, x) - y[b], one, per_block=["shift"])  # type: ignore[misc]
        assert together.reasons[b] == alone.reasons[0]
        for name in one:
            assert torch.allclose(together.parameters[name][b], alone.parameters[name], rtol=0, atol=1e-10)
            assert torch.allclose(together.deviations[name][b], alone.deviations[name], rtol=1e-6, atol=1e-12)


def test_absent_observations_do_not_count_whatever_they_hold() -> None:
    truth, x, y = views(2, noise=0.05)
    observed = torch.ones(5, 12, dtype=torch.bool)
    observed[1, 3:7] = observed[4, 0] = False
    start = nearby(truth)
    spoiled = torch.where(observed[..., None], y, math.nan)
    found = least_squares(lambda p: bent(p, x) - spoiled, start, per_block=["shift"], observed=observed)
    kept = least_squares(lambda p: (bent(p, x) - y)[observed], start)
    assert float(found.cost) == pytest.approx(float(kept.cost), rel=1e-10)
    for name in start:
        assert torch.allclose(found.parameters[name], kept.parameters[name], rtol=0, atol=1e-8)
        assert torch.allclose(found.deviations[name], kept.deviations[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", [None, Huber(0.03)], ids=["plain", "huber"])
def test_deviations_are_those_of_repeated_experiments(kernel: Huber | None) -> None:
    """400 noisy copies, solved at once: their spread, known to 1 / sqrt(800) = 3.5 %, is what one of them predicts."""
    copies, noise = 400, 0.02
    truth, x, _ = views(3, noise=0.0)
    clean = bent(truth, x)
    generator = torch.Generator().manual_seed(5)
    y = clean + noise * torch.randn((copies, *clean.shape), generator=generator, dtype=torch.float64)
    start = {name: value.expand(copies, *value.shape) for name, value in truth.items()}
    found = least_squares(lambda p: bent(p, x) - y, start, per_block=["shift"], batched=True, kernel=kernel)
    assert found.converged
    for name in truth:
        ratio = found.parameters[name].std(0) / found.deviations[name].square().mean(0).sqrt()
        assert ratio.sub(1).abs().max() < 0.16  # 4.5 sigma for the worst of 12
    spread = torch.cov(found.parameters["bend"].T)
    assert (found.covariance.mean(0) - spread).abs().max() < 0.2 * spread.abs().max()


def test_what_is_not_determined_is_named_and_has_no_finite_deviation() -> None:
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    y = torch.stack((x, 2 * x, 3 * x))[..., None] + 0.1 * torch.sin(9 * x)[:, None]

    def residuals(p: Named) -> Tensor:  # the shared offset and those of all blocks can be exchanged
        return (p["slope"][:, None] * x + p["offset"][:, None] + p["common"])[..., None] - y

    start = {"common": vector(0.0), "slope": torch.zeros(3, dtype=torch.float64), "offset": vector(1, 2, 3)}
    found = least_squares(residuals, start, per_block=["slope", "offset"])
    (sentence,) = found.undetermined
    assert "do not determine common, offset of block 0, offset of block 1" in sentence
    assert "slope" not in sentence
    assert bool(torch.isinf(found.deviations["offset"]).all())
    assert bool(torch.isinf(found.covariance).all())
    assert bool(torch.isfinite(found.deviations["slope"]).all())
    good = least_squares(
        lambda p: residuals({**p, "common": vector(0.0)}),
        {name: start[name] for name in ("slope", "offset")},
        per_block=["slope", "offset"],
    )
    assert good.undetermined == ()
    assert float(found.cost) == pytest.approx(float(good.cost), rel=1e-9)


def test_a_parameter_without_influence_is_named() -> None:
    found = least_squares(lambda p: (p["a"] + 0 * p["b"] - vector(1, 2, 4))[:, None], {"a": vector(0), "b": vector(3)})
    assert "do not determine b" in found.undetermined[0]
    assert float(found.parameters["b"]) == 3
    assert float(found.parameters["a"]) == pytest.approx(7 / 3)
    assert float(found.deviations["a"]) == pytest.approx(math.sqrt(7 / 9))  # variance 7 / 3 of the mean of three


def test_reasons_say_why_it_ended() -> None:
    function, start = CLASSICS[0]
    assert least_squares(function, {"x": vector(*start)}, max_steps=3).reasons == ("max_steps",)
    assert not least_squares(function, {"x": vector(*start)}, max_steps=3).converged
    assert least_squares(lambda p: p["x"][:, None], {"x": vector(0)}).reasons == ("gradient",)  # nothing is left
    assert least_squares(lambda p: (p["x"] - vector(1, 2))[:, None], {"x": vector(0)}).converged


def test_float32_reaches_float32_s_accuracy() -> None:
    truth, x, y = views(4, noise=0.0)
    start = {name: value.float() for name, value in nearby(truth).items()}
    found = least_squares(lambda p: bent(p, x.float()) - y.float(), start, per_block=["shift"])
    for name in truth:
        assert found.parameters[name].dtype == torch.float32
        assert (found.parameters[name] - truth[name]).abs().max() < 1e-4  # the exchange of shift and bend is soft


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_block": ["nothing"]}, "per_block names"),
        ({"start": {}}, "start must name"),
        ({"start": {"x": torch.zeros(0, 1)}, "batched": True}, "batch of none"),
        ({"max_steps": -1}, "max_steps must be"),
        ({"start": {"x": torch.tensor([math.nan])}}, "NaN or infinite"),
        ({"start": {"x": vector(1), "y": torch.ones(1)}}, "one dtype"),
        ({"start": {"x": vector(1, 2), "y": vector(1)}, "per_block": ["x", "y"]}, "number of blocks"),
        ({"residuals": lambda p: p["x"]}, r"residuals must return \[N, D\]"),
        ({"residuals": lambda p: p["x"][:, None] / 0}, "NaN or infinite"),
        ({"residuals": lambda p: p["x"].detach()[:, None]}, "must depend on the parameters"),
        ({"start": {"x": vector(1, 2)}, "residuals": lambda p: p["x"][:1, None]}, "2 parameters need"),
        ({"observed": torch.ones(3)}, "observed must be a mask"),
        ({"observed": [True]}, "observed must be a mask"),
        ({"residuals": lambda p: p["x"][:, None] * 1e20, "start": {"x": torch.ones(1)}}, "cost of the start"),
        ({"residuals": lambda p: (p["x"] - 1).sqrt()[:, None]}, "finite derivatives; not so by x: a root"),
        ({"start": {"x": torch.tensor(1.0)}, "batched": True}, "leading dimensions"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"residuals": lambda p: p["x"][:, None], "start": {"x": vector(1)}, **change}
    with pytest.raises(ValueError, match=message):
        least_squares(**arguments)


@pytest.mark.parametrize("kernel", [Huber, Cauchy])
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_kernels_without_a_scale_are_refused(kernel: type, scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        kernel(scale)


def test_a_start_that_is_far_off_is_no_reason_to_stop_early() -> None:
    """What is left may be as small as rounding beside the first residuals, and still be far from the minimum."""
    found = least_squares(lambda p: torch.exp(p["x"])[:, None] - 2, {"x": vector(20).float()})
    assert float(found.parameters["x"]) == pytest.approx(math.log(2), abs=1e-4)


def test_a_parameter_without_influence_does_not_hide_that_the_gradient_vanishes() -> None:
    found = least_squares(lambda p: p["x"][:, None] * torch.tensor([[1.0], [0.0]]), {"x": torch.tensor([0.0, 5.0])})
    assert (found.reasons, found.steps) == (("gradient",), 0)
