"""What is doubtful about a calibration, in sentences that name views and say what to do."""

import re

import torch
from torch import Tensor

from .solve import Calibration

FIELDS = 4  # the image is divided into 4 x 4 of them
EMPTY = 5  # fields without a corner that are too many; the four outermost of a round image are dark
SLANT = 15.0  # degrees: boards that differ by less tell focal length from distance badly
UNCERTAIN = 0.01  # of the focal length, and of the image width for the principal point
BAD_VIEW = 2.5  # times the median of the views' RMS
FEW_VIEWS = 5


def doubts(calibration: Calibration) -> list[str]:
    """Warnings, the worst first; none for a calibration that can be used without further thought."""
    return [
        *_undetermined(calibration),
        *_uncertain(calibration),
        *_views(calibration),
        *_coverage(calibration),
        *_outliers(calibration),
    ]


def _undetermined(calibration: Calibration) -> list[str]:
    names = calibration.corners.names
    said = [re.sub(r"block (\d+)", lambda m: names[int(m[1])], text) for text in calibration.solution.undetermined]
    if not calibration.solution.converged:
        said.append(f"the solver stopped after {calibration.solution.steps} steps without settling")
    return said


def _uncertain(calibration: Calibration) -> list[str]:
    said = []
    values, deviations = calibration.parameters, calibration.deviations
    width = calibration.corners.size[1]
    for name in ("fx", "fy", "cx", "cy"):
        if name in values:
            unit = float(values[name].abs()) if name in ("fx", "fy") else width
            share = float(deviations[name]) / unit
            if UNCERTAIN < share < float("inf"):
                of = "" if name in ("fx", "fy") else " of the image's width"
                said.append(f"{name} is uncertain by {100 * share:.1f} %{of} (one standard deviation)")
    return said


def _views(calibration: Calibration) -> list[str]:
    names, rms = calibration.corners.names, calibration.view_rms
    said = []
    if len(names) < FEW_VIEWS:
        said.append(f"only {len(names)} views: ten or more, slanted and turned differently, are usual")
    normals = calibration.camera.R[..., 2]  # of the board, in the camera frame
    cosines = (normals @ normals.T).abs().clamp(max=1)
    widest = float(torch.rad2deg(torch.arccos(cosines)).max())
    if widest < SLANT:
        said.append(
            f"all boards are parallel to within {widest:.0f} degrees, so focal length and distance are hard to tell "
            "apart: add views where the board is slanted by 30 degrees or more"
        )
    bad = [f"{names[i]} ({float(rms[i]):.2f} px)" for i in (rms > BAD_VIEW * rms.median()).nonzero()[:, 0].tolist()]
    if bad:
        said.append(
            f"views that fit much worse than the others: {', '.join(bad)}; is the board moving, bent or misread?"
        )
    return said


def _coverage(calibration: Calibration) -> list[str]:
    empty = int((field_counts(calibration) == 0).sum())
    if empty < EMPTY:
        return []
    return [
        f"no corner lies in {empty} of {FIELDS * FIELDS} fields of the image, where the lens is extrapolated: "
        "add views with the board near the borders"
    ]


def field_counts(calibration: Calibration) -> Tensor:
    """[FIELDS, FIELDS] how many corners lie in each field, rows from top to bottom."""
    height, width = calibration.corners.size
    xy = calibration.corners.xy[calibration.corners.observed]
    cell = (FIELDS * xy / xy.new_tensor([width, height])).floor().clamp(0, FIELDS - 1).long()
    return torch.bincount(cell[:, 1] * FIELDS + cell[:, 0], minlength=FIELDS * FIELDS).reshape(FIELDS, FIELDS)


def _outliers(calibration: Calibration) -> list[str]:
    counts = calibration.outliers.sum(-1)
    if not bool(counts.any()):
        return []
    names = calibration.corners.names
    listed = ", ".join(f"{names[i]} ({int(counts[i])})" for i in counts.nonzero()[:, 0].tolist())
    return [f"{int(counts.sum())} corners are too far off to be believed, and hardly counted: {listed}"]
