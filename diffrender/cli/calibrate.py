"""`diffrender calibrate`: photographs of a chessboard to a camera."""

import argparse
import sys

from ..calibrate import Board, calibrate_to_folder
from ..calibrate.report import lines, moved_lines
from .outputs import check_folder, report


def run(options: argparse.Namespace) -> None:
    """Find corners, solve, write, report."""
    check_folder("-o", options.output)
    if options.square is not None and options.board is None:
        raise ValueError("--square belongs to --board; a corner file says both itself")
    board = None
    if options.board is not None:
        columns, rows = options.board
        board = Board(columns, rows, 1.0 if options.square is None else options.square)
    result = calibrate_to_folder(
        options.images,
        board,
        options.output,
        model=options.model,
        corners_only=options.corners_only,
        overwrite=options.overwrite,
    )
    print("\n".join(lines(result.by_corners)))
    if result.by_pixels is not None:
        print("\n".join(moved_lines(result.by_corners, result.by_pixels)))
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    report(result.files)
