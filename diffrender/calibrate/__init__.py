"""Calibration: a camera's intrinsics, distortion and poses from photographs of a chessboard."""

from .board import Board
from .corners import Corners, detect, find_corners, load_corners, save_corners
from .judge import doubts
from .lenses import LENSES
from .photometric import refine
from .run import CalibrationResult, calibrate_to_folder
from .solve import Calibration, calibrate

__all__ = [
    "LENSES",
    "Board",
    "Calibration",
    "CalibrationResult",
    "Corners",
    "calibrate",
    "calibrate_to_folder",
    "detect",
    "doubts",
    "find_corners",
    "load_corners",
    "refine",
    "save_corners",
]
