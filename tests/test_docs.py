"""The page on cameras tells the truth: its code runs from top to bottom, and its lens has the pixels of its formula."""

import re
from pathlib import Path

import pytest
import torch

from diffrender.testing import check_camera

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "cameras.md").read_text(), flags=re.DOTALL)


def run(blocks: list[str]) -> dict:
    names: dict = {}
    for block in blocks:
        exec(compile(block, "cameras.md", "exec"), names)
    return names


def test_code_runs_and_finds_the_slits(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(BLOCKS)
    assert names["report"].ok
    assert len(names["images"]) == 3
    torch.testing.assert_close(names["slits"].detach(), torch.tensor([-2.0, 0.0]), rtol=0, atol=0.1)
    assert "should be -2.00 and 0.00" in capsys.readouterr().out


def test_crossed_slits_without_a_lens_are_two_perspectives() -> None:
    (block,) = [block for block in BLOCKS if "class CrossedSlits" in block]
    camera = run([block])["CrossedSlits"](60.0, (-2.0, -0.5), 0.0, size=(48, 64)).to(dtype=torch.float64)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + torch.tensor(
        [-0.5, -0.5, 2]
    )
    x, y, z = points.unbind(-1)
    expected = torch.stack((32 + 60 * x / (z + 2), 24 + 60 * y / (z + 0.5)), dim=-1)
    xy, depth = camera.project(points)
    torch.testing.assert_close(xy, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(depth, z, rtol=0, atol=1e-10)
    check_camera(camera).check()


def test_links_lead_to_files() -> None:
    for page in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
        assert not [link for link in links if not link.startswith("http") and not (DOCS / link).exists()]
