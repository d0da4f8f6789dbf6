"""Makes everything in this folder: four meshes and an image set, all procedural, the same bits on every run.

    python assets/make_assets.py

- `giraffe.glb`: a calf on thin legs, the isosurface of blended capsules, with a baked texture and its seams;
- `teapot.obj` (and .mtl, .png): surfaces of revolution and swept tubes with four materials, two of them textured;
- `knot.ply`: a fluted torus knot with vertex colours;
- `quadruped.ply`: a plain animal on four legs, without colours, a template to deform;
- `giraffe/`: 20 + 4 views of the giraffe under two lights, with poses (`transforms.json`, `transforms_test.json`);
- `../docs/images/giraffe_views.png`: all of these on one sheet.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor
from tqdm import tqdm

import diffrender as dr
from diffrender.io.files import atomic_path
from diffrender.isosurface import surface_nets
from diffrender.subdivide import smooth

FOLDER = Path(__file__).resolve().parent
GRID_STEP = 0.03  # of the giraffe's isosurface: about 17 000 faces
TEXTURE_SIZE = 1024
GUTTER = 3  # texels that each chart of the atlas is bled out by, so that filtering does not see its neighbours

VIEWS, TEST_VIEWS = 20, 4
IMAGE_SIZE = 200
FOCAL = 280.0  # pixels: 39 degrees across
DISTANCE = 3.4
SAMPLES = 3  # squared: samples per pixel
LIGHTS = [
    dr.AmbientLight((0.40, 0.43, 0.50)),
    dr.DirectionalLight((-0.5, -1.0, -0.6), (0.75, 0.68, 0.55)),
]


def main() -> None:
    steps: list[tuple[str, Callable[[], None]]] = [
        ("giraffe.glb", lambda: dr.save_mesh(FOLDER / "giraffe.glb", giraffe())),
        ("teapot.obj", lambda: dr.save_mesh(FOLDER / "teapot.obj", teapot())),
        ("knot.ply", lambda: dr.save_mesh(FOLDER / "knot.ply", knot())),
        ("quadruped.ply", lambda: dr.save_mesh(FOLDER / "quadruped.ply", quadruped())),
        ("giraffe/", lambda: save_views(FOLDER / "giraffe", dr.load_mesh(FOLDER / "giraffe.glb"))),
        ("docs/images/giraffe_views.png", lambda: save_sheet(FOLDER.parent / "docs/images/giraffe_views.png")),
    ]
    for name, make in (bar := tqdm(steps)):
        bar.set_description(name)
        make()


def srgb(code: str) -> Tensor:
    """[3] linear colour of a web colour such as "#d2a060"."""
    return dr.decode_srgb(torch.tensor([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)], dtype=torch.float64))


# --- the giraffe: an implicit function -----------------------------------------------------------------------------
# It looks along +x, y is up. Every part is a round cone: a segment whose radius changes from end to end, at times
# flattened. Distances are only nearly Euclidean, which is all that an isosurface needs.


def cone(points: Tensor, start: tuple, end: tuple, radius: tuple, flat: tuple = (1.0, 1.0, 1.0)) -> Tensor:
    """[N] signed distance to a segment with a `radius` at each end; `flat` squeezes space around its start."""
    a, b, squeeze = (torch.tensor(v, dtype=points.dtype) for v in (start, end, flat))
    offset, axis = (points - a) / squeeze, (b - a) / squeeze
    along = ((offset @ axis) / (axis @ axis).clamp(min=1e-12)).clamp(0, 1)
    return (offset - along[:, None] * axis).norm(dim=-1) - torch.lerp(
        torch.full_like(along, radius[0]), torch.full_like(along, radius[1]), along
    )


def blend(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Smooth minimum of two distances (Quilez' polynomial)."""
    h = (width - (a - b).abs()).clamp(min=0) / width
    return torch.minimum(a, b) - h * h * width / 4


def mirrored(points: Tensor) -> Tensor:
    """The half with z > 0: left and right are alike."""
    return torch.stack([points[:, 0], points[:, 1], points[:, 2].abs()], dim=-1)


def giraffe_parts(points: Tensor) -> dict[str, Tensor]:
    """Distances [N] to the parts of the giraffe, in the order they are blended in."""
    p = mirrored(points)
    legs = [
        blend(
            cone(p, (x0, 0.02, 0.13), (x1, -0.36, 0.165), (0.135, 0.062)),
            cone(p, (x1, -0.36, 0.165), (x2, -0.80, 0.17), (0.066, 0.050)),
            0.05,
        )
        for x0, x1, x2 in ((0.27, 0.31, 0.30), (-0.38, -0.36, -0.41))
    ]
    hooves = [cone(p, (x, -0.85, 0.17), (x + 0.02, -0.93, 0.17), (0.06, 0.082)) for x in (0.30, -0.41)]
    mane = [
        cone(points, (0.30 + 0.25 * s, 0.52 + 0.55 * s, 0), (0.21 + 0.27 * s, 0.58 + 0.58 * s, 0), (0.06, 0.042))
        for s in torch.linspace(0, 1, 9).tolist()
    ]
    tail = [
        cone(points, (-0.58, 0.18, 0), (-0.78, 0.22, 0.03), (0.06, 0.038)),
        cone(points, (-0.78, 0.22, 0.03), (-0.90, 0.02, 0.08), (0.038, 0.034)),
        cone(points, (-0.90, 0.02, 0.08), (-0.88, -0.22, 0.12), (0.034, 0.034)),
    ]
    return {
        "body": blend(
            cone(points, (-0.36, 0.12, 0), (0.24, 0.16, 0), (0.27, 0.29)),
            cone(points, (0.24, 0.22, 0), (0.40, 0.46, 0), (0.23, 0.17)),
            0.15,
        ),
        "neck": cone(points, (0.40, 0.44, 0), (0.64, 0.98, 0), (0.165, 0.115)),
        "leg": torch.minimum(*legs),
        "head": blend(
            cone(points, (0.68, 1.08, 0), (0.74, 1.06, 0), (0.185, 0.165)),
            cone(points, (0.90, 1.00, 0), (0.99, 0.97, 0), (0.115, 0.112)),
            0.18,
        ),
        "ear": cone(p, (0.60, 1.13, 0.16), (0.50, 1.20, 0.40), (0.060, 0.052), (1.0, 1.0, 1.0)),
        "horn": cone(p, (0.63, 1.20, 0.075), (0.58, 1.42, 0.10), (0.045, 0.036)),
        "knob": cone(p, (0.58, 1.43, 0.10), (0.577, 1.445, 0.102), (0.064, 0.064)),
        "mane": cone(points, (0.30, 0.57, 0), (0.50, 1.06, 0), (0.05, 0.06)),
        "tips": torch.stack(mane).amin(0),
        "tail": torch.stack(tail).amin(0),
        "tuft": cone(points, (-0.88, -0.24, 0.12), (-0.865, -0.37, 0.14), (0.05, 0.066)),
        "hoof": torch.minimum(*hooves),
        "eye": cone(p, (0.765, 1.135, 0.135), (0.765, 1.135, 0.135), (0.064, 0.064)),
    }


BLEND_WIDTH = {"neck": 0.16, "leg": 0.10, "head": 0.10, "ear": 0.04, "horn": 0.05, "tail": 0.06}  # others: crisp
CRISP = 0.015
EAR_HOLLOW = ((0.625, 1.145, 0.19), (0.545, 1.215, 0.40), (0.018, 0.034))
NOSTRIL = ((1.075, 1.04, 0.055), (1.075, 1.04, 0.055), (0.03, 0.03))


def giraffe_distance(points: Tensor) -> Tensor:
    """[N] negative inside of the blended parts, with hollow ears and nostrils."""
    total = None
    for name, part in giraffe_parts(points).items():
        total = part if total is None else blend(total, part, BLEND_WIDTH.get(name, CRISP))
    assert total is not None
    for carve in (EAR_HOLLOW, NOSTRIL):
        total = -blend(-total, cone(mirrored(points), *carve), 0.02)
    return total


def giraffe() -> dr.Mesh:
    """The calf, two units high, with an atlas and its texture."""
    low = torch.tensor([-1.1, -1.1, -0.6], dtype=torch.float64)
    axes = [
        start + GRID_STEP * torch.arange(math.ceil(n / GRID_STEP), dtype=torch.float64)
        for start, n in zip(low, (2.4, 2.7, 1.2), strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    values = -giraffe_distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    mesh = smooth(surface_nets(values, origin=low, step=GRID_STEP), iterations=3)
    mesh = mesh.replace(vertices=onto_surface(mesh.vertices))
    charts = charts_of(mesh)
    uvs, uv_faces = atlas(mesh, charts)
    positions, covered = baked_positions(mesh.vertices, mesh.faces, uvs, uv_faces)
    positions[covered] = giraffe_color(positions[covered])
    texture = bled(positions, covered)
    center = torch.tensor([0.05, 0.25, 0.0], dtype=torch.float64)
    return dr.Mesh(
        (0.8 * (mesh.vertices - center)).float(),
        mesh.faces,
        uvs.float(),
        uv_faces,
        materials=(dr.Material("giraffe", texture=texture.float()),),
    )


def onto_surface(points: Tensor) -> Tensor:
    """Newton's method along the gradient: smoothing rounds the fine parts off, this brings them back."""
    for _ in range(3):
        points = points.detach().requires_grad_()
        distance = giraffe_distance(points)
        (gradient,) = torch.autograd.grad(distance.sum(), points)
        step = distance[:, None] * gradient / gradient.square().sum(-1, keepdim=True).clamp(min=0.25)
        points = points.detach() - step.detach().clamp(-GRID_STEP / 2, GRID_STEP / 2)
    return points


# --- its texture ---------------------------------------------------------------------------------------------------


def giraffe_color(points: Tensor) -> Tensor:
    """[N, 3] linear colour at points [N, 3] on the surface: solid, so that seams of the atlas do not show."""
    p, parts = mirrored(points), giraffe_parts(points)
    x, y, z = points.unbind(-1)
    cream, dark = srgb("#f6dfae"), srgb("#3b2618")

    def paint(color: Tensor, over: Tensor, amount: Tensor) -> Tensor:
        return torch.lerp(color, over.expand_as(color), amount.clamp(0, 1)[:, None])

    def near(part: str, reach: float, soft: float = 0.012) -> Tensor:
        return (reach - parts[part]) / soft + 0.5

    color = cream.expand_as(points)
    patch, gap = patches(points)
    plain = torch.maximum((-0.02 - y) / 0.12 * ((z.abs() < 0.3) & (parts["leg"] > 0.03)), (-0.55 - y) / 0.06)
    plain = torch.maximum(plain, (x + 0.45 * (y - 1.0) - 0.74) / 0.06).clamp(0, 1)  # belly, shins, muzzle
    color = paint(color, patch, gap * (1 - plain))
    color = paint(color, srgb("#e9b48d"), (x + 0.3 * (y - 1.0) - 0.92) / 0.10)  # snout
    for part, over in (("horn", cream), ("tail", cream), ("mane", srgb("#7a3d1a")), ("tips", srgb("#7a3d1a"))):
        color = paint(color, over, near(part, 0.012))
    color = paint(color, srgb("#e79b8d"), (0.012 - cone(p, *EAR_HOLLOW)) / 0.01 + 0.5)
    color = paint(color, dark, (0.008 - cone(p, *NOSTRIL)) / 0.01 + 0.5)
    for part in ("knob", "tuft"):
        color = paint(color, dark, near(part, 0.006))
    color = paint(color, dark, (-0.79 - y) / 0.012)
    smile = (y - 0.925 - 1.2 * z * z - 0.35 * (x - 1.0).square() * 3).abs()
    color = paint(color, srgb("#8c4a34"), ((0.008 - smile) / 0.006 + 0.5) * (x > 0.86))
    return eyes(color, p, near("eye", 0.006, 0.008))


def patches(points: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [N, 3] of the coat's patches and how far inside of one a point is [N]: Worley's cells, 1996."""
    generator = torch.Generator().manual_seed(7)
    spacing = 0.17
    low, high = torch.tensor([-1.1, -1.1, -0.6]), torch.tensor([1.3, 1.6, 0.6])
    count = ((high - low) / spacing).ceil().long().tolist()
    cell = torch.stack(torch.meshgrid(*(torch.arange(n) for n in count), indexing="ij"), dim=-1).reshape(-1, 3)
    seeds = (low + spacing * (cell + 0.8 * torch.rand(len(cell), 3, generator=generator))).to(points)
    tint = torch.rand(len(seeds), generator=generator).to(points)
    distance, nearest = (torch.from_numpy(found) for found in cKDTree(seeds.numpy()).query(points.numpy(), k=2))
    first, second = distance.unbind(-1)
    shade = tint[nearest[:, 0]]
    inside = (second - first) / spacing  # 0 on the border of two cells
    edge = 0.75 + 0.25 * ((inside - 0.12) / 0.5).clamp(0, 1)  # lighter in the middle of a patch
    color = torch.lerp(srgb("#9c4f1f"), srgb("#c9782f"), (0.65 * shade + 1.4 * (edge - 0.75))[:, None].clamp(0, 1))
    return color, (inside - 0.13) / 0.03


def eyes(color: Tensor, p: Tensor, amount: Tensor) -> Tensor:
    """Dark eyes with a light in them, over `color`."""
    offset = p - torch.tensor([0.765, 1.135, 0.135], dtype=p.dtype)
    ahead = torch.nn.functional.normalize(offset, dim=-1)
    light = torch.nn.functional.normalize(torch.tensor([0.55, 0.55, 0.63], dtype=p.dtype), dim=0)
    shine = ((ahead @ light) - 0.93) / 0.02
    eye = torch.lerp(srgb("#1d120e").expand_as(color), srgb("#ffffff").expand_as(color), shine.clamp(0, 1)[:, None])
    return torch.lerp(color, eye, amount.clamp(0, 1)[:, None])


# --- the atlas: charts of faces that look the same way, projected along that axis ------------------------------------


def charts_of(mesh: dr.Mesh) -> Tensor:
    """[F] number of the chart of each face: connected faces with one dominant axis, borders smoothed."""
    neighbors = mesh.topology.edge_halfedges.reshape(-1, 2) // 3  # [E, 2] faces at each edge; the mesh is closed
    left, right = neighbors.unbind(-1)
    normals = mesh.face_normals()
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).to(normals)
    score = normals @ axes.T
    label = score.argmax(-1)
    for _ in range(30):  # a face prefers what its neighbours have
        votes = torch.zeros_like(score)
        votes = votes.index_add(0, left, one_hot(label[right])).index_add(0, right, one_hot(label[left]))
        label = torch.where(score > 0.35, 1.2 * score + votes, -1.0).argmax(-1)
    for _ in range(8):  # what is small joins the chart beside it that it faces best
        chart = components(left, right, label, mesh.num_faces)
        small = torch.bincount(chart)[chart] < 40
        votes = torch.full_like(score, -1.0)
        for here, there in ((left, right), (right, left)):
            joins = small[here] & (label[here] != label[there])
            here, there = here[joins], there[joins]
            votes[here, label[there]] = score[here, label[there]]
        label = torch.where(small & (votes.amax(-1) > 0.1), votes.argmax(-1), label)
    return components(left, right, label, mesh.num_faces) * 6 + label


def one_hot(label: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(label, 6).double()


def components(left: Tensor, right: Tensor, label: Tensor, count: int) -> Tensor:
    """[F] number of the connected component of faces with the same label."""
    same = label[left] == label[right]
    a, b = left[same].numpy(), right[same].numpy()
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


def atlas(mesh: dr.Mesh, charts: Tensor) -> tuple[Tensor, Tensor]:
    """uvs [T, 2] and uv_faces [F, 3]: charts side by side on shelves, all at one scale, as large as fits."""
    names, chart = torch.unique(charts, return_inverse=True)
    keys = chart[:, None] * mesh.num_vertices + mesh.faces
    corners, uv_faces = torch.unique(keys, return_inverse=True)
    owner, vertex = corners // mesh.num_vertices, corners % mesh.num_vertices
    axis = names[owner] % 3
    plane = torch.stack([(axis + 1) % 3, (axis + 2) % 3], dim=-1)
    flat = mesh.vertices[vertex].gather(1, plane)  # [T, 2]
    low, high = (
        torch.zeros(len(names), 2, dtype=flat.dtype).scatter_reduce(
            0, owner[:, None].expand(-1, 2), flat, how, include_self=False
        )
        for how in ("amin", "amax")
    )
    sizes = high - low
    upright = sizes[:, 0] > sizes[:, 1]  # long charts lie down in the atlas' columns
    flat = torch.where(upright[owner, None], (flat - low[owner]).flip(-1), flat - low[owner])
    sizes = torch.where(upright[:, None], sizes.flip(-1), sizes)
    small, large = 1.0, TEXTURE_SIZE / float(sizes.max())
    for _ in range(30):  # bisection on texels per unit of length
        middle = (small + large) / 2
        small, large = (middle, large) if shelves(sizes * middle) is not None else (small, middle)
    places = shelves(sizes * small)
    assert places is not None
    return (places[owner] + flat * small) / TEXTURE_SIZE, uv_faces


def shelves(sizes: Tensor) -> Tensor | None:
    """[N, 2] corners of boxes of `sizes` [N, 2] in texels, in rows, tallest first; None if they do not fit."""
    places = torch.zeros_like(sizes)
    x = y = row = 0.0
    for i in sizes[:, 1].argsort(descending=True, stable=True).tolist():
        width, height = (sizes[i] + 2 * GUTTER).tolist()
        if x + width > TEXTURE_SIZE:
            x, y, row = 0.0, y + row, 0.0
        if y + height > TEXTURE_SIZE or width > TEXTURE_SIZE:
            return None
        places[i] = torch.tensor([x + GUTTER, y + GUTTER])
        x, row = x + width, max(row, height)
    return places


def baked_positions(vertices: Tensor, faces: Tensor, uvs: Tensor, uv_faces: Tensor) -> tuple[Tensor, Tensor]:
    """Where each texel lies on the surface, [S, S, 3], and which texels lie on it at all, [S, S].

    The renderer does it: the atlas is a flat mesh, seen by an orthographic camera, whose colours are positions.
    """
    size = TEXTURE_SIZE
    flat = torch.cat([uvs, torch.ones_like(uvs[:, :1])], dim=-1)
    colors = torch.zeros(len(uvs), 3, dtype=vertices.dtype).index_copy(
        0, uv_faces.reshape(-1), vertices[faces.reshape(-1)]
    )
    sheet = dr.Mesh(flat, uv_faces, vertex_colors=colors)
    camera = dr.OrthographicCamera(size, -size, 0, size, size=(size, size)).to(dtype=torch.float64)
    image, buffers = dr.render(sheet, camera, buffers=["face_index"])
    covered = (buffers["face_index"] >= 0) & (image[..., 3] > 0.999)  # on the rim colours are mixed with nothing
    return image[..., :3], covered


def bled(texture: Tensor, covered: Tensor) -> Tensor:
    """The texture with the nearest covered texel wherever there is none: filters then never see the empty space."""
    index = ndimage.distance_transform_edt(~covered.numpy(), return_distances=False, return_indices=True)
    return texture[tuple(torch.from_numpy(index))]


# --- teapot and knot: swept and turned surfaces --------------------------------------------------------------------


def sheet(points: Tensor, *, closed: bool = False) -> dr.Mesh:
    """A grid of points [N, M, 3] as a mesh with uv: u along N, v along M; `closed` joins the ends of M."""
    rows, columns = points.shape[:2]
    u, v = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    uvs = torch.stack([u, v], dim=-1).reshape(-1, 2)
    cell = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (x.reshape(-1) for x in (cell[:-1, :-1], cell[1:, :-1], cell[1:, 1:], cell[:-1, 1:]))
    uv_faces = torch.stack([a, b, c, a, c, d], dim=-1).reshape(-1, 3)
    faces = uv_faces
    if closed:
        faces = torch.where(uv_faces % columns == columns - 1, uv_faces - (columns - 1), uv_faces)
    used, faces = torch.unique(faces, return_inverse=True)
    return dr.Mesh(points.reshape(-1, 3)[used].float(), faces, uvs, uv_faces)


def turned(profile: list[tuple[float, float]], steps: int = 60) -> dr.Mesh:
    """The surface of revolution of a spline through (radius, height), outside to the right of the way."""
    r, y = spline(torch.tensor(profile, dtype=torch.float64), 4).unbind(-1)
    turn = 2 * math.pi * torch.arange(steps + 1, dtype=torch.float64) / steps
    ring = torch.stack([turn.sin(), torch.zeros_like(turn), turn.cos()], dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    points = r.clamp(min=1e-3)[None, :, None] * ring[:, None] + y[None, :, None] * up
    mesh = sheet(points.transpose(0, 1), closed=True)
    return mesh.replace(faces=mesh.faces.flip(-1), uvs=mesh.uvs.flip(-1), uv_faces=mesh.uv_faces.flip(-1))


def tube(path: list[tuple[float, float, float]], radii: list[tuple[float, float]], steps: int = 24) -> dr.Mesh:
    """An elliptic tube along a spline in the plane z = 0, `radii` within it and across; open at both ends."""
    line = spline(torch.tensor(path, dtype=torch.float64), 8)
    radius = spline(torch.tensor(radii, dtype=torch.float64), 8)
    tangent = torch.nn.functional.normalize(torch.gradient(line, dim=0)[0], dim=-1)
    across = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(tangent)
    within = torch.linalg.cross(across, tangent)
    turn = 2 * math.pi * torch.arange(steps + 1, dtype=torch.float64) / steps
    ring = radius[:, None, :1] * turn.cos()[:, None] * within[:, None]
    ring = ring + radius[:, None, 1:] * turn.sin()[:, None] * across[:, None]
    mesh = sheet(line[:, None] + ring, closed=True)
    return mesh.replace(faces=mesh.faces.flip(-1), uv_faces=mesh.uv_faces.flip(-1))


def spline(knots: Tensor, pieces: int) -> Tensor:
    """Catmull and Rom's curve through `knots` [N, D], with `pieces` points from one to the next."""
    ends = torch.cat([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    s = torch.arange(pieces, dtype=knots.dtype)[:, None] / pieces
    a, b, c, d = (ends[i : len(ends) - 3 + i, None] for i in range(4))
    curve = b + s * (c - a) / 2 + s**2 * (a - 2.5 * b + 2 * c - d / 2) + s**3 * (1.5 * (b - c) + (d - a) / 2)
    return torch.cat([curve.reshape(-1, knots.shape[1]), knots[-1:]])


def teapot() -> dr.Mesh:
    """A pot with spout, handle, lid and knob; the wall is thick and one can look into the spout."""
    outside = [(0, -0.62), (0.45, -0.62), (0.52, -0.56), (0.66, -0.42), (0.82, -0.08), (0.76, 0.28), (0.50, 0.50)]
    inside = [(0.44, 0.53), (0.41, 0.50), (0.46, 0.44), (0.72, 0.24), (0.77, -0.08), (0.60, -0.42), (0, -0.54)]
    body = turned(outside + inside)
    lid = turned([(0.40, 0.52), (0.45, 0.53), (0.44, 0.57), (0.34, 0.66), (0.18, 0.73), (0.06, 0.76), (0, 0.765)])
    knob = turned([(0.05, 0.72), (0.05, 0.78), (0.11, 0.84), (0.12, 0.90), (0.07, 0.96), (0, 0.97)], 40)
    spout = tube(
        [(0.50, -0.16, 0), (0.80, -0.14, 0), (1.04, 0.06, 0), (1.17, 0.34, 0), (1.34, 0.52, 0)],
        [(0.21, 0.20), (0.20, 0.17), (0.125, 0.115), (0.09, 0.09), (0.08, 0.10)],
    )
    handle = tube(
        [(-0.66, 0.32, 0), (-0.95, 0.44, 0), (-1.26, 0.26, 0), (-1.22, -0.10, 0), (-0.98, -0.33, 0), (-0.70, -0.34, 0)],
        [(0.05, 0.09), (0.055, 0.10), (0.06, 0.10), (0.06, 0.10), (0.055, 0.09), (0.05, 0.08)],
    )
    glaze = dr.Material("glaze", texture=glaze_texture(256, 512))
    wood = dr.Material("wood", texture=wood_texture(128, 256))
    blue = dr.Material("cobalt", base_color=srgb("#2b4f9e").float())
    brass = dr.Material("brass", base_color=srgb("#d9a441").float())
    painted = [(body, glaze), (dr.join([lid, spout]), blue), (knob, brass), (handle, wood)]
    return dr.join([mesh.replace(materials=(material,)) for mesh, material in painted])


def glaze_texture(height: int, width: int) -> Tensor:
    """[H, W, 3] bands of dots and waves, cobalt on white; u once around the pot, v up the outside in its lower half."""
    v, u = torch.meshgrid(
        1 - (torch.arange(height, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    white, blue, pale = srgb("#f5f1e6"), srgb("#2b4f9e"), srgb("#8fb0dc")

    def soft(signed: Tensor) -> Tensor:
        return (signed / 0.004 + 0.5).clamp(0, 1)

    wave = 0.012 * torch.sin(2 * math.pi * 12 * u)
    fine = torch.sin(2 * math.pi * (12 * u + 24 * v)) * torch.sin(2 * math.pi * (12 * u - 24 * v))
    du, dv = (24 * u) % 1 - 0.5, (v - 0.42) * 48
    marks = [
        (pale, soft(0.065 - (v - 0.30 - wave).abs()) * ((fine - 0.1) / 0.3 + 0.5).clamp(0, 1)),
        (blue, soft(0.006 - (v - 0.30 - wave - 0.085).abs())),
        (blue, soft(0.006 - (v - 0.30 - wave + 0.085).abs())),
        (blue, soft(0.02 * (0.30 - (du**2 + (dv / 1.6) ** 2).sqrt()))),
        (blue, soft(0.012 - (v - 0.47).abs())),
        (blue, soft(0.014 - (v - 0.155).abs())),
    ]
    color = white.expand(height, width, 3)
    for mark, amount in marks:
        color = torch.lerp(color, mark.expand_as(color), amount.to(color)[..., None])
    return color.float()


def wood_texture(height: int, width: int) -> Tensor:
    """[H, W, 3] grain along u, which repeats in both directions."""
    v, u = torch.meshgrid(
        (torch.arange(height, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    bend = 0.03 * torch.sin(2 * math.pi * u) + 0.012 * torch.sin(2 * math.pi * (3 * u + 2 * v))
    rings = torch.sin(2 * math.pi * (7 * (v + bend) + 0.6 * torch.sin(2 * math.pi * (v + 2 * u))))
    fine = torch.sin(2 * math.pi * (31 * v + 3 * torch.sin(2 * math.pi * (u + v))))
    amount = (0.5 + 0.4 * rings + 0.1 * fine).clamp(0, 1)[..., None]
    return torch.lerp(srgb("#6b3f1d"), srgb("#b98247"), amount).float()


def knot(around: int = 420, across: int = 30) -> dr.Mesh:
    """The (2, 3) torus knot as a tube with five twisted flutes; hues run along it, light and dark across."""
    s = 2 * math.pi * torch.arange(around, dtype=torch.float64) / around
    r = 0.72 + 0.3 * (3 * s).cos()
    line = torch.stack([r * (2 * s).cos(), r * (2 * s).sin(), 0.42 * (3 * s).sin()], dim=-1)
    tangent = torch.nn.functional.normalize(line.roll(-1, 0) - line.roll(1, 0), dim=-1)
    outward = torch.stack([(3 * s).cos() * (2 * s).cos(), (3 * s).cos() * (2 * s).sin(), 0.7 * (3 * s).sin()], dim=-1)
    side = torch.nn.functional.normalize(torch.linalg.cross(tangent, outward), dim=-1)
    outward = torch.linalg.cross(side, tangent)
    turn = 2 * math.pi * torch.arange(across, dtype=torch.float64) / across
    flute = torch.cos(5 * turn[None] + 10 * s[:, None])
    radius = 0.15 * (1 + 0.22 * flute)
    points = line[:, None] + radius[..., None] * (
        turn.cos()[None, :, None] * outward[:, None] + turn.sin()[None, :, None] * side[:, None]
    )
    hue = s[:, None, None] + 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    colors = (0.5 + 0.45 * hue.cos()) * (0.55 + 0.45 * (0.5 + 0.5 * flute[..., None]))
    cell = torch.arange(around * across).reshape(around, across)
    right, up, both = cell.roll(-1, 0), cell.roll(-1, 1), cell.roll((-1, -1), (0, 1))
    quads = torch.stack([cell, up, both, right], dim=-1).reshape(-1, 4)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return dr.Mesh(points.reshape(-1, 3).float(), faces, vertex_colors=colors.reshape(-1, 3).float())


# --- the template ---------------------------------------------------------------------------------------------------


def quadruped() -> dr.Mesh:
    """A plain animal on four legs that looks along +x: no ears, no horns, no colours; about 4000 faces."""
    step = 0.05
    axes = [torch.arange(a, b, step, dtype=torch.float64) for a, b in ((-1.1, 1.2), (-0.9, 0.8), (-0.5, 0.5))]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    points = grid.reshape(-1, 3)
    p = mirrored(points)
    total = cone(points, (-0.45, 0.05, 0), (0.40, 0.05, 0), (0.24, 0.25))
    for part in (
        cone(p, (0.36, 0.0, 0.15), (0.36, -0.70, 0.17), (0.12, 0.085)),
        cone(p, (-0.44, 0.0, 0.15), (-0.44, -0.70, 0.17), (0.12, 0.085)),
        cone(points, (0.45, 0.12, 0), (0.68, 0.42, 0), (0.19, 0.14)),
        cone(points, (0.68, 0.44, 0), (0.95, 0.38, 0), (0.17, 0.11)),
        cone(points, (-0.64, 0.14, 0), (-0.88, -0.20, 0), (0.07, 0.07)),
    ):
        total = blend(total, part, 0.08)
    mesh = smooth(surface_nets(-total.reshape(grid.shape[:3]), origin=points[0], step=step), iterations=5)
    return dr.Mesh(0.8 * mesh.vertices.float(), mesh.faces)


# --- the image set -------------------------------------------------------------------------------------------------


def save_views(folder: Path, mesh: dr.Mesh) -> None:
    """Views from all around and two heights above the ground, a few from below, in NeRF's format; alpha is the mask."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    total = VIEWS + TEST_VIEWS
    golden = math.pi * (3 - math.sqrt(5))
    held_out = {round((k + 0.5) * total / TEST_VIEWS) for k in range(TEST_VIEWS)}
    frames: dict[str, list[dict]] = {"transforms.json": [], "transforms_test.json": []}
    for i in range(total):  # Fibonacci's spiral, from 35 degrees below to 65 above
        height = math.sin(math.radians(-35)) + (i + 0.5) / total * (
            math.sin(math.radians(65)) - math.sin(math.radians(-35))
        )
        flat = math.sqrt(1 - height**2)
        eye = (DISTANCE * flat * math.sin(golden * i), DISTANCE * height, DISTANCE * flat * math.cos(golden * i))
        R, t = dr.look_at(eye)
        middle = IMAGE_SIZE / 2
        camera = dr.PinholeCamera(FOCAL, FOCAL, middle, middle, size=(IMAGE_SIZE, IMAGE_SIZE), R=R, t=t)
        image = dr.render(mesh, camera, lights=LIGHTS, samples=SAMPLES)
        straight = torch.cat([image[..., :3] / image[..., 3:].clamp(min=1e-6), image[..., 3:]], dim=-1)
        name = f"images/{i:02d}.png"
        dr.save_image(folder / name, straight)
        pose = dr.to_opengl_pose(R.double(), t.double())
        frames["transforms_test.json" if i in held_out else "transforms.json"].append(
            {"file_path": name, "transform_matrix": [[round(x, 9) for x in row] for row in pose.tolist()]}
        )
    intrinsics = {
        "camera_model": "PINHOLE",
        "w": IMAGE_SIZE,
        "h": IMAGE_SIZE,
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": IMAGE_SIZE / 2,
        "cy": IMAGE_SIZE / 2,
    }
    for name, views in frames.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps({**intrinsics, "frames": views}, indent=1) + "\n", encoding="utf-8")


def save_sheet(path: Path) -> None:
    """Every view at half its size, before a pale blue."""
    views = dr.load_dataset(FOLDER / "giraffe").resized(0.5)
    images, masks, _ = views.load_all()
    tiles = images + (1 - masks[..., None]) * torch.tensor([0.76, 0.84, 0.93])
    rows = [torch.cat(list(row), dim=1) for row in tiles.split(8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    dr.save_image(path, torch.cat(rows))


if __name__ == "__main__":
    main()
