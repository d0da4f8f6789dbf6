"""`diffrender render`: a mesh file to a picture or a turntable."""

import argparse
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from ..cameras import Camera
from ..io.images import decode_srgb, save_animation, save_image
from ..io.meshes import load_mesh
from ..mesh import Mesh
from ..render import Shader, render
from ..shading import AmbientLight, DirectionalLight, Lambert, Light, unlit
from .cameras import turntable_cameras
from .outputs import check_output, report

POINTS_AT_ONCE = 2**21  # look-ups of the surface in one call of `render`, which bounds its memory to about 1 GB
FPS = 20.0

# What shines where, in the camera's frame (x right, y down, z forward): lights stay with the camera while the model
# turns. A white surface that faces the key light is just below white.
AMBIENT = 0.3
KEY = ((0.5, 0.65, 0.75), 0.65)
FILL = ((-0.8, 0.1, 0.6), 0.1)


def run(options: argparse.Namespace) -> None:
    """Load, place the camera, render, write."""
    if options.output is None and options.turntable is None:
        raise ValueError("nothing to write: give -o IMAGE, --turntable FILE or both")
    _check_outputs(options)
    mesh = load_mesh(options.model)
    written = []
    with torch.no_grad():
        cameras = turntable_cameras(options, mesh, options.frames if options.turntable else 1)
        if options.output is not None:
            save_image(options.output, _still(options, mesh, cameras[0]))
            written.append(options.output)
        if options.turntable is not None:
            save_animation(options.turntable, _frames(options, mesh, cameras), FPS)
            written.append(options.turntable)
    report(written)


def _check_outputs(options: argparse.Namespace) -> None:
    """Before the work, so that nobody waits for an error."""
    if options.output is not None:
        check_output("-o", options.output, (".png", ".jpg", ".jpeg", ".npy"), overwrite=options.overwrite)
    if options.turntable is not None:
        check_output("--turntable", options.turntable, (".gif", ".mp4"), overwrite=options.overwrite)
    opaque = [
        p for p in (options.output, options.turntable) if p is not None and p.suffix.lower() not in (".png", ".npy")
    ]
    if options.background is None and opaque:
        raise ValueError(f"--background transparent needs a .png or .npy picture; {opaque[0]} holds no alpha")


def _still(options: argparse.Namespace, mesh: Mesh, camera: Camera) -> Tensor:
    """[H, W, 3], or [H, W, 4] with straight alpha where the background is transparent."""
    image = _picture(options, mesh, camera)
    if not bool((image[..., 3] > 0).any()):
        warnings.warn("nothing of the model is in the picture: check --eye, --target and the camera", stacklevel=2)
    if options.background is not None:
        return image[..., :3]
    alpha = image[..., 3:]
    # Where nothing is, no colour is either; the bound only avoids 0 / 0.
    return torch.cat([image[..., :3] / alpha.clamp_min(torch.finfo(alpha.dtype).tiny), alpha], dim=-1)


def _frames(options: argparse.Namespace, mesh: Mesh, cameras: Camera) -> Iterator[Tensor]:
    for i in tqdm(range(len(cameras.R)), desc=str(options.turntable), unit="frame", leave=False, file=sys.stderr):
        yield _picture(options, mesh, cameras[i])[..., :3]


def _picture(options: argparse.Namespace, mesh: Mesh, camera: Camera) -> Tensor:
    """[H, W, 4] rendered band by band."""
    background = torch.tensor(options.background or (0.0, 0.0, 0.0))
    shader = _shader(options, camera)
    rows = max(1, POINTS_AT_ONCE // (camera.width * options.samples**2))
    bands = [
        render(
            mesh,
            camera.crop(top, 0, min(rows, camera.height - top), camera.width),
            background=decode_srgb(background),
            shader=shader,
            samples=options.samples,
        )
        for top in range(0, camera.height, rows)
    ]
    return torch.cat(bands)


def _shader(options: argparse.Namespace, camera: Camera) -> Shader:
    if options.unlit:
        return unlit
    return Lambert(studio_lights(camera), normals="flat" if options.flat else "smooth")


def studio_lights(camera: Camera) -> list[Light]:
    """Soft light from everywhere, a key light from above left and a weak one from the right of the camera."""
    lights: list[Light] = [AmbientLight((AMBIENT,) * 3)]
    for direction, strength in (KEY, FILL):
        lights.append(DirectionalLight(camera.R.new_tensor(direction) @ camera.R, (strength,) * 3))
    return lights
