"""Three meshes, three cameras, one call: `render` does not care how a camera bends its rays.

    python examples/render_mesh.py

A pinhole, a fisheye and an orthographic camera look at the same scene. A check against closed forms comes first: a
sphere on the axis of each of them covers a disk whose area is known.
"""

import argparse
import math
from pathlib import Path

import torch
from tqdm import tqdm

import diffrender as dr

ASSETS = Path(__file__).resolve().parents[1] / "assets"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
parser.add_argument("--steps", type=int, default=3, help="samples per pixel and direction: 1 is quick")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

# The scene: assets of three kinds (one texture, four materials, vertex colours) on a chequered floor. A mesh is plain
# data; `replace` moves it, `join` makes one of many.
SIZE = (380, 380)  # height, width
FLOOR = -1.012


def placed(mesh: dr.Mesh, scale: float, position: tuple[float, float, float]) -> dr.Mesh:
    return mesh.replace(vertices=scale * mesh.vertices + torch.tensor(position))


row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
squares = torch.where(((row + column) % 2 == 0)[..., None], torch.tensor([0.50, 0.56, 0.60]), torch.tensor([0.8] * 3))
floor = dr.grid(16, 16).replace(
    materials=(dr.Material("floor", texture=squares.repeat_interleave(16, 0).repeat_interleave(16, 1)),),
)
floor = floor.replace(vertices=2.6 * floor.vertices @ torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
scene = dr.join(
    [
        placed(floor, 1.0, (0.0, FLOOR, 0.0)),
        placed(dr.load_mesh(ASSETS / "giraffe.glb"), 1.0, (0.0, 0.0, 0.0)),
        placed(dr.load_mesh(ASSETS / "teapot.obj"), 0.55, (-1.05, FLOOR + 0.55 * 0.626, 0.8)),
        placed(dr.load_mesh(ASSETS / "knot.ply"), 0.45, (1.15, FLOOR + 0.45 * 1.15, 0.55)),
    ]
)
print(f"the scene has {scene.num_faces} faces, {len(scene.materials)} materials, bounds {scene.bounds().tolist()}")

# The cameras: parameters in pixels, pose from `look_at`. The fisheye comes close and sees 140 degrees across.
R, t = dr.look_at((1.3, 0.9, 5.2), (-0.05, -0.2, 0.0))
pinhole = dr.PinholeCamera(545.0, 545.0, 190.0, 190.0, size=SIZE, R=R, t=t)
R, t = dr.look_at((0.35, 0.35, 1.35), (-0.03, -0.25, 0.0))
fisheye = dr.FisheyeCamera(161.0, 161.0, 190.0, 190.0, k=(-0.02, 0.0, 0.0, 0.0), size=SIZE, R=R, t=t)
R, t = dr.look_at((3.0, 3.2, 4.5), (0.05, -0.25, 0.1))
orthographic = dr.OrthographicCamera(105.0, 105.0, 190.0, 190.0, size=SIZE, R=R, t=t)

# The check: a unit sphere at distance d fills a disk of radius f tan(a), f a or f, with sin(a) = 1 / d.
sphere, distance, focal = dr.sphere(5), 3.0, 60.0
angle = math.asin(1 / distance)
worst = 0.0
for kind, radius in (
    (dr.PinholeCamera, focal * math.tan(angle)),
    (dr.FisheyeCamera, focal * angle),
    (dr.OrthographicCamera, focal),
):
    check = kind(focal, focal, 64.0, 64.0, size=(128, 128), t=(0.0, 0.0, distance))
    area = float(dr.render(sphere, check)[..., -1].sum())
    exact = math.pi * radius**2
    worst = max(worst, abs(area / exact - 1))
    print(f"{kind.__name__:20s} the sphere covers {area:9.2f} pixels, by its formula {exact:9.2f}")

# The picture. Light is ambient and from a sun; more than one sample per pixel because the texture is finer than pixels.
lights = [dr.AmbientLight((0.42, 0.45, 0.52)), dr.DirectionalLight((-0.5, -1.0, -0.6), (0.70, 0.64, 0.52))]
panels = []
for camera in (bar := tqdm((pinhole, fisheye, orthographic))):
    bar.set_description(type(camera).__name__)
    image = dr.render(scene, camera, lights=lights, samples=args.steps, background=(0.76, 0.84, 0.93))
    panels.append(image[..., :3])
dr.save_image(args.out / "render_mesh.png", torch.cat(panels, dim=1))
print(f"wrote {args.out / 'render_mesh.png'}: pinhole, fisheye, orthographic")
print(f"largest error of a covered area: {worst:.1e} (the mesh of the sphere lies inside of it)")
