"""What a fit is asked to do, and what it hands back."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..mesh import Mesh
from .sheen import HARMONICS


@dataclass(frozen=True)
class FitSettings:
    """How to fit. The defaults reconstruct an object from a dozen or two photographs in minutes on two cores.

    Attributes:
        steps: optimizer steps over all stages; 0 writes the start as it is.
        seed: of the order of the views; the same seed gives the same bits on the CPU.
        start: "hull", the visual hull of the masks, or "sphere", an ellipsoid that fills the bounds of the object.
        image_sizes: one stage for each, coarse to fine: longest side of the images in pixels; they are never enlarged.
        mesh_cells: cells along the longest side of the object that the mesh of the last stage resolves; each stage
            before has half as many.
        views_per_step: images that each step looks at.
        topology: "fixed", the start's, or "free": before each stage but the first, a new surface is taken where two
            masks see the background through the mesh, or where it overlaps itself (`diffrender.resurface`).
        edges: "even", or "driven": before each stage but the first, edges become shorter where single views still pull
            at the shape, and longer elsewhere (`diffrender.fit.refine`). Better outlines
            of a quick and coarse fit; no better ones of a long and fine one.
        appearance: "vertex", colours at the vertices, or "texture": after these stages, one more on images 2.5 times
            as large fits an image on the surface, and the shape along with it.
        texture_size: texels along each side of the texture.
        sheen: how many functions of the mirrored direction to the eye colours may follow, at most 24; 0: they look the
            same from everywhere, as they do in `mesh.glb` in any case.
        fit_shape: False keeps the start's shape and fits its colours only.
        fit_exposure: each view gets an exposure and a white balance of its own.
        fit_cameras: the pose of each view is corrected. (The principal point, one for all, always is.)
        fit_lens: focal lengths and the first two coefficients of radial distortion, if the lens has them, are
            corrected, those of all views alike.
        checkpoint_every: steps between checkpoints.
        turntable_frames: pictures of the turntable; 0 for none.
    """

    steps: int = 500
    seed: int = 0
    start: Literal["hull", "sphere"] = "hull"
    image_sizes: tuple[int, ...] = (160, 320)
    mesh_cells: int = 128
    views_per_step: int = 4
    topology: Literal["fixed", "free"] = "fixed"
    edges: Literal["even", "driven"] = "even"
    appearance: Literal["vertex", "texture"] = "vertex"
    texture_size: int = 1024
    sheen: int = 0
    fit_shape: bool = True
    fit_exposure: bool = False
    fit_cameras: bool = False
    fit_lens: bool = False
    checkpoint_every: int = 50
    turntable_frames: int = 48

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_sizes", tuple(self.image_sizes))
        if self.start not in ("hull", "sphere"):
            raise ValueError(f"start must be 'hull' or 'sphere'; got {self.start!r}")
        if self.topology not in ("fixed", "free"):
            raise ValueError(f"topology must be 'fixed' or 'free'; got {self.topology!r}")
        if self.edges not in ("even", "driven"):
            raise ValueError(f"edges must be 'even' or 'driven'; got {self.edges!r}")
        if self.appearance not in ("vertex", "texture"):
            raise ValueError(f"appearance must be 'vertex' or 'texture'; got {self.appearance!r}")
        if not self.image_sizes:
            raise ValueError("image_sizes must hold one size for each stage; got none")
        for size in self.image_sizes:
            _check_whole("image_sizes", size, least=8)
        _check_whole("sheen", self.sheen, least=0)
        if self.sheen > HARMONICS:
            raise ValueError(f"sheen must be at most {HARMONICS}; got {self.sheen}")
        _check_whole("seed", self.seed, least=0)
        _check_whole("steps", self.steps, least=0)
        for name in ("views_per_step", "checkpoint_every"):
            _check_whole(name, getattr(self, name), least=1)
        _check_whole("turntable_frames", self.turntable_frames, least=0)
        _check_whole("texture_size", self.texture_size, least=16)
        # coarser grids lose the object altogether
        _check_whole("mesh_cells", self.mesh_cells, least=4 * 2 ** (len(self.image_sizes) - 1))

    @property
    def fitted_optics(self) -> set[str]:
        """The fields of `model.Optics` that are fitted along."""
        free = {"rim", "center"}
        free |= {"lights"} if self.sheen else set()
        free |= {"gains"} if self.fit_exposure else set()
        free |= {"focal", "distortion"} if self.fit_lens else set()
        return free | ({"turns", "shifts"} if self.fit_cameras else set())

    @property
    def stage_sizes(self) -> list[int]:
        """Longest side of the images of each stage."""
        return [*self.image_sizes, *([5 * self.image_sizes[-1] // 2] if self.appearance == "texture" else [])]

    @property
    def stage_steps(self) -> list[int]:
        """Steps of each stage: each twice as many as the next, which costs several times as much; a texture, which is
        only begun then, as many as the one before."""
        weights = [2**k for k in reversed(range(len(self.image_sizes)))]
        weights += weights[-1:] if self.appearance == "texture" else []
        ends = [self.steps * sum(weights[: k + 1]) // sum(weights) for k in range(len(weights))]
        return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def differences(self, other: "FitSettings") -> list[str]:
        """The fields that would make another fit of it, with both values."""
        free = ("checkpoint_every", "turntable_frames")
        names = [field.name for field in fields(self) if field.name not in free]
        return [
            f"{n} {getattr(other, n)!r} instead of {getattr(self, n)!r}"
            for n in names
            if getattr(self, n) != getattr(other, n)
        ]


@dataclass(frozen=True, eq=False)
class FitResult:
    """What came of a fit.

    Attributes:
        mesh: the fitted mesh, in world units, with colours as they look, the same from everywhere.
        metrics: what `metrics.json` holds.
        files: every file in the folder that the fit wrote.
        notes: what could not be done and why (an optional package that is missing), a sentence each.
    """

    mesh: Mesh
    metrics: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def _check_whole(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
