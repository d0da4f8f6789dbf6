"""Fitting: photographs and cameras in, a mesh with colours out."""

from pathlib import Path

from ..io.datasets import ImageSet
from .settings import FitResult, FitSettings

__all__ = ["FitResult", "FitSettings", "fit"]


def fit(
    images: ImageSet,
    out: Path,
    settings: FitSettings = FitSettings(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a mesh to `images` and write what came of it into the folder `out`.

    Raises FileExistsError where `out` holds files already and neither `resume` nor `overwrite` is given, and
    KeyboardInterrupt where it was interrupted, after it has written a checkpoint and the mesh as it stood.
    """
    raise NotImplementedError
