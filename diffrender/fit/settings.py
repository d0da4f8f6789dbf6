"""What a fit is asked to do, and what it hands back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..mesh import Mesh


@dataclass(frozen=True)
class FitSettings:
    """How to fit. The defaults reconstruct an object from a dozen or two photographs in minutes on two cores.

    Attributes:
        steps: optimizer steps over all stages.
        seed: of the order of the views; the same seed gives the same bits on the CPU.
        start: "hull", the visual hull of the masks, or "sphere", a sphere in the bounds of the object.
        image_scales: one stage for each, coarse to fine: size of the images relative to the files.
        mesh_cells: cells along the longest side of the object that the mesh of the last stage resolves; the stages
            before it have half, a quarter, ... as many.
        views_per_step: images that each step looks at.
        checkpoint_every: steps between checkpoints.
        turntable_frames: pictures of the turntable.
    """

    steps: int = 500
    seed: int = 0
    start: Literal["hull", "sphere"] = "hull"
    image_scales: tuple[float, ...] = (0.25, 0.5)
    mesh_cells: int = 100
    views_per_step: int = 4
    checkpoint_every: int = 50
    turntable_frames: int = 48


@dataclass(frozen=True, eq=False)
class FitResult:
    """What came of a fit.

    Attributes:
        mesh: the fitted mesh, in world units, with colours as they look.
        metrics: what `metrics.json` holds.
        files: every file in the folder that the fit wrote, in the order of writing.
        notes: what could not be done and why (an optional package that is missing), a sentence each.
    """

    mesh: Mesh
    metrics: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
