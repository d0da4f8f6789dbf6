"""The optimization: stages from coarse to fine, and a state that can be put aside at any step and taken up again."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..hull import object_bounds, visual_hull
from ..io.image_set import ImageSet
from ..io.images import encode_srgb
from ..losses import color_loss, silhouette_loss
from ..mesh import Mesh
from ..optim import AdamUniform, LargeSteps
from ..primitives import sphere
from ..regularizers import edge_length, laplacian_smoothness, normal_consistency
from ..subdivide import subdivide
from .model import Optics, take_pictures
from .settings import FitSettings
from .views import View, alike, load_views

# Weights of the losses. Colours are sRGB in [0, 1], coverages in [0, 1], regularizers without unit.
COLOR = 3.0
SILHOUETTE = 1.0
NORMALS = 0.02
LAPLACIAN = 0.005  # the last two hardly count for the shape: they keep triangles from folding and degenerating
EDGES = 0.0005
COLOR_SMOOTHNESS = 0.3  # of squared differences along edges: colours must not paint what the shape should explain

SMOOTHNESS = 20.0  # lambda of the large steps, about the paper's default of 19, while the shape moves far
LAST_SMOOTHNESS = 5.0  # and in the last stage, where details come
SHAPE_STEP = 0.06  # first step of the large steps' coordinates, relative to the size of the object
COLOR_STEP = 0.02  # first step of Adam on linear colours
OPTICS_STEP = {"rim": 0.01, "center": 1e-4}  # in their own units
LAST_STEP = 0.1  # of the first one, at the end of a stage

START_COLOR = 0.3  # linear; colours find their way in a few dozen steps
HULL_IMAGE_SIZE = 800  # longest side of the masks that carve: finer ones only cost time
MARGIN = 0.02  # bounds that a set brings fit tightly, masks may not: relative to the longest side


@dataclass(frozen=True)
class Record:
    """One line of the history."""

    step: int
    stage: int
    loss: float
    color: float
    silhouette: float


class Trainer:
    """A fit in progress: advance it with `step`, look at it with `mesh` and `optics`, save it with `state`.

    Args:
        images: the views to fit.
        settings: see there.
        state: what `state()` of another trainer of the same views and settings returned, to go on from there.
    """

    def __init__(self, images: ImageSet, settings: FitSettings, state: dict[str, Any] | None = None) -> None:
        self.settings = settings
        self._images = images
        self._stage = -1
        self._random = torch.Generator().manual_seed(settings.seed)
        self._order: list[int] = []
        self._in_stage = 0
        self.history: list[Record] = []
        self.seconds = 0.0
        self._optics = Optics.ideal()
        if state is None:
            started = time.perf_counter()
            self.start = start_mesh(images, settings)
            self._enter(0, self.start.replace(vertex_colors=torch.full_like(self.start.vertices, START_COLOR)))
            self.seconds = time.perf_counter() - started
        else:
            self._restore(state)

    @property
    def done(self) -> bool:
        return len(self.history) >= self.settings.steps

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """The mesh as it stands."""
        return self._mesh().replace(vertex_colors=self._colors.detach().clone())

    def optics(self) -> Optics:
        return Optics(**{name: value.detach().clone() for name, value in self._optics.tensors().items()})

    def step(self) -> Record:
        """One step of the optimizers; enters the next stage when the last one is over."""
        started = time.perf_counter()
        while self._in_stage >= self.settings.stage_steps[self._stage]:
            self._enter(self._stage + 1, subdivide(self.mesh()) if self.settings.fit_shape else self.mesh())
        views = [self._views[i] for i in self._next_views()]
        mesh = self._mesh()
        color, silhouette = _image_losses(mesh.replace(vertex_colors=self._colors), self._optics, views)
        loss = COLOR * color + SILHOUETTE * silhouette + self._priors(mesh)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the loss became {float(loss.detach())} at step {len(self.history)}: please report this"
            )
        share = self._in_stage / self.settings.stage_steps[self._stage]
        rate = LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * share)) / 2
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["first_lr"]
            optimizer.step()
        with torch.no_grad():
            self._colors.clamp_(min=0)
        self._in_stage += 1
        losses = (float(value.detach()) for value in (loss, color, silhouette))
        record = Record(len(self.history), self._stage, *losses)
        self.history.append(record)
        self.seconds += time.perf_counter() - started
        return record

    def state(self) -> dict[str, Any]:
        """All that decides how the fit goes on: plain numbers and tensors, copied."""
        return {
            "stage": self._stage,
            "in_stage": self._in_stage,
            "order": list(self._order),
            "random": self._random.get_state(),
            "history": [vars(record).copy() for record in self.history],
            "seconds": self.seconds,
            "start": {"vertices": self.start.vertices, "faces": self.start.faces},
            "base": {"vertices": self._base.vertices, "faces": self._base.faces},
            "coordinates": self._coordinates.detach().clone(),
            "colors": self._colors.detach().clone(),
            "optics": self.optics().tensors(),
            "optimizers": [_copied(optimizer.state_dict()) for optimizer in self._optimizers],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._optics = Optics(**{name: value.clone() for name, value in state["optics"].items()})
        self.start = Mesh(**state["start"])
        self._enter(state["stage"], Mesh(**state["base"], vertex_colors=state["colors"]))
        with torch.no_grad():
            self._coordinates.copy_(state["coordinates"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(_copied(saved))
        self._in_stage = state["in_stage"]
        self._order = list(state["order"])
        self._random.set_state(state["random"])
        self.history = [Record(**record) for record in state["history"]]
        self.seconds = state["seconds"]

    def _enter(self, stage: int, mesh: Mesh) -> None:
        """Begin a stage with `mesh` and its colours."""
        assert mesh.vertex_colors is not None
        self._stage, self._in_stage = stage, 0
        self._views = load_views(self._images, self.settings.image_sizes[stage])
        self._base = Mesh(mesh.vertices, mesh.faces)
        last = stage == len(self.settings.image_sizes) - 1
        self._large_steps = LargeSteps(self._base.topology, smoothness=LAST_SMOOTHNESS if last else SMOOTHNESS)
        self._coordinates = self._large_steps.to_differential(self._base.vertices)
        self._colors = mesh.vertex_colors.detach().clone().requires_grad_()
        self._optics = Optics(**{n: x.detach().clone().requires_grad_() for n, x in self._optics.tensors().items()})
        groups = [{"params": [self._colors], "lr": COLOR_STEP}]
        groups += [{"params": [x], "lr": OPTICS_STEP[name]} for name, x in self._optics.tensors().items()]
        # a shorter memory than the default: each step sees other views, and a stage is a few hundred steps
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(groups, betas=(0.9, 0.99))]
        if self.settings.fit_shape:
            size = float((self._base.bounds()[1] - self._base.bounds()[0]).max())
            self._coordinates.requires_grad_()
            self._optimizers.append(AdamUniform([self._coordinates], lr=SHAPE_STEP * size))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["first_lr"] = group["lr"]

    def _mesh(self) -> Mesh:
        """Without colours; differentiable to the coordinates."""
        if not self.settings.fit_shape:
            return self._base
        return self._base.replace(vertices=self._large_steps.to_vertices(self._coordinates))

    def _next_views(self) -> list[int]:
        """All views come up equally often, in random order."""
        count = len(self._images)
        while len(self._order) < self.settings.views_per_step:
            self._order += torch.randperm(count, generator=self._random).tolist()
        chosen = self._order[: self.settings.views_per_step]
        self._order = self._order[self.settings.views_per_step :]
        return chosen

    def _priors(self, mesh: Mesh) -> Tensor:
        """What is likely of any surface and its colours."""
        low, high = self._base.topology.edges.unbind(-1)
        apart = self._colors.index_select(0, low) - self._colors.index_select(0, high)
        prior = COLOR_SMOOTHNESS * apart.square().mean()
        if self.settings.fit_shape:
            prior = prior + NORMALS * normal_consistency(mesh)
            prior = prior + LAPLACIAN * laplacian_smoothness(mesh) + EDGES * edge_length(mesh)
        return prior


def start_mesh(images: ImageSet, settings: FitSettings) -> Mesh:
    """The mesh that the first stage starts from."""
    views = load_views(images, HULL_IMAGE_SIZE)
    masks, cameras = [view.silhouette for view in views], [view.camera for view in views]
    if images.bounds is None:
        bounds = object_bounds(masks, cameras)
    else:
        margin = MARGIN * float((images.bounds[1] - images.bounds[0]).max())
        bounds = torch.stack([images.bounds[0] - margin, images.bounds[1] + margin])
    cells = settings.mesh_cells // 2 ** (len(settings.image_sizes) - 1 if settings.fit_shape else 0)
    if settings.start == "hull":
        return visual_hull(masks, cameras, bounds, resolution=cells)
    # an icosphere has 10 * 4^n faces around half of it, of 2 in each cell: pi / 2 cells^2 on a face of the box
    ball = sphere(max(1, round(math.log(math.pi / 2 * cells**2 / 5, 4))))
    return Mesh(bounds.mean(0) + ball.vertices * (bounds[1] - bounds[0]) / 2, ball.faces)


def _image_losses(mesh: Mesh, optics: Optics, views: list[View]) -> tuple[Tensor, Tensor]:
    """Colour and silhouette loss, means over the views."""
    color, silhouette = torch.zeros(()), torch.zeros(())
    for members, cameras in alike(views):
        pictures = take_pictures(mesh, optics, cameras)
        image, mask, trust = (
            torch.stack([getattr(views[i], name) for i in members]) for name in ("image", "silhouette", "trust")
        )
        share = len(members) / len(views)
        color = color + share * color_loss(encode_srgb(pictures[..., :3]), image)
        silhouette = silhouette + share * silhouette_loss(pictures[..., 3], mask, weight=trust)
    return color, silhouette


def _copied(value: Any) -> Any:
    """A state of an optimizer with its tensors copied."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
