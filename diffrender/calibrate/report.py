"""What a calibration leaves behind: figures, plots, camera files and a picture without distortion."""

import importlib.util
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cameras import FisheyeCamera, OpenCVCamera, PinholeCamera, UnifiedCamera
from ..io.calibration import save_calibration
from ..io.files import atomic_path
from ..io.images import load_image, save_image
from ..io.transforms import save_transforms
from ..reproject import undistort
from .judge import FIELDS, doubts
from .photometric import comparison
from .solve import Calibration

COMPARED = 3  # views in the picture that compares photographs with renderings
ARROW = 0.05  # of the image's width: length of a residual of three standard deviations in the plot


def lines(calibration: Calibration) -> list[str]:
    """The report to read: RMS, parameters with their standard deviations, and every view."""
    height, width = calibration.corners.size
    said = [
        f"{calibration.model}, {width}x{height}: {len(calibration.corners.names)} views, "
        f"{int(calibration.corners.observed.sum())} corners, RMS {calibration.rms:.4f} px"
        + (f", {calibration.believed_rms:.4f} without outliers" if bool(calibration.outliers.any()) else "")
    ]
    for name, value, deviation in _entries(calibration):
        said.append(f"  {name:8} {_digits(value, deviation)} ± {deviation:.2g}")
    for name, rms, outliers in zip(
        calibration.corners.names, calibration.view_rms.tolist(), calibration.outliers.sum(-1).tolist(), strict=True
    ):
        said.append(f"  {name}  RMS {rms:.3f} px" + (f", outliers: {outliers}" if outliers else ""))
    return said


def moved_lines(by_corners: Calibration, by_pixels: Calibration) -> list[str]:
    """What the pixels say beside the corners."""
    shift = torch.linalg.vector_norm(by_pixels.residuals - by_corners.residuals, dim=-1)[by_corners.corners.observed]
    said = [
        f"refined on the pixels: corners moved by {float(shift.square().mean().sqrt()):.3f} px, "
        f"and are {by_pixels.rms:.4f} px from where they were found"
    ]
    for (name, value, deviation), (_, before, _) in zip(_entries(by_pixels), _entries(by_corners), strict=True):
        said.append(f"  {name:8} {_digits(value, deviation)} ± {deviation:.2g}  (moved by {value - before:+.2g})")
    return said


def _digits(value: float, deviation: float) -> str:
    """The number with as many digits as its standard deviation leaves it, and one more."""
    digits = 1 - math.floor(math.log10(deviation)) if 0 < deviation < math.inf else 6
    return f"{value:.{max(digits, 0)}f}"


def _entries(calibration: Calibration) -> list[tuple[str, float, float]]:
    """Name, value and standard deviation of every number of the lens."""
    rows = []
    for name, value in calibration.parameters.items():
        flat, deviations = value.reshape(-1).tolist(), calibration.deviations[name].reshape(-1).tolist()
        for i, (number, deviation) in enumerate(zip(flat, deviations, strict=True)):
            rows.append((name if value.ndim == 0 else f"{name}[{i}]", number, deviation))
    return rows


def metrics(calibration: Calibration) -> dict[str, Any]:
    """What `metrics.json` holds."""
    import diffrender  # here, because the package may import this module

    camera, solution = calibration.camera, calibration.solution
    rows = zip(calibration.corners.names, calibration.view_rms, calibration.outliers, camera.R, camera.t, strict=True)
    return {
        "model": calibration.model,
        "size": list(calibration.corners.size),
        "board": [calibration.board.columns, calibration.board.rows],
        "square": calibration.board.square,
        "rms": calibration.rms,
        "rms_without_outliers": calibration.believed_rms,
        "parameters": {name: value.tolist() for name, value in calibration.parameters.items()},
        "standard_deviations": {name: _finite(value.tolist()) for name, value in calibration.deviations.items()},
        "covariance": _finite(solution.covariance.tolist()),
        "views": [
            {
                "name": name,
                "rms": float(rms),
                "outliers": outliers.nonzero()[:, 0].tolist(),
                "R": R.tolist(),
                "t": t.tolist(),
            }
            for name, rms, outliers, R, t in rows
        ],
        "warnings": doubts(calibration),
        "steps": solution.steps,
        "ended_by": solution.reasons[0],
        "versions": {
            "diffrender": diffrender.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: null instead."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if math.isfinite(value) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def camera_entries(calibration: Calibration) -> dict[str, Any]:
    """The camera as `diffrender render --camera` reads it."""
    height, width = calibration.corners.size
    model = "opencv" if calibration.model == "rational" else calibration.model
    values = {name: value.tolist() for name, value in calibration.parameters.items()}
    return {"model": model, "width": width, "height": height, **values}


def write_storage(path: Path, calibration: Calibration) -> bool:
    """The lens and all poses in OpenCV's format; False, and nothing written, where that has no such lens."""
    known = isinstance(calibration.lens, PinholeCamera | OpenCVCamera | FisheyeCamera | UnifiedCamera)
    if known:
        save_calibration(path, calibration.camera)
    return known


def write_transforms(path: Path, calibration: Calibration) -> bool:
    """All views in NeRF's format; False, and nothing written, where that does not know the model."""
    lens = calibration.lens
    known = isinstance(lens, PinholeCamera | FisheyeCamera) or (
        isinstance(lens, OpenCVCamera) and lens.dist.shape[-1] <= 5
    )
    if known:
        cameras = [calibration.camera[i] for i in range(len(calibration.corners.names))]
        save_transforms(path, calibration.corners.names, cameras)
    return known


def write_plots(path: Path, calibration: Calibration) -> bool:
    """Four plots of the residuals; False, and nothing written, without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    (image, cloud), (bars, radial) = figure.subplots(2, 2)
    seen = calibration.corners.observed
    xy, missed = calibration.corners.xy[seen], calibration.residuals[seen]
    outlying = calibration.outliers[seen]
    view = torch.arange(len(seen))[:, None].expand_as(seen)[seen]
    usual = float(missed.square().sum(-1).median().sqrt()) or 1.0
    _plot_image(image, calibration, xy, missed, view, usual)
    _plot_cloud(cloud, missed[~outlying], view[~outlying], usual)
    bars.barh(calibration.corners.names, calibration.view_rms.tolist(), color="tab:blue")
    bars.axvline(calibration.rms, color="black", linewidth=1, label=f"all: {calibration.rms:.3f}")
    bars.set(xlabel="RMS, pixels", title="views")
    bars.invert_yaxis()
    bars.legend()
    _plot_radial(radial, calibration, xy[~outlying], missed[~outlying], view[~outlying])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return True


def _plot_image(axes: Any, calibration: Calibration, xy: Tensor, missed: Tensor, view: Tensor, usual: float) -> None:
    height, width = calibration.corners.size
    enlarged = ARROW * width / (3 * usual)
    axes.quiver(
        *xy.T.tolist(), *missed.T.tolist(), view.tolist(), angles="xy", scale_units="xy", scale=1 / enlarged,
        cmap="turbo", width=0.002,
    )  # fmt: skip
    outliers = calibration.corners.xy[calibration.outliers]
    axes.plot(*outliers.T.tolist(), "o", markerfacecolor="none", markeredgecolor="red", markersize=9)
    for i in range(1, FIELDS):
        axes.axvline(width * i / FIELDS, color="lightgrey", linewidth=0.5)
        axes.axhline(height * i / FIELDS, color="lightgrey", linewidth=0.5)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_title(f"residuals, enlarged {enlarged:.0f} times" + ("; red: outliers" if len(outliers) else ""))


def _plot_cloud(axes: Any, missed: Tensor, view: Tensor, usual: float) -> None:
    axes.scatter(*missed.T.tolist(), c=view.tolist(), cmap="turbo", s=5)
    limit = 5 * usual
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="x, pixels", ylabel="y, pixels")
    axes.set_title("predicted minus found; colours are views")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.axvline(0, color="grey", linewidth=0.5)


def _plot_radial(axes: Any, calibration: Calibration, xy: Tensor, missed: Tensor, view: Tensor) -> None:
    """What the model cannot bend shows as a wave here."""
    values = calibration.parameters
    outward = xy - torch.stack((values["cx"], values["cy"]))
    radius = torch.linalg.vector_norm(outward, dim=-1)
    along = (outward * missed).sum(-1) / radius.clamp(min=1e-9)
    axes.scatter(radius.tolist(), along.tolist(), c=view.tolist(), cmap="turbo", s=5)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="distance from the principal point, pixels", ylabel="outward residual, pixels")
    axes.set_title("a wave here is what the model cannot bend")


def write_preview(path: Path, calibration: Calibration, photograph: Path) -> None:
    """The photograph, and beside it what a pinhole camera would have seen: all of it, or 75 degrees from the axis."""
    image = load_image(photograph)[..., :3]
    straight, _, _ = undistort(image, calibration.lens.to(dtype=image.dtype), alpha=1.0)
    save_image(path, torch.cat((image, straight), dim=1).clamp(0, 1))


def write_comparison(path: Path, calibration: Calibration, photographs: Sequence[Path]) -> None:
    """The first views of a refined calibration: photograph, rendering, difference."""
    save_image(path, comparison(calibration, photographs, COMPARED).clamp(0, 1))
