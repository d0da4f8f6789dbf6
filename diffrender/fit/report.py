"""What a fit leaves behind: figures for every view, and pictures to look at."""

import importlib.util
import itertools
import json
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import Camera, PinholeCamera, look_at, stack_cameras
from ..io.files import atomic_path
from ..io.image_set import ImageSet
from ..io.images import decode_srgb, encode_srgb, save_animation, save_image
from ..io.meshes import save_mesh
from ..losses import iou, psnr
from ..mesh import Mesh
from ..render import render
from .model import Optics, take_pictures
from .page import Shown
from .quality import mesh_quality
from .settings import FitSettings
from .trainer import Record, Trainer

SHEET_VIEWS = 4  # at most, in the sheet of pictures; held-out views first
PAGE_VIEWS = 12  # and in report.html, which holds all of their pictures
SHEET_SIZE = 320  # longest side of each picture
EXAGGERATION = 4.0  # of differences: those of a good fit are too dark to see
TURNTABLE_SIZE = 320
TURNTABLE_SECONDS = 4.0
TURNTABLE_ELEVATION = 15.0  # degrees
SAMPLES = 2  # per pixel and direction: silhouettes are exact anyway, colours finer than pixels are not


@torch.no_grad()
def view_figures(mesh: Mesh, optics: Optics, start: Mesh, images: ImageSet) -> dict[str, list[dict[str, Any]]]:
    """For "train" and "held_out", for each view: its name, PSNR, and IoU in two measures, of the fit and of its start.

    At the size of the files. The silhouette is where coverage is at least 0.5, against the mask of the image set as it
    is, holes included. PSNR in dB is of sRGB values, inside that mask. "mask_iou" is the same as "iou", except where
    masks are known to be larger than the object: there the mask that the same rule makes of the fit's picture is
    compared, which is the one a perfect fit would have right. The start, which has no colours, is white there.
    """
    figures: dict[str, list[dict[str, Any]]] = {}
    for name, views in (("held_out", images.test), ("train", images.train)):
        figures[name] = []
        for i in range(len(views)):
            number = i if name == "train" else None
            seen, alike, found = figures_of(mesh, optics, views, i, number)
            white = _picture(start, optics, views.cameras[i], number)[..., 3:].expand(-1, -1, 4)
            before, before_alike = _agreement(white, views, views.load(i)[1])
            row = {"iou": seen, "start_iou": before, "mask_iou": alike, "start_mask_iou": before_alike, "psnr": found}
            figures[name].append({"view": views.names[i], **row})
    return figures


@torch.no_grad()
def figures_of(
    mesh: Mesh, optics: Optics, views: ImageSet, index: int, number: int | None = None
) -> tuple[float, float, float]:
    """IoU of the silhouette, that of masks made alike, and PSNR inside the mask, of one view: see `view_figures`.

    `number` is the view's among those that were fitted, if it is one of them.
    """
    target, mask = views.load(index)
    picture = _picture(mesh, optics, views.cameras[index], number)
    return *_agreement(picture, views, mask), float(psnr(picture[..., :3], target, mask=(mask >= 0.5).to(target)))


def _agreement(picture: Tensor, views: ImageSet, mask: Tensor) -> tuple[float, float]:
    """IoU with `mask` of the coverage of a `picture` [H, W, 4], and of the mask that `views` would have of it."""
    wanted, *found = ((x >= 0.5).to(picture) for x in (mask, picture[..., 3], views.mask_alike(picture)))
    seen, alike = (float(iou(x, wanted)) for x in found)
    return seen, alike


def metrics(
    trainer: Trainer, settings: FitSettings, figures: dict[str, Any], curve: list[dict[str, Any]]
) -> dict[str, Any]:
    """What `metrics.json` holds: means, figures of every view, their curve over time, settings, times, versions."""
    mesh = trainer.mesh()
    mean = {
        part: {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "view"}
        for part, rows in figures.items()
        if rows
    }
    import diffrender  # here, because the package imports this module

    return {
        "mean": mean,
        "views": figures,
        "curve": curve,
        "mesh": mesh_quality(mesh),
        "optics": {
            name: value.tolist() for name, value in trainer.optics().tensors().items() if name in settings.fitted_optics
        },
        "steps": len(trainer.history),
        "seconds": round(trainer.seconds, 2),
        "loss": trainer.history[-1].loss if trainer.history else None,
        "settings": asdict(settings),
        "versions": {
            "diffrender": diffrender.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
    }


def write_metrics(path: Path, values: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_without_infinities(values), indent=2) + "\n")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Colours in files end at 1."""
    if mesh.vertex_colors is not None:
        mesh = mesh.replace(vertex_colors=mesh.vertex_colors.clamp(0, 1))
    mesh = mesh.to("cpu")
    clamped = [replace(x, texture=None if x.texture is None else x.texture.clamp(0, 1)) for x in mesh.materials]
    save_mesh(path, mesh.replace(materials=tuple(clamped)))


def write_convergence(path: Path, history: Sequence[Record]) -> bool:
    """A plot of the losses over the steps; False, and nothing written, without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label in (("loss", "all of it"), ("color", "colour, L1 of sRGB"), ("silhouette", "silhouette, L2")):
        axes.plot([r.step for r in history], [getattr(r, name) for r in history], label=label, linewidth=1)
    for before, after in itertools.pairwise(history):
        if before.stage != after.stage:
            axes.axvline(after.step, color="grey", linestyle=":", label=f"stage {after.stage + 1}")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return True


@torch.no_grad()
def shown_views(mesh: Mesh, optics: Optics, images: ImageSet, count: int) -> Iterator[Shown]:
    """Pictures of at most `count` views, held-out ones first, the others evenly spread."""
    held, fitted = ([i for i, x in enumerate(images.held_out) if x is kind] for kind in (True, False))
    held = held[:count]
    left = min(count - len(held), len(fitted))
    for i in [*held, *(fitted[k * len(fitted) // left] for k in range(left))]:
        one = images.select([i]).resized(min(1.0, SHEET_SIZE / max(images.sizes[i])))
        target, mask = one.load(0)
        number = None if images.held_out[i] else fitted.index(i)
        picture = _picture(mesh, optics, one.cameras[0], number)
        seen = picture[..., :3].clamp(0, 1)
        difference = decode_srgb((EXAGGERATION * (encode_srgb(seen) - encode_srgb(target)).abs()).clamp(max=1))
        silhouettes = torch.stack([picture[..., 3], mask, mask], dim=-1).clamp(0, 1)
        yield Shown(images.names[i], images.held_out[i], target, seen, difference, silhouettes)


def write_sheet(path: Path, views: Sequence[Shown]) -> None:
    """Rows of target, fit, four times the difference of the sRGB values, and where the silhouettes differ.

    There, white is in both, red in the fit only, cyan in the mask only.
    """
    rows = [torch.cat([view.target, view.fit, view.difference, view.silhouettes], dim=1) for view in views]
    width = max(row.shape[1] for row in rows)
    save_image(path, torch.cat([torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[1])) for row in rows]))


@torch.no_grad()
def turntable(mesh: Mesh, images: ImageSet, frames: int) -> Iterable[Tensor]:
    """Pictures [H, W, 3] from around the mesh; up is what is up in most of the photographs."""
    center = mesh.bounds().mean(0).cpu()
    radius = float((mesh.vertices.cpu() - center).norm(dim=-1).max())
    up, side = _turning(images, center)
    distance = radius / math.sin(math.radians(15))  # a field of view of 30 degrees holds the ball around the mesh
    for k in range(frames):
        angle, height = 2 * math.pi * k / frames, math.radians(TURNTABLE_ELEVATION)
        out = math.cos(angle) * side + math.sin(angle) * torch.linalg.cross(up, side)
        eye = center + distance * (math.cos(height) * out + math.sin(height) * up)
        R, t = look_at(eye, center, up=up)
        camera = PinholeCamera.from_fov(30.0, size=(TURNTABLE_SIZE, TURNTABLE_SIZE), R=R, t=t)
        yield render(mesh, camera.to(mesh.vertices.device), samples=SAMPLES)[..., :3].cpu()


def write_turntable(path: Path, pictures: Sequence[Tensor]) -> None:
    save_animation(path, pictures, fps=len(pictures) / TURNTABLE_SECONDS)


def _turning(images: ImageSet, center: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors up and to the side of the first camera, across from up.

    Cameras stand around the object, so up is the axis that they surround, where they go around it: the direction in
    which the eyes spread least, on the side that most images have up. Where they spread alike, it is their mean up.
    """
    eyes = torch.stack([_eye(camera) for camera in images.cameras])
    ups = torch.stack([-camera.R[1] for camera in images.cameras]).to(center)  # y points down in images
    rays = torch.nn.functional.normalize(eyes - center, dim=-1)
    spread, axes = torch.linalg.eigh((rays - rays.mean(0)).T @ (rays - rays.mean(0)))
    up = ups.mean(0)
    if len(eyes) >= 3 and float(spread[0]) < 0.25 * float(spread[1]):  # a ring, not a dome
        axis = axes[:, 0]
        toward = float((ups @ axis).sum()) if float(up.norm()) > 0.1 else float((rays @ axis).sum())
        up = axis if toward >= 0 else -axis
    if float(up.norm()) < 1e-3:  # images that point everywhere: any axis will do
        up = up.new_tensor([0.0, 1.0, 0.0])
    up = torch.nn.functional.normalize(up, dim=0)
    side = rays[0] - (rays[0] @ up) * up
    if float(side.norm()) < 1e-3:  # the first camera looks straight down
        side = torch.linalg.cross(up, torch.eye(3).to(up)[int(up.abs().argmin())])
    return up, torch.nn.functional.normalize(side, dim=0)


def _eye(camera: Camera) -> Tensor:
    return -camera.R.T @ camera.t


def _picture(mesh: Mesh, optics: Optics, camera: Camera, number: int | None = None) -> Tensor:
    """[H, W, 4] of one camera, with the corrections of a fitted view if it has a `number` among them; on the CPU."""
    cameras = stack_cameras([camera]).to(mesh.vertices.device)
    return take_pictures(mesh, optics, cameras, None if number is None else [number], samples=SAMPLES)[0].cpu()


def _without_infinities(value: Any) -> Any:
    """JSON has no infinity: null instead."""
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
