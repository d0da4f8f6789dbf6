"""The boxes of a tree of rays, against those found one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffrender.kernels import build_ray_tree, first_hit, image_slots, ray_tree, scattered_slots, sort_rays


def expected_boxes(slots: np.ndarray, values: np.ndarray, usable: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Least and largest values of all nodes of a view, leaves first; infinity where there are no rays."""
    low = [np.where(s >= 0 and usable[s], values[s], np.inf) for s in slots]
    high = [np.where(s >= 0 and usable[s], values[s], -np.inf) for s in slots]
    nodes = []
    while not nodes or len(low) > 1:
        low = [np.min(low[i : i + 4], axis=0) for i in range(0, len(low), 4)]
        high = [np.max(high[i : i + 4], axis=0) for i in range(0, len(high), 4)]
        nodes += list(zip(low, high, strict=True))
    return nodes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 4, 5, 67, 300])
def test_boxes_hold_the_rays_below_them_and_no_more(count: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(count)
    directions, origins = torch.randn(2, count, 3, generator=random, dtype=torch.float64).to(dtype)
    directions[::7] = torch.nan
    origins[3::11, 1] = torch.inf
    directions[5::13] = 0.0
    view = torch.randint(0, 3, (count,), generator=random)
    slots = scattered_slots(view, 50 * torch.rand(count, 2, generator=random).to(dtype), 3)
    for start in (None, origins):
        tree = build_ray_tree(start, directions, slots)
        usable = torch.isfinite(directions).all(-1) & (start is None or torch.isfinite(origins).all(-1))
        assert torch.equal(tree.slots, torch.where((slots >= 0) & usable[slots.clamp(min=0)], slots, -1))
        length = torch.linalg.vector_norm(directions.double(), dim=-1, keepdim=True)
        units = directions.double() / length.clamp(min=1e-300)
        of = [(tree.boxes, units)]
        if start is not None:
            assert tree.moment_boxes is not None
            of.append((tree.moment_boxes, torch.linalg.cross(origins.double(), units)))
        for boxes, values in of:
            check(boxes, slots, values, usable, 8 * torch.finfo(dtype).eps)


def check(boxes: tuple[Tensor, Tensor], slots: Tensor, values: Tensor, usable: Tensor, tolerance: float) -> None:
    expected = [node for view in slots for node in expected_boxes(view.numpy(), values.numpy(), usable.numpy())]
    assert len(expected) == len(boxes[0])
    for center, half, (low, high) in zip(*(x.double().numpy() for x in boxes), expected, strict=True):
        if np.isinf(low).any():
            assert (half < 0).all()
        else:
            size = 1 + np.abs(low) + np.abs(high)
            assert (np.abs(center - half - low) < tolerance * size).all()
            assert (np.abs(center + half - high) < tolerance * size).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (7, 3), (37, 45), (32, 32), (33, 70)])
def test_every_pixel_has_one_slot_beside_those_of_its_neighbours(size: tuple[int, int]) -> None:
    height, width = size
    slots = image_slots(height, width, 2, torch.zeros(1))
    for view, of_view in enumerate(slots):
        pixels = of_view[of_view >= 0] - view * height * width
        assert torch.equal(pixels.sort().values, torch.arange(height * width))
    four = slots[0].reshape(-1, 4)
    row, column = four // width, four % width
    for place in (row, column):  # four pixels of a leaf are a square of two by two, where all of them exist
        whole = place[(four >= 0).all(-1)]
        assert bool((whole.amax(-1) - whole.amin(-1) <= 1).all()) or width == 1 or height == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_rays_are_sorted_by_counting_as_torch_sorts_them(count: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(count)
    height, width, num_views = 7, 29, 3
    xy = torch.rand(count, 2, generator=random).to(dtype) * torch.tensor([width, height]).to(dtype)
    xy[::9] = torch.tensor([width, height]).to(dtype)  # the border
    rays = (
        torch.randint(0, num_views, (count,), generator=random),
        xy,
        torch.randn(count, 3, generator=random).to(dtype),
    )
    runs = -(-width // ray_tree.RUN)
    found = ray_tree._sorted_by_counting(*rays, num_views, height, runs)
    expected = ray_tree._sorted_by_torch(*rays, num_views, height, runs)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        used = len(ours) - ray_tree.PADDING if ours.is_floating_point() else len(ours)
        assert torch.equal(ours[:used], theirs[:used])


def test_a_ray_that_is_no_number_goes_through_some_run() -> None:
    xy = torch.tensor([[torch.nan, 1.5], [2.5, torch.nan], [torch.inf, -torch.inf], [2.5, 1.5]])
    rays = sort_rays(torch.zeros(4, dtype=torch.int64), xy, None, torch.ones(4, 3), 1, (3, 20))
    assert rays.order.sort().values.tolist() == [0, 1, 2, 3]
    assert rays.run_start[-1] == 4


@pytest.mark.parametrize("central", [True, False])
def test_no_rays_meet_no_faces(central: bool) -> None:
    none = torch.zeros(0, 3)
    tree = build_ray_tree(None if central else none, none, scattered_slots(none[:, 0].long(), none[:, :2], 2))
    face, depth = first_hit(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.tensor([1]), tree, z_depth=False)
    assert len(face) == len(depth) == 0
