"""The optimization: stages from coarse to fine, and a state that can be put aside at any step and taken up again."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import steady
from ..cameras import stack_cameras
from ..io.image_set import ImageSet
from ..io.images import encode_srgb
from ..losses import color_loss, silhouette_loss
from ..mesh import Material, Mesh
from ..optim import AdamUniform, LargeSteps
from ..regularizers import edge_length, laplacian_smoothness, normal_consistency
from ..remesh import remesh
from ..resurface import resurface
from ..unwrap import unwrap
from .gauge import common_motions, take_out
from .model import Optics, take_pictures
from .paint import COLOR_STEP, TexturePaint, VertexPaint
from .refine import edge_lengths
from .settings import FitSettings
from .share import of_the_first, own, rank, total
from .sheen import mean_lights
from .start import carving_masks, start_mesh
from .unseen import film_area, unseen_vertices
from .views import View, Views, alike

# Weights of the losses. Colours are sRGB in [0, 1], coverages in [0, 1], regularizers without unit.
COLOR = 3.0
SILHOUETTE = 1.0
NORMALS = 0.02
LAPLACIAN = 0.005  # the last two hardly count for the shape: they keep triangles from folding and degenerating
EDGES = 0.0005
FILM = 0.1  # of the area that no view sees, in squares as large as the object: little, for there it alone counts

SMOOTHNESS = 20.0  # lambda of the large steps, about the paper's default of 19, while the shape moves far
LAST_SMOOTHNESS = 5.0  # and in the last stage, where details come
SHAPE_STEP = 0.06  # first step of the large steps' coordinates, relative to the size of the object
TEXTURED_SHAPE_STEP = 0.01  # the same for the shape under a texture, which is nearly right
OPTICS_STEP = {
    "rim": 0.01,
    "center": 1e-4,
    "focal": 1e-3,
    "distortion": 4e-3,
    "gains": 0.01,
    "turns": 5e-4,
    "shifts": 5e-4,
    "lights": 0.02,
}  # in their units
SATURATED = 254.5 / 255  # sRGB
SHEEN = 0.003  # of squared shares of lights: where few views see a colour, it looks the same from everywhere
POSES = 0.1  # of mean squared turns and shifts: what pictures hardly show stays as it was
WARMUP = 0.1  # of a stage, until steps are whole: the first ones know little of second moments, and fold the mesh
LAST_STEP = 0.1  # of the first one, at the end of a stage

PULLING_VIEWS = 32  # at most so many views say where edges shall be short
REMESHING = {"even": 3, "driven": 5}  # iterations, between stages: the mesh was even before
START_COLOR = 0.3  # linear; colours find their way in a few dozen steps
OUTLIER, OUTLIER_RANK = 10.0, 0.99  # derivatives by a vertex end at 10 times the 99th percentile; usual are 2 to 4
LEAST_CAUTION = 1 / 256  # of the step sizes: what is not cured by such small steps has other reasons


@dataclass(frozen=True)
class Record:
    """One line of the history."""

    step: int
    stage: int
    loss: float
    color: float
    silhouette: float


class NotFinite(Exception):
    """A loss, a derivative or a parameter became infinite or not a number; says which."""


class Trainer:
    """A fit in progress: advance it with `step`, look at it with `mesh` and `optics`, save it with `state`.

    A step that ends in NaN or infinity is taken back, together with the one before, which led there; they are done
    again with half the step size, which stays so until the end of the stage. `incidents` says so.

    Args:
        images: the views to fit.
        settings: see there.
        state: what `state()` of another trainer of the same views and settings returned, to go on from there.
        device: where the steps are done. Between stages, meshes are made on the CPU.
    """

    def __init__(
        self,
        images: ImageSet,
        settings: FitSettings,
        state: dict[str, Any] | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self._images = images
        self._stage = -1
        self._random = torch.Generator().manual_seed(settings.seed)
        self._order: list[int] = []
        self._in_stage = 0
        self._caution = 1.0  # factor of the step sizes
        self._before: dict[str, Any] | None = None  # state before the last step
        self.history: list[Record] = []
        self.incidents: list[str] = []
        self.seconds = 0.0
        self._optics = Optics.ideal(len(images), settings.sheen, self.device)
        together = settings.fit_cameras and settings.fit_shape  # then both may drift off
        self._common_motions = common_motions(images.cameras) if together else None
        if state is None:
            started = time.perf_counter()
            start, self.incidents = start_mesh(images, settings)
            self.start = start.to(self.device)
            grey = torch.full_like(self.start.vertices, START_COLOR)
            self._enter(0, self.start, torch.nn.functional.pad(grey, (0, settings.sheen)))
            self.seconds = time.perf_counter() - started
        else:
            self._restore(state)

    @property
    def done(self) -> bool:
        return len(self.history) >= self.settings.steps

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """The mesh as it stands."""
        return self._paint.on(self._mesh(), self._colors.detach().clone())

    @torch.no_grad()
    def matte(self) -> Mesh:
        """The mesh with colours that are the same from everywhere, as files hold them: means over the fitted views."""
        if not self.settings.sheen:
            return self.mesh()
        mesh, eyes = self._mesh(), torch.stack([camera.center for camera in self._images.cameras]).to(self.device)
        lights = mean_lights(mesh, eyes, self._optics.lights)
        lights = self._paint.values_of(mesh.replace(vertex_colors=lights))
        return self._paint.on(mesh, self._paint.matte(self._colors, lights))

    def optics(self) -> Optics:
        return Optics(**{name: value.detach().clone() for name, value in self._optics.tensors().items()})

    def step(self) -> Record:
        """One step of the optimizers; enters the next stage when the last one is over.

        Raises FloatingPointError when small steps end in NaN as well.
        """
        started = time.perf_counter()
        while True:
            now = self._snapshot()
            try:
                record = self._try_step()
                break
            except NotFinite as error:
                self._take_back(self._before or now, str(error))
        self._before = now
        self.history.append(record)
        self.seconds += time.perf_counter() - started
        return record

    def _try_step(self) -> Record:
        while self._in_stage >= self.settings.stage_steps[self._stage]:
            self._enter(self._stage + 1, *self._next_start(self._stage + 1))
        losses = self._derivatives()
        share = self._in_stage / self.settings.stage_steps[self._stage]
        eased = (LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * share)) / 2) * min(1.0, (share + 1e-3) / WARMUP)
        rate = self._caution * eased
        parameters = [x for optimizer in self._optimizers for group in optimizer.param_groups for x in group["params"]]
        _check_finite("the loss", [losses])
        _check_finite("a derivative of the loss", [x.grad for x in parameters if x.grad is not None])
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["first_lr"]
            optimizer.step()
        with torch.no_grad():
            self._colors[:, :3].clamp_(min=0)
        if self._common_motions is not None:
            take_out(self._common_motions, self._optics.turns, self._optics.shifts)
        _check_finite("a parameter", parameters)
        self._in_stage += 1
        return Record(len(self.history), self._stage, *losses.tolist())

    def _derivatives(self) -> Tensor:
        """Set the derivatives of all parameters; loss, colour loss and silhouette loss [3] of this step's views."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        chosen = self._next_views()
        numbers = own(chosen)
        views = [self._views[i] for i in numbers]
        mesh = self._mesh()
        vertices = mesh.vertices.detach().requires_grad_(mesh.vertices.requires_grad)
        shown = self._paint.on(mesh.replace(vertices=vertices), self._colors)
        color, silhouette = (x * (len(views) / len(chosen)) for x in _image_losses(shown, self._optics, views, numbers))
        loss = COLOR * color + SILHOUETTE * silhouette
        if rank() == 0:
            loss = loss + self._priors(shown)
        seen = [x for x in (vertices, self._colors, *self._optics.tensors().values()) if x.requires_grad]
        found = torch.autograd.grad(loss, seen, allow_unused=True, materialize_grads=True) if loss.requires_grad else []
        found = found or [torch.zeros_like(x) for x in seen]  # no view for this process, and no priors
        losses, *found = total([torch.stack([loss.detach(), color.detach(), silhouette.detach()]), *found])
        for x, derivative in zip(seen, found, strict=True):
            x.grad = derivative
        if vertices.grad is not None:
            mesh.vertices.backward(_without_outliers(vertices.grad))
        return losses

    def _next_start(self, stage: int) -> tuple[Mesh, Tensor]:
        """The mesh that a stage begins with, and its colours, the same in all processes; on the CPU."""
        if stage == len(self.settings.image_sizes):
            size, mesh = self.settings.texture_size, self.mesh().to("cpu")
            base = _taken_up(of_the_first(_stored(unwrap(mesh, size))))
            return base, of_the_first(TexturePaint(size, base).colors_of(mesh))
        mesh = self._refined(stage) if self.settings.fit_shape else self.mesh().to("cpu")
        assert mesh.vertex_colors is not None
        return mesh, mesh.vertex_colors

    def _refined(self, stage: int) -> Mesh:
        """The mesh with edges about as long as the cells that the mesh of a stage resolves."""
        size = float((self.start.bounds()[1] - self.start.bounds()[0]).max())
        length = size / (self.settings.mesh_cells / 2 ** (len(self.settings.image_sizes) - 1 - stage))
        mesh = self.mesh().to("cpu")
        lengths: float | Tensor = length
        if self.settings.edges == "driven":
            lengths = edge_lengths(mesh, self._pull().cpu(), length)
        if self.settings.topology == "free":
            before, mesh = mesh, self._resurfaced(mesh, length)
            lengths = lengths if mesh is before else length  # nothing has pulled at a new surface yet
        mesh = remesh(mesh, lengths, iterations=REMESHING[self.settings.edges])
        return Mesh(**of_the_first({name: getattr(mesh, name) for name in ("vertices", "faces", "vertex_colors")}))

    def _resurfaced(self, mesh: Mesh, length: float) -> Mesh:
        """`mesh`, or a new surface where the masks, seen by the cameras as they are by now, contradict it."""
        masks, optics, cameras = carving_masks(self._images), self.optics().to("cpu"), []
        for i, camera in enumerate(masks.cameras):  # one by one: they may be of different kinds
            cameras.append(optics.moved(optics.shifted(stack_cameras([camera])), torch.tensor([i]))[0])
        return resurface(mesh, masks, cameras, length)

    def _pull(self) -> Tensor:
        """[V] how hard single views pull at each vertex: the lengths of their derivatives, summed over the views."""
        mesh = self.mesh()
        vertices = mesh.vertices.clone().requires_grad_()
        shown, optics, pull = mesh.replace(vertices=vertices), self.optics(), vertices.new_zeros(mesh.num_vertices)
        step = math.ceil(len(self._views) / PULLING_VIEWS)
        for i in own(range(0, len(self._views), step)):
            color, silhouette = _image_losses(shown, optics, [self._views[i]], [i])
            (derivative,) = torch.autograd.grad(COLOR * color + SILHOUETTE * silhouette, vertices)
            pull += derivative.norm(dim=-1).nan_to_num(0.0, 0.0, 0.0)  # what is no number says nothing
        return total([pull])[0]

    def _take_back(self, state: dict[str, Any], reason: str) -> None:
        """Go on from `state` with steps half as long as now."""
        incidents, caution, at = list(self.incidents), self._caution / 2, len(self.history)
        if caution < LEAST_CAUTION:
            raise FloatingPointError(
                f"{reason} became infinite or not a number at step {at}, also with {self._caution:g} of the step size: "
                "please report this. The checkpoint holds the last good step"
            )
        self._restore(state)
        self._caution = caution
        incidents.append(
            f"{reason} became infinite or not a number at step {at}: went back to step {len(self.history)}, "
            f"with {caution:g} of the step size until the end of the stage"
        )
        self.incidents = incidents

    def state(self) -> dict[str, Any]:
        """All that decides how the fit goes on: plain numbers and tensors, copied."""
        return {**self._snapshot(), "before": self._before}

    def _snapshot(self) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "in_stage": self._in_stage,
            "order": list(self._order),
            "random": self._random.get_state(),
            "caution": self._caution,
            "history": [vars(record) for record in self.history],  # shared: records do not change, and may be many
            "incidents": list(self.incidents),
            "seconds": self.seconds,
            "start": {"vertices": self.start.vertices, "faces": self.start.faces},
            "base": _stored(self._base),
            "coordinates": self._coordinates.detach().clone(),
            "colors": self._colors.detach().clone(),
            "optics": self.optics().tensors(),
            "optimizers": [_copied(optimizer.state_dict()) for optimizer in self._optimizers],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._optics = Optics(**{name: value.clone() for name, value in state["optics"].items()}).to(self.device)
        self.start = Mesh(**state["start"]).to(self.device)
        self._enter(state["stage"], _taken_up(state["base"]), state["colors"])
        with torch.no_grad():
            self._coordinates.copy_(state["coordinates"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(_copied(saved))
        self._in_stage = state["in_stage"]
        self._order = list(state["order"])
        self._random.set_state(state["random"])
        self._caution = state["caution"]
        self._before = state.get("before")
        self.history = [Record(**record) for record in state["history"]]
        self.incidents = list(state["incidents"])
        self.seconds = state["seconds"]

    def _enter(self, stage: int, mesh: Mesh, colors: Tensor) -> None:
        """Begin a stage with `mesh` and colours for its vertices or, where it has uvs, for its texels."""
        if stage != self._stage:
            self._views = Views(self._images, self.settings.stage_sizes[stage], device=self.device)
        self._stage, self._in_stage, self._caution = stage, 0, 1.0
        self._base = mesh.replace(vertex_colors=None).to(self.device)
        textured = mesh.uvs is not None
        self._paint = TexturePaint(self.settings.texture_size, self._base) if textured else VertexPaint()
        last = stage >= len(self.settings.image_sizes) - 1
        self._large_steps = LargeSteps(self._base.topology, smoothness=LAST_SMOOTHNESS if last else SMOOTHNESS)
        self._coordinates = self._large_steps.to_differential(self._base.vertices)
        self._colors = colors.detach().to(self.device, copy=True).requires_grad_()
        free, found = self.settings.fitted_optics, self._optics.tensors()
        self._optics = Optics(**{n: x.detach().clone().requires_grad_(n in free) for n, x in found.items()})
        groups = [{"params": [self._colors], "lr": COLOR_STEP}]
        groups += [
            {"params": [x], "lr": OPTICS_STEP[name]} for name, x in self._optics.tensors().items() if name in free
        ]
        # a shorter memory than the default: each step sees other views, and a stage is a few hundred steps
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(groups, betas=(0.9, 0.99))]
        if self.settings.fit_shape:
            size = self._size()
            self._unseen = unseen_vertices(self._base, self._views.cameras())
            self._coordinates.requires_grad_()
            self._optimizers.append(
                AdamUniform([self._coordinates], lr=size * (TEXTURED_SHAPE_STEP if textured else SHAPE_STEP))
            )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["first_lr"] = group["lr"]

    def _mesh(self) -> Mesh:
        """Without colours; differentiable to the coordinates."""
        if not self.settings.fit_shape:
            return self._base
        return self._base.replace(vertices=self._large_steps.to_vertices(self._coordinates))

    def _size(self) -> float:
        """The longest side of the object."""
        low, high = self._base.bounds()
        return float((high - low).max())

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
        prior = self._paint.prior(self._base, self._colors)
        if self.settings.sheen:
            prior = prior + SHEEN * steady.mean(self._colors[:, 3:].square())
        if self.settings.fit_cameras:
            prior = prior + POSES * (self._optics.turns.square().mean() + self._optics.shifts.square().mean())
        if self.settings.fit_shape:
            prior = prior + NORMALS * normal_consistency(mesh)
            prior = prior + LAPLACIAN * laplacian_smoothness(mesh) + EDGES * edge_length(mesh)
            prior = prior + FILM * film_area(mesh, self._unseen, self._size())
        return prior


def _image_losses(mesh: Mesh, optics: Optics, views: list[View], numbers: list[int]) -> tuple[Tensor, Tensor]:
    """Colour and silhouette loss, means over the views, which are those with these `numbers` of the image set."""
    color, silhouette = mesh.vertices.new_zeros(()), mesh.vertices.new_zeros(())
    for members, cameras in alike(views):
        pictures = take_pictures(mesh, optics, cameras, [numbers[i] for i in members])
        image, mask, trust = (
            torch.stack([getattr(views[i], name) for i in members]) for name in ("image", "silhouette", "trust")
        )
        share = len(members) / len(views)
        color = color + share * _color_loss(pictures, image)
        silhouette = silhouette + share * silhouette_loss(pictures[..., 3], mask, weight=trust)
    return color, silhouette


def _color_loss(pictures: Tensor, images: Tensor) -> Tensor:
    """The colour loss of sRGB values; `pictures` [B, H, W, 4] linear and before black, `images` [B, H, W, 3] sRGB.

    Most pixels are black in both, and have no error: only the others are looked at. What is as bright as an image can
    be may be brighter in truth.
    """
    found, wanted = pictures.reshape(-1, 4), images.reshape(-1, 3)
    index = ((found[:, 3] > 0) | (wanted > 0).any(-1)).nonzero().squeeze(-1)
    if len(index) == 0:
        return pictures.sum() * 0
    seen, wanted = encode_srgb(found.index_select(0, index)[:, :3]), wanted.index_select(0, index)
    seen = torch.where(wanted >= SATURATED, seen.clamp(max=1), seen)
    loss = color_loss(seen[None], wanted[None])  # images of one row
    return loss * (len(index) / len(found))


def _without_outliers(gradient: Tensor) -> Tensor:
    """`gradient` [V, 3] with the few vectors shortened that are far longer than the rest.

    The colour of a face seen edge-on changes without bounds when a corner moves. One such face, of a few pixels in
    hundreds of thousands, would make a thorn of its corners, and by the second moment stop all other vertices.
    """
    length = gradient.norm(dim=-1)
    moving = length[length > 0]
    if len(moving) == 0:
        return gradient
    longest = OUTLIER * moving.kthvalue(max(1, math.ceil(OUTLIER_RANK * len(moving)))).values
    return gradient * (longest / length.clamp(min=longest)).unsqueeze(-1)


def _stored(base: Mesh) -> dict[str, Tensor | None]:
    """A mesh without colours as plain tensors."""
    return {name: getattr(base, name) for name in ("vertices", "faces", "uvs", "uv_faces")}


def _taken_up(stored: dict[str, Tensor | None]) -> Mesh:
    """The mesh of `_stored`; with a material where it has uvs."""
    assert stored["vertices"] is not None
    assert stored["faces"] is not None
    if stored["uvs"] is None:
        return Mesh(stored["vertices"], stored["faces"])
    materials = (Material("fitted"),)
    return Mesh(stored["vertices"], stored["faces"], stored["uvs"], stored["uv_faces"], materials=materials)


def _check_finite(what: str, values: Sequence[Tensor]) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise NotFinite(what)


def _copied(value: Any) -> Any:
    """A state of an optimizer with its tensors copied."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
