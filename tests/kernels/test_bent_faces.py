"""Faces that a lens bends: the kernels against plain torch."""

import pytest
import torch

from diffrender.kernels.bent_faces import cut_in_four, judge_sides, side_middles

SAG, JUMP, WIDTH = 0.05, 0.25, 2.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("max_sag", "max_width"), [(SAG, WIDTH), (SAG, None), (None, None)])
def test_sides_are_judged_by_their_definition(
    max_sag: float | None, max_width: float | None, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    triangles = 20 * torch.rand(500, 3, 2, generator=generator, dtype=torch.float64)
    triangles[::2, 2] = triangles[::2, 0] + torch.rand(250, 2, generator=generator, dtype=torch.float64)  # narrow
    along = triangles.roll(-1, 1) - triangles
    off = torch.randn(500, 3, 2, generator=generator, dtype=torch.float64)
    off *= 10 ** (-4 * torch.rand(500, 1, 1, generator=generator, dtype=torch.float64))
    middles = (triangles + 0.5 * along + off).to(dtype)
    middles[::50, 1] = torch.nan

    to_middle = middles.double() - triangles
    between = (along[..., 0] * to_middle[..., 1] - along[..., 1] * to_middle[..., 0]).abs().amax(-1)
    area = (along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0]).abs()
    jumps = ((to_middle - 0.5 * along).norm(dim=-1) > JUMP * along.norm(dim=-1)).any(-1)
    bent = jumps if max_sag is None else between > max_sag * area
    wanted = torch.ones_like(bent) if max_width is None else jumps | (area < max_width * along.norm(dim=-1).amax(-1))
    kept, cut = judge_sides(triangles, middles, max_sag=max_sag, jump=JUMP, max_width=max_width)
    assert torch.equal(kept, (wanted & ~bent).nonzero()[:, 0])
    assert torch.equal(cut, (wanted & bent).nonzero()[:, 0])
    assert 0 < len(cut) < len(cut) + len(kept) <= 500


def test_quarters_fill_the_whole_and_turn_like_it() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(7, 3, 3, generator=generator, dtype=torch.float64)
    middles = side_middles(points)
    assert torch.equal(middles, 0.5 * (points + points.roll(-1, 1)))
    parents = torch.tensor([2, 0, 5])
    quarters, depth, pixels = cut_in_four(
        parents, points, points[..., 2], points[..., :2], middles, middles[..., 2], middles[..., :2]
    )
    assert torch.equal(depth, quarters[..., 2])
    assert torch.equal(pixels, quarters[..., :2])
    normal = torch.linalg.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])[parents]
    small = torch.linalg.cross(quarters[:, 1] - quarters[:, 0], quarters[:, 2] - quarters[:, 0]).reshape(3, 4, 3)
    torch.testing.assert_close(small, (normal / 4).unsqueeze(1).expand_as(small))
    assert torch.equal(quarters.reshape(3, 4, 3, 3)[:, range(3), range(3)], points[parents])
