"""Fitting: photographs and cameras in, a mesh with colours out."""

from .run import fit
from .settings import FitResult, FitSettings

__all__ = ["FitResult", "FitSettings", "fit"]
