"""Texture from views: the mesh and the light are known, the paint is not.

    python examples/fit_texture.py

Twice: first a colour for each vertex, then an image of 512 x 512 texels on the same surface. Both get their gradients
through the same lookups; the texture can hold detail that is finer than the triangles.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.losses import color_loss, psnr

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=100, help="optimizer steps for each of the two")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# What is known: 20 + 4 pictures with cameras, the shape with its uv, and the light the pictures were taken in.
views = dr.load_dataset(ASSETS / "giraffe")
images, masks, cameras = views.train.load_all()
test_images, test_masks, test_cameras = views.test.load_all()
shape = dr.load_mesh(ASSETS / "giraffe.glb").replace(materials=())
lights = [dr.AmbientLight((0.40, 0.43, 0.50)), dr.DirectionalLight((-0.5, -1.0, -0.6), (0.75, 0.68, 0.55))]
print(f"{len(images)} pictures to fit, {len(test_images)} held out; {shape.num_vertices} vertices, {512 * 512} texels")


def with_vertex_colors(colors: Tensor) -> dr.Mesh:
    return shape.replace(vertex_colors=colors)


def with_texture(texture: Tensor) -> dr.Mesh:
    return shape.replace(materials=(dr.Material("fitted", texture=texture),))


def test_psnr(mesh: dr.Mesh) -> float:
    """PSNR of the held-out pictures, inside of the object, in dB."""
    with torch.no_grad():
        rendered = dr.render(mesh, test_cameras, lights=lights, samples=2)[..., :3]
    return float(psnr(rendered, test_images, mask=test_masks).mean())


def fit(name: str, paint: Tensor, painted: Callable[[Tensor], dr.Mesh]) -> dr.Mesh:
    """Adam on colours, four random pictures at a time; albedo stays in [0, 1]."""
    paint = paint.clone().requires_grad_()
    optimizer = torch.optim.Adam([paint], lr=0.05)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
    for _ in (bar := tqdm(range(args.steps), desc=name)):
        some = torch.randperm(len(images))[:4]
        rendered = dr.render(painted(paint), cameras[some], lights=lights)[..., :3]
        loss = color_loss(rendered, images[some], mask=masks[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        with torch.no_grad():
            paint.clamp_(0, 1)
        bar.set_postfix(loss=f"{loss.item():.4f}")
    return painted(paint.detach())


grey = torch.full((512, 512, 3), 0.3)
start = with_texture(grey)
coloured = fit("vertex colours", grey.new_full((shape.num_vertices, 3), 0.3), with_vertex_colors)
textured = fit("texture", grey, with_texture)

# The picture: a held-out view, nearer than it was taken: grey, vertex colours, texture, truth; then the texture itself.
R, t = dr.look_at((1.35, 0.85, 1.75), (0.17, 0.26, 0.0))
camera = dr.PinholeCamera(365.0, 365.0, 125.0, 125.0, size=(250, 250), R=R, t=t)
truth = dr.load_mesh(ASSETS / "giraffe.glb")
with torch.no_grad():
    panels = [
        dr.render(mesh, camera, lights=lights, background=(0.76, 0.84, 0.93), samples=3)[..., :3]
        for mesh in (start, coloured, textured, truth)
    ]
texels = textured.materials[0].texture
assert texels is not None
sheet = torch.nn.functional.interpolate(dr.to_nchw(texels[None]), size=(250, 250), mode="area")
dr.save_image(args.out / "fit_texture.png", torch.cat([*panels, dr.to_nhwc(sheet)[0]], dim=1))
print(f"wrote {args.out / 'fit_texture.png'}: start, vertex colours, texture, truth; the fitted texture")
print(f"PSNR of held-out pictures with vertex colours: {test_psnr(coloured):.2f} dB")
before, after = test_psnr(start), test_psnr(textured)
print(f"PSNR of held-out pictures with the texture: {before:.2f} dB at the start, {after:.2f} dB at the end")
