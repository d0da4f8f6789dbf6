"""The pages tell the truth: their code runs from top to bottom, and finds what the text says."""

import importlib
import math
import re
from pathlib import Path

import pytest
import torch

import diffrender as dr
from diffrender.testing import check_camera

DOCS = Path(__file__).parent.parent / "docs"


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


BLOCKS = blocks_of("cameras.md")


def run(blocks: list[str]) -> dict:
    names: dict = {}
    for block in blocks:
        exec(compile(block, "<docs>", "exec"), names)
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


def test_code_for_newcomers_runs_and_a_camera_of_pytorch3d_is_where_it_was() -> None:
    names = run(blocks_of("coming_from.md"))
    torch.testing.assert_close(names["center"], torch.tensor([0.0, 0.0, 3.0]))
    # the outline of the unit sphere seen from 3; its 1280 faces lie inside: 0.2 % of the area, as in test_cli
    area = math.pi * names["radius"] ** 2
    assert float(names["silhouette"].sum()) == pytest.approx(area, rel=0.01)
    assert names["image"].shape == (48, 64, 4)
    assert bool(names["features"].grad.abs().amax(1).gt(0).any())


def test_every_name_of_the_package_is_listed_once() -> None:
    text = (DOCS / "names.md").read_text()
    listed = re.findall(r"`dr\.(\w+)`", text)
    assert sorted(listed) == sorted(dr.__all__)


@pytest.mark.parametrize("page", ["names.md", "coming_from.md"])
def test_names_on_the_pages_exist(page: str) -> None:
    text = (DOCS / page).read_text()
    assert not [name for name in re.findall(r"\bdr\.(\w+)", text) if not hasattr(dr, name)]
    lines = [line for line in text.splitlines() if "`diffrender." in line]
    assert lines
    for line in lines:
        modules = [importlib.import_module(name) for name in re.findall(r"`(diffrender\.\w+)", line)]
        here = line[line.index("`diffrender.") :].split(" | ")[-1 if page == "names.md" else 0]
        for name in re.findall(r"`(\w+)`", here):
            assert any(hasattr(module, name) for module in modules), f"{name} of {line}"


def test_links_lead_to_files() -> None:
    for page in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
        assert not [link for link in links if not link.startswith("http") and not (DOCS / link).exists()]
