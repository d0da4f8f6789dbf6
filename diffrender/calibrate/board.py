"""The chessboard: where its inner corners are."""

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_CORNERS = 3  # along a side: two make a strip, in which lens and slant look alike


@dataclass(frozen=True)
class Board:
    """A chessboard with `columns` x `rows` inner corners, where four squares meet, in squares of side `square`.

    The board's frame: the first inner corner is the origin, x along a row of corners, y along a column, z away from
    the viewer. Lengths, those of the poses too, are in the unit of `square`.

    >>> Board(4, 3, 25.0).points[5]
    tensor([25., 25.,  0.], dtype=torch.float64)
    """

    columns: int
    rows: int
    square: float = 1.0

    def __post_init__(self) -> None:
        if self.columns < MIN_CORNERS or self.rows < MIN_CORNERS:
            raise ValueError(
                f"board must have at least {MIN_CORNERS} inner corners along each side; "
                f"got {self.columns} x {self.rows}"
            )
        if not 0 < self.square < float("inf"):
            raise ValueError(f"square must be a length above 0; got {self.square}")

    @property
    def num_corners(self) -> int:
        return self.columns * self.rows

    @property
    def points(self) -> Tensor:
        """[N, 3] the inner corners, row by row, in float64."""
        y, x = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        flat = torch.stack((x, y, torch.zeros_like(x)), dim=-1).reshape(-1, 3)
        return self.square * flat.to(torch.float64)
