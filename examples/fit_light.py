"""Albedo and light apart: what of a colour is paint, and what is light?

    python examples/fit_light.py

A matte surface shows albedo times the light that arrives, and one picture cannot tell a dark paint from a shadow. Nor
can pictures from all around, for a matte surface looks the same from everywhere. So the teapot is turned under a light
that stays: every piece of paint is seen under the light of many directions, and every direction lights many paints.
What remains is one factor for each colour channel, twice the paint under half the light. It is fixed by a colour that
is known, as photographers do with a grey card: here, the brass of the knob. The light is an environment, given by its
spherical harmonics up to order two: 27 numbers. The camera stays, too, so that no picture shows a surface that faces
away from it: what the light from behind is like, these numbers guess from the rest.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.losses import color_loss, psnr

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# The truth: a teapot of four materials, turned in sixteen ways, under a coloured sky.
truth = dr.load_mesh(ASSETS / "teapot.obj")
true_light = torch.tensor(  # rows 00; 1-1, 10, 11; 2-2, 2-1, 20, 21, 22
    [[2.3, 2.4, 2.6], [0.9, 1.1, 1.4], [0.7, 0.5, 0.3], [0.9, 0.5, 0.1]]
    + [[0.3, 0.1, -0.2], [0.1, 0.2, 0.4], [-0.3, 0.1, 0.2], [0.4, 0.0, -0.3], [-0.2, 0.1, 0.3]]
)
rotations = dr.so3_exp(torch.randn(16, 3))
R, t = dr.look_at((0.0, 0.6, 4.2))
camera = dr.PinholeCamera(240.0, 240.0, 80.0, 80.0, size=(160, 160), R=R, t=t)


def look(mesh: dr.Mesh, turns: Tensor, light: Tensor | None, samples: int = 1) -> Tensor:
    """[N, H, W, 4] of the mesh turned by each of `turns` [N, 3, 3]; without light, its albedo."""
    turned = [mesh.replace(vertices=mesh.vertices @ turn.mT) for turn in turns]
    lights = None if light is None else [dr.SphericalHarmonicsLight(light)]
    return dr.render(turned, camera, lights=lights, samples=samples, intersecting=False)


with torch.no_grad():
    photographs = look(truth, rotations, true_light, 2)

# The unknowns: grey paint under white light from everywhere.
light = torch.zeros(9, 3)
light[0] = math.sqrt(4 * math.pi)
light.requires_grad_()
names = [material.name for material in truth.materials]
true_paints = [m.base_color if m.texture is None else m.texture for m in truth.materials]
paints = [torch.full_like(paint, 0.4).requires_grad_() for paint in true_paints if paint is not None]


def painted() -> dr.Mesh:
    """The teapot with the paints as they are now."""
    materials = []
    for name, paint in zip(names, paints, strict=True):
        now = paint.detach().clone() if not torch.is_grad_enabled() else paint
        materials.append(dr.Material(name, base_color=now) if now.ndim == 1 else dr.Material(name, texture=now))
    return truth.replace(materials=tuple(materials))


def light_error(found: Tensor, *, seen: bool) -> float:
    """Root mean square difference of what arrives on surfaces that face the camera, or on those that face away,
    relative to the true light's."""
    normals = dr.sphere(3).vertices
    normals = normals[(normals @ camera.center > 0) == seen]
    arriving, wanted = (dr.SphericalHarmonicsLight(c).irradiance(normals, normals) for c in (found, true_light))
    return float((arriving - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


with torch.no_grad():
    start, start_error = painted(), light_error(light, seen=True)
optimizer = torch.optim.Adam([{"params": paints, "lr": 0.03}, {"params": [light], "lr": 0.05}], betas=(0.9, 0.99))
slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.03, total_iters=args.steps)
for _ in (bar := tqdm(range(args.steps), desc="paint and light")):
    some = torch.randperm(len(rotations))[:4]
    image = look(painted(), rotations[some], light)
    loss = color_loss(image[..., :3], photographs[some, ..., :3])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    slower.step()
    with torch.no_grad():
        for paint in paints:
            paint.clamp_(min=0.01)
    bar.set_postfix(loss=f"{loss.item():.5f}")

# The factor that is left, for each channel: what makes the knob the brass that it is.
with torch.no_grad():
    brass = names.index("brass")
    factor = true_paints[brass] / paints[brass]
    for paint in paints:
        paint *= factor
    light /= factor

# The picture: a new pose, as photographed; its albedo, true, found and their difference; light on a white ball, true
# and found.
new = dr.so3_exp(torch.tensor([[0.3, -0.5, 0.1], [-0.4, 2.5, 0.3], [1.2, 0.4, -0.6]]))
with torch.no_grad():
    found_light = light.detach()
    albedos = [look(mesh, new, None, 3) for mesh in (truth, start, painted())]
    pictures = [look(mesh, new, lit, 3) for mesh, lit in ((truth, true_light), (painted(), found_light))]
    ball = dr.sphere(4).replace(vertices=1.1 * dr.sphere(4).vertices)
    balls = [look(ball, torch.eye(3)[None], lit, 3)[0, ..., :3] for lit in (true_light, found_light)]
white = [image[0, ..., :3] + 0.9 * (1 - image[0, ..., 3:]) for image in (*pictures, *albedos)]
difference = 1 - 4 * (white[4] - white[2]).abs()
dr.save_image(args.out / "fit_light.png", torch.cat([*white, difference, *balls], dim=1))
print(f"wrote {args.out / 'fit_light.png'}: a new pose, true and found; its albedo, true, at the start, found, 4 x the")
print("difference (white: none); the light on a white ball, true and found")
before, after = (float(psnr(a[..., :3], albedos[0][..., :3], mask=albedos[0][..., 3]).mean()) for a in albedos[1:])
print(f"light off by {start_error:.1%} at the start, {light_error(found_light, seen=True):.2%} at the end")
hidden = light_error(found_light, seen=False)
print(f"light on what faces away from the camera, which no picture shows: off by {hidden:.1%}")
print(f"PSNR of the albedo in new poses: {before:.2f} dB at the start, {after:.2f} dB at the end")
