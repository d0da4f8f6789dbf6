"""Shape from shading: a ball becomes a moon with craters, which no silhouette shows.

    python examples/fit_shading.py

The outline of a crater's floor is inside of the outline of the moon, from everywhere: silhouettes give the visual hull
and nothing more. Shaded images do: how bright a surface is says how it is turned to the light, in every pixel. Three
fits of the same pictures, from the same ball: to the silhouettes, to the images under a sun, to the images under a
whole sky, given by its spherical harmonics. The light and the grey of the surface are known.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.distances import chamfer_distance, sample_surface, surface_distance
from diffrender.losses import color_loss, silhouette_loss
from diffrender.optim import AdamUniform, LargeSteps
from diffrender.regularizers import normal_consistency

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=120, help="optimizer steps for each of the three fits")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# The truth: a ball with seven craters. Across one, with r the distance from its middle in radii: a hollow with a steep
# but smooth wall, and a low rim around it.
ball = dr.sphere(5)
sites = [
    [0.2, 0.3, 1],
    [-0.8, 0.1, 0.5],
    [0.9, -0.2, 0.2],
    [0, 1, 0.1],
    [0.1, -0.9, 0.4],
    [-0.3, 0.3, -1],
    [0.5, -0.3, -0.8],
]
radii = torch.tensor([0.42, 0.30, 0.36, 0.40, 0.32, 0.45, 0.28])
r = torch.acos((ball.vertices @ torch.nn.functional.normalize(torch.tensor(sites), dim=-1).T).clamp(-1, 1)) / radii
height = radii * (0.1 * torch.exp(-((r - 1.15) / 0.2).square()) - 0.5 * (1 - 0.4 * r * r) * torch.sigmoid(12 * (1 - r)))
moon = dr.Mesh(ball.vertices * (1 + height.sum(-1, keepdim=True)), ball.faces)

# Eighteen cameras on three rings, and two kinds of light. A surface is as bright as light arrives, times its grey.
rings = [dr.orbit_poses(6, distance=4.0, elevation=angle) for angle in (50.0, 0.0, -50.0)]
R, t = (torch.cat(part) for part in zip(*rings, strict=True))
cameras = dr.PinholeCamera(200.0, 200.0, 64.0, 64.0, size=(128, 128), R=R, t=t)
sun = [
    dr.AmbientLight((0.10, 0.11, 0.14)),
    dr.DirectionalLight((-1.0, -0.8, -0.6), (0.8, 0.75, 0.65)),
    dr.DirectionalLight((1.0, 0.5, 0.4), (0.25, 0.35, 0.55)),
]
sky = [
    dr.SphericalHarmonicsLight(
        torch.tensor(  # 00; 1-1, 10, 11; 2-2, 2-1, 20, 21, 22: bright and blue above, warm from one side
            [[1.5, 1.5, 1.5], [0.4, 0.8, 1.2], [0.9, 0.3, -0.3], [1.1, 0.5, -0.2]]
            + [[0.5, 0.1, -0.3], [0.1, 0.3, 0.6], [-0.4, 0.2, 0.3], [0.6, 0.0, -0.5], [-0.3, 0.2, 0.6]]
        )
    )
]


def look(mesh: dr.Mesh, lights: list, views: dr.Camera) -> Tensor:
    return dr.render(mesh, views, lights=lights, intersecting=False)


def normal_error(mesh: dr.Mesh) -> float:
    """Mean angle in degrees between the normal of the truth and that of the nearest point of `mesh`."""
    points, face = sample_surface(moon, 2000)
    on_mesh, its_face = sample_surface(mesh, 20_000)
    nearest = torch.cat([torch.cdist(some, on_mesh).argmin(-1) for some in points.split(500)])
    cosine = (moon.face_normals()[face] * mesh.face_normals()[its_face[nearest]]).sum(-1)
    return math.degrees(float(cosine.clamp(-1, 1).acos().mean()))


def fit(name: str, lights: list) -> dr.Mesh:
    """Large steps from a ball; without lights from silhouettes alone."""
    with torch.no_grad():
        pictures = look(moon, lights, cameras)
    mesh = dr.sphere(4)
    large_steps = LargeSteps(mesh.topology, smoothness=8.0)
    u = large_steps.to_differential(mesh.vertices).requires_grad_()
    optimizer = AdamUniform([u], lr=0.06)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=args.steps)
    for _ in (bar := tqdm(range(args.steps), desc=name)):
        some = torch.randperm(len(pictures))[:4]
        mesh = mesh.replace(vertices=large_steps.to_vertices(u))
        image = look(mesh, lights, cameras[some])
        loss = silhouette_loss(image[..., 3], pictures[some, ..., 3]) + 0.003 * normal_consistency(mesh)
        if lights:
            loss = loss + color_loss(image[..., :3], pictures[some, ..., :3])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        bar.set_postfix(loss=f"{loss.item():.5f}")
    return mesh.replace(vertices=large_steps.to_vertices(u).detach())


fits = {"silhouettes": fit("silhouettes", []), "sun": fit("under a sun", sun), "sky": fit("under a sky", sky)}

# The picture: above, images of the truth and of the fits under a light that was not used, from where no camera stood;
# below, how far each surface is from the truth: white is 0, dark red is 0.1 or more.
R, t = dr.look_at((0.9, 0.9, 3.6))
camera = dr.PinholeCamera(420.0, 420.0, 125.0, 125.0, size=(250, 250), R=R, t=t)
grazing = [dr.AmbientLight((0.15, 0.15, 0.18)), dr.DirectionalLight((-1.0, -0.3, -0.3), (0.75, 0.7, 0.62))]
columns = []
for mesh in (moon, dr.sphere(4), *fits.values()):
    away = surface_distance(mesh.vertices, moon)[:, None] / 0.1
    heat = mesh.replace(vertex_colors=torch.cat([1 - 0.3 * away, 1 - away, 1 - away], dim=-1).clamp(0, 1))
    with torch.no_grad():
        shaded = dr.render(mesh, camera, lights=grazing, background=0.85, samples=3)
        heated = dr.render(heat, camera, background=0.85, samples=3)
    columns.append(torch.cat([shaded, heated])[..., :3])
dr.save_image(args.out / "fit_shading.png", torch.cat(columns, dim=1))
print(f"wrote {args.out / 'fit_shading.png'}: truth, start, fits to silhouettes, under a sun, under a sky; errors")
for name, mesh in {"start": dr.sphere(4), **fits}.items():
    angle = normal_error(mesh)
    print(f"{name:>11s}: {chamfer_distance(mesh, moon):.4f} radii from the truth, normals off by {angle:.1f} degrees")
