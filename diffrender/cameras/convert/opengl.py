"""Cameras from and to OpenGL's matrices.

- Axes: eye space has x to the right, y up, and looks along -z: y and z are turned. Matrices work on columns.
- Half pixel: none. Clip coordinates of -1 to 1 are the edges of the image: window x = (x / w + 1) W / 2 is our x, and
  window y, counted from below, is H - y.
- Depth from -1 at `near` to 1 at `far` (not Vulkan's or Direct3D's 0 to 1).

Source: the OpenGL 4.6 specification, section 13.8 (window coordinates); its `glFrustum`, `glOrtho` of version 2.1.
"""

import torch
from torch import Tensor

from diffrender.cameras.base import Camera
from diffrender.cameras.orthographic import OrthographicCamera
from diffrender.cameras.pinhole import PinholeCamera
from diffrender.checks import check_tensor, shape_of


def to_opengl(camera: Camera, *, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Projection and view matrices [*batch, 4, 4] of a pinhole or orthographic camera, differentiable.

    Args:
        camera: its principal point may be anywhere.
        near, far: the depths that become -1 and 1 in clip space; 0 < near < far (near may be 0 or less where rays are
            parallel).

    >>> projection, view = to_opengl(PinholeCamera(10.0, 10.0, 8.0, 6.0, size=(12, 16)), near=1.0, far=3.0)
    >>> (projection @ view @ torch.tensor([0.8, 0.6, 1.0, 1.0])).tolist()  # the lower right corner, near
    [1.0, -1.0, -1.0, 1.0]
    """
    perspective = type(camera) is PinholeCamera
    if not (perspective or type(camera) is OrthographicCamera):
        raise TypeError(f"camera must be a pinhole or orthographic one; OpenGL's matrices hold no {camera!r}")
    assert isinstance(camera, (PinholeCamera, OrthographicCamera))
    if not near < far or (perspective and near <= 0):
        raise ValueError(f"near and far must be growing depths, above 0 for a pinhole; got {near} and {far}")
    zero, one = torch.zeros_like(camera.fx), torch.ones_like(camera.fx)
    middle_x, middle_y = 2 * camera.cx / camera.width - 1, 1 - 2 * camera.cy / camera.height
    if perspective:  # clip = (..., -z): what is added to x / w is multiplied with -z
        third = (-(far + near) / (far - near), -2 * far * near / (far - near))
        last, columns = (zero, zero, -one, zero), (-middle_x, zero, -middle_y, zero)
    else:
        third = (-2 / (far - near), -(far + near) / (far - near))
        last, columns = (zero, zero, zero, one), (zero, middle_x, zero, middle_y)
    rows = (
        (2 * camera.fx / camera.width, zero, columns[0], columns[1]),
        (zero, 2 * camera.fy / camera.height, columns[2], columns[3]),
        (zero, zero, third[0] * one, third[1] * one),
        last,
    )
    projection = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    top = torch.cat((camera.R, camera.t[..., None]), dim=-1) * camera.R.new_tensor([1.0, -1.0, -1.0])[:, None]
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(top[..., :1, :])
    return projection, torch.cat((top, bottom), dim=-2)


def from_opengl(projection: Tensor, view: Tensor, *, size: tuple[int, int]) -> PinholeCamera | OrthographicCamera:
    """The camera of projection and view matrices [*batch, 4, 4]; near and far are forgotten.

    Args:
        projection: to clip space, perspective or orthographic, without skew; its middle may be anywhere.
        view: from the world to eye space, a rigid motion.
        size: (height, width) of the viewport.

    >>> camera = PinholeCamera(10.0, 10.0, 7.0, 6.5, size=(12, 16))
    >>> from_opengl(*to_opengl(camera, near=0.1, far=10.0), size=(12, 16))
    PinholeCamera(fx=10, fy=10, cx=7, cy=6.5, size=(12, 16))
    """
    for name, matrix in (("projection", projection), ("view", view)):
        check_tensor(name, matrix, last=4)
        if matrix.shape[-2:] != (4, 4):
            raise ValueError(f"{name} must end in (4, 4); got {shape_of(matrix)}")
    last = projection[..., 3, :].detach()
    perspective = bool((last == last.new_tensor([0.0, 0.0, -1.0, 0.0])).all())
    if not perspective and not bool((last == last.new_tensor([0.0, 0.0, 0.0, 1.0])).all()):
        raise ValueError(
            f"projection must end in the row (0, 0, -1, 0) or (0, 0, 0, 1), eye space looking along -z; got "
            f"{last.reshape(-1, 4)[0].tolist()}: is it transposed?"
        )
    column = 2 if perspective else 3
    unused = projection[..., :2, :].detach().clone()
    unused[..., 0, 0], unused[..., 1, 1], unused[..., column] = 0.0, 0.0, 0.0
    if bool(unused.any()):
        raise ValueError(f"projection must be without skew; got the rows {projection[..., :2, :].tolist()}")
    height, width = size
    sign = -1 if perspective else 1
    cx = (1 + sign * projection[..., 0, column]) * width / 2
    cy = (1 - sign * projection[..., 1, column]) * height / 2
    fx, fy = projection[..., 0, 0] * width / 2, projection[..., 1, 1] * height / 2
    flip = view.new_tensor([1.0, -1.0, -1.0])
    R, t = view[..., :3, :3] * flip[:, None], view[..., :3, 3] * flip
    model = PinholeCamera if perspective else OrthographicCamera
    return model(fx, fy, cx, cy, size=size, R=R, t=t)
