"""`render`: the short composition of the stages, from meshes and cameras to images. Read it, copy it, change it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .boundary import Boundary, boundary_steps
from .cameras import Camera
from .checks import broadcast_shapes, check_flags, shape_of
from .fragments import Fragments, Sightings, fragments_of, interpolate, join_sightings, sightings
from .grazing import Grazing, grazing_steps, nowhere_grazing
from .kernels import composite_rows, covered_pixels, where_true
from .mesh import Mesh
from .pixel_rays import PixelRays, pixel_rays
from .precision import full_precision
from .scene import Scene, check_camera_and_mesh, pack
from .shading import Lambert, Light, shading_normals, unlit
from .turning import at_turn, turning_faces
from .visibility import Steps, answered, face_image, local_faces

# Cosines, between ray and normal, below which samples on faces that turn do not move: one there would outweigh all
# others. Centres of pixels meet such a place as seldom as it is narrow; edges go through it.
AT_TURN, BESIDE_TURN = 0.01, 0.03

Shader: TypeAlias = Callable[[Fragments, Mesh], Tensor]


@full_precision
def render(
    mesh: Mesh | Sequence[Mesh],
    camera: Camera,
    *,
    background: float | Sequence[float] | Tensor = 0.0,
    lights: Sequence[Light] | None = None,
    shader: Shader | None = None,
    samples: int = 1,
    cull_backfaces: bool = False,
    intersecting: bool = True,
    buffers: Sequence[str] | None = None,
) -> Any:
    """Images [*batch, H, W, C + 1] of a mesh: colour over the background, alpha (coverage) last; linear colour.

    Every pixel is the mean over its square, and differentiable to vertices, colours, textures, lights and every
    parameter of the camera: also where borders move.

    Args:
        mesh: one mesh for all cameras of the batch, or a list with one mesh per image.
        camera: `[*batch]` cameras of size (H, W).
        background: a number, a colour (C,), or images that broadcast to [*batch, H, W, C].
        lights: makes surfaces Lambertian under these lights; without, they are unlit.
        shader: instead of `lights`: any function (fragments, mesh) -> [N, C], see `shading`.
        samples: `samples ** 2` points per pixel where the surface is looked up; 1 is enough unless textures or shading
            have details finer than a pixel.
        cull_backfaces: faces seen from behind are transparent.
        intersecting: surfaces may pass through each other; where they do is searched for in every call. Say False if
            they do not, and save that time.
        buffers: names among "depth" [*batch, H, W] (infinity where nothing is hit), "normals" [*batch, H, W, 3] (unit,
            world frame, towards the viewer), "uvs" [*batch, H, W, 2] and "face_index" [*batch, H, W] (-1 for nothing).
            They are looked up at the centres of the pixels, not filtered, and differentiable inside surfaces only; for
            a filtered buffer that also knows about moving borders, pass its shader (`shading.depth_shader`, ...).

    Returns:
        The images; with `buffers`, the images and a dictionary of the buffers.

    >>> from diffrender.cameras import PinholeCamera
    >>> mesh = Mesh(torch.tensor([[-1.0, -1, 2], [1, -1, 2], [-1, 1, 2]]), torch.tensor([[0, 2, 1]]))
    >>> image = render(mesh, PinholeCamera(4, 4, 2, 2, size=(4, 4)))
    >>> image[..., -1].tolist()
    [[1.0, 1.0, 1.0, 0.5], [1.0, 1.0, 0.5, 0.0], [1.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]
    """
    if shader is not None and lights is not None:
        raise ValueError("give either lights or a shader, not both: a shader decides itself what lights do")
    if shader is not None and not callable(shader):
        raise TypeError(
            f"shader must be a function (fragments, mesh) -> colours, see diffrender.shading; got {shader!r}"
        )
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1; got {samples!r}")
    check_flags(cull_backfaces=cull_backfaces, intersecting=intersecting)
    if shader is None:
        shader = unlit if lights is None else Lambert(lights)
    check_camera_and_mesh(camera, mesh)
    height, width = camera.size
    fine = camera if samples == 1 else camera.resize((height * samples, width * samples))

    scene = pack(mesh, fine)
    rays = pixel_rays(scene)
    faces = face_image(scene, rays, cull_backfaces)
    pixel, inside = seen_at_centers(scene, rays, faces)
    # From outside nobody sees the inside of a closed surface; from inside, the centres of pixels would tell.
    only_fronts = cull_backfaces or (scene.mesh.topology.closed and _shows_fronts_only(scene, inside))
    stages: list[Steps[Any]] = [
        boundary_steps(
            scene,
            rays,
            faceted=getattr(shader, "faceted", False),
            cull_backfaces=cull_backfaces,
            intersecting=intersecting,
            face_image=faces,
            only_fronts=only_fronts,
        )
    ]
    if _moves(shader, scene, inside):  # else nobody asks for the derivative that is all they add
        stages.append(grazing_steps(scene, cull_backfaces=only_fronts))
    edges, *found = answered(scene, *stages)
    steep = found[0] if found else nowhere_grazing(scene)
    if len(edges.unsure):
        faces = edges.settled(faces)
        pixel, inside = seen_at_centers(scene, rays, faces)
    sides, elsewhere = seen_off_center(scene, rays, edges, steep)
    beside, moving = elsewhere[: len(sides.piece)], elsewhere[len(sides.piece) :]
    held, held_beside = (steep.held(seen.view, seen.face_index) for seen in (inside, beside))
    held_beside = held_beside | edges.rim.index_select(0, sides.piece)
    if not scene.camera.is_central and scene.linear_rays is None:
        turning = turning_faces(scene)
        held = held | at_turn(scene, turning, inside, AT_TURN)
        held_beside = held_beside | at_turn(scene, turning, beside, BESIDE_TURN)
    on_steep = held.new_zeros(len(moving))
    fragments = fragments_of(
        scene,
        join_sightings([inside, elsewhere, moving]),
        torch.cat([held, held_beside, on_steep, ~on_steep]),
        hold_backs=only_fronts,  # a face beside an edge that turns its back is seen edge-on, but for rounding
    )
    colors = checked_colors(shader, fragments, scene.mesh)
    image = composite(scene, pixel, edges, sides, steep, colors, background, samples)
    if samples > 1:
        image = image.reshape(-1, height, samples, width, samples, image.shape[-1]).mean((2, 4))
    image = image.reshape(*scene.batch_shape, height, width, -1)
    if buffers is None:
        return image
    if samples > 1:
        scene = pack(mesh, camera)
        rays = pixel_rays(scene)
        faces = face_image(scene, rays, cull_backfaces)
    return image, center_buffers(scene, faces, *covered(scene, rays, faces), buffers)


def _shows_fronts_only(scene: Scene, seen: Sightings) -> bool:
    """Whether the outside of all faces that are seen is turned to the camera."""
    if not scene.camera.is_central:
        with torch.no_grad():
            return bool(fragments_of(scene, seen).front.all())
    return bool(scene.outside.index_select(0, scene.drawn(seen.view, seen.face_index)).all())


def _moves(shader: Shader, scene: Scene, seen: Sightings) -> bool:
    """Whether colours may change with where on the surface they are looked up; not so those of a silhouette alone."""
    differentiable = (scene.vertices, seen.origins, seen.directions)
    if len(seen) == 0 or not any(part is not None and part.requires_grad for part in differentiable):
        return False
    mesh = scene.mesh
    if shader is unlit and (mesh.vertex_colors is not None or any(m.texture is not None for m in mesh.materials)):
        return True  # the most frequent case, without a question
    colors = shader(fragments_of(scene, seen[:1]), mesh)
    return not isinstance(colors, Tensor) or colors.requires_grad  # what is no tensor, checked_colors tells


def checked_colors(shader: Shader, fragments: Fragments, mesh: Mesh) -> Tensor:
    """Colours [N, C] of the fragments; an error where the shader is not one of those who give them."""
    colors = shader(fragments, mesh)
    given = isinstance(colors, Tensor) and colors.is_floating_point() and colors.ndim == 2
    if not given or len(colors) != len(fragments):
        raise ValueError(
            f"shader must return a row of floating-point colours for each fragment, ({len(fragments)}, C); got "
            f"{shape_of(colors)}"
        )
    return colors


def covered(scene: Scene, rays: PixelRays, face_image: Tensor) -> tuple[Tensor, Fragments]:
    """The covered pixels [N] (index into B * H * W) and their fragments."""
    pixel, seen = seen_at_centers(scene, rays, face_image)
    return pixel, fragments_of(scene, seen)


def seen_at_centers(scene: Scene, rays: PixelRays, face_image: Tensor) -> tuple[Tensor, Sightings]:
    """The covered pixels [N] (index into B * H * W) and what is seen there."""
    from_center = rays.directions is None and scene.camera.is_central and scene.rays_rest
    linear = scene.stacked_rays if from_center else None
    pixel, view, xy, face, directions = covered_pixels(face_image, scene.vertices, linear)
    origins = directions
    if rays.directions is not None:
        directions = rays.directions.index_select(0, pixel)
        origins = directions if rays.origins is None else rays.origins.index_select(0, pixel)
    elif linear is None:
        origins, directions = scene.rays_at(view, xy)
    return pixel, sightings(scene, view, xy, face, origins, directions)


@dataclass(frozen=True, eq=False)
class Sides:
    """What is seen left and right of the pieces of a boundary, where that is no background.

    Attributes:
        piece: [N] index into the pieces.
        sign: [N] 1 on the left, -1 on the right.
    """

    piece: Tensor
    sign: Tensor


def seen_off_center(scene: Scene, rays: PixelRays, edges: Boundary, steep: Grazing) -> tuple[Sides, Sightings]:
    """The sides of edges; and what is seen there, followed by the faces seen almost edge-on."""
    left, right = (where_true(face >= 0) for face in (edges.left, edges.right))
    piece = torch.cat([left, right])
    view = torch.cat([edges.view.index_select(0, piece), steep.view])
    xy = torch.cat([edges.xy.index_select(0, piece), steep.xy])
    face = torch.cat([edges.left.index_select(0, left), edges.right.index_select(0, right), steep.face])
    sign = torch.cat([edges.area.new_ones(len(left)), -edges.area.new_ones(len(right))])
    if rays.moves or edges.rays is None or steep.rays is None:
        origins, directions = scene.rays_at(view, xy)
    else:  # nobody differentiates these rays, and the stages have them already
        origins, directions = (
            torch.cat([e.index_select(0, piece), s]) for e, s in zip(edges.rays, steep.rays, strict=True)
        )
    if scene.linear_rays is None:
        directions = _towards_faces(scene, view, face, origins, directions)
    return Sides(piece, sign), sightings(scene, view, xy, face, origins, directions)


def _towards_faces(scene: Scene, view: Tensor, face: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """The directions [N, 3]; where there is none, that to the middle of the face.

    Each of these pixels had a ray when it was asked whether the face is seen there. But next to a pole, where a pixel's
    rounding turns by any angle, an inverse that iterates may find it among some pixels and miss it among others.
    """
    lost = where_true(~torch.isfinite(directions).all(-1))
    if len(lost) == 0:
        return directions
    corners = scene.corners(view.index_select(0, lost), face.index_select(0, lost))
    middle = scene.vertices.detach().index_select(0, corners.reshape(-1)).reshape(-1, 3, 3).mean(1)
    return directions.index_copy(0, lost, (middle - origins.index_select(0, lost)).to(directions.dtype))


def composite(
    scene: Scene,
    pixel: Tensor,
    edges: Boundary,
    sides: Sides,
    steep: Grazing,
    colors: Tensor,
    background: float | Sequence[float] | Tensor,
    samples: int = 1,
) -> Tensor:
    """Values at the centres plus jumps times areas: [B * H * W, C + 1], colour over the background, then alpha.

    `colors` [N, C] belongs to the fragments of the covered `pixel`s, then to those of the `sides`, then, twice, to
    those of `steep` faces: as they move, and as if they did not. The background counts as constant within a pixel;
    `samples` are those per pixel and axis.
    """
    area = edges.area.index_select(0, sides.piece) * sides.sign
    share = torch.cat([steep.area, -steep.area])  # what moves and what does not cancel; not so their derivatives
    where = torch.cat([pixel, edges.pixel.index_select(0, sides.piece), steep.pixel, steep.pixel])
    count = scene.num_views * scene.camera.height * scene.camera.width
    return composite_rows(colors, area, share, _background(scene, background, colors, samples), where, count)


def empty_images(scene: Scene, background: float | Sequence[float] | Tensor, colors: Tensor, samples: int) -> Tensor:
    """[B * H * W, C + 1] the background with alpha 0, in the type of `colors` [N, C]."""
    rows = _background(scene, background, colors, samples)
    return rows.expand(scene.num_views * scene.camera.height * scene.camera.width, -1).clone(
        memory_format=torch.contiguous_format
    )  # not a view: writing to one costs backward two more copies


def _background(scene: Scene, background: float | Sequence[float] | Tensor, colors: Tensor, samples: int) -> Tensor:
    """[1, C + 1] or [B * H * W, C + 1] the background with alpha 0, in the type of `colors` [N, C]."""
    shape = (*scene.batch_shape, scene.camera.height // samples, scene.camera.width // samples, colors.shape[-1])
    value: Any = background
    try:
        value = torch.as_tensor(background, dtype=colors.dtype, device=colors.device)
        fits = broadcast_shapes(value.shape, shape) == shape
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise ValueError(
            f"background must be a number, a colour ({shape[-1]},) or images that broadcast to {shape}; "
            f"got {shape_of(value)}"
        )
    channels = shape[-1]
    if value.ndim < 2:
        return torch.nn.functional.pad(value.expand(channels), (0, 1)).unsqueeze(0)
    if samples > 1:
        value = value.expand(shape).repeat_interleave(samples, -3).repeat_interleave(samples, -2)
    value = value.expand(*scene.batch_shape, *scene.camera.size, channels).reshape(-1, channels)
    return torch.nn.functional.pad(value, (0, 1))


def center_buffers(
    scene: Scene, face_image: Tensor, pixel: Tensor, inside: Fragments, names: Sequence[str]
) -> dict[str, Tensor]:
    """Buffers by name, looked up at pixel centres: see `render`."""
    shape = (*scene.batch_shape, *face_image.shape[-2:])

    def spread(values: Tensor, empty: float) -> Tensor:
        blank = values.new_full((face_image.numel(), values.shape[-1]), empty)
        return blank.index_copy(0, pixel, values).reshape(*shape, -1)

    make: dict[str, Callable[[], Tensor]] = {
        "depth": lambda: spread(inside.depth.unsqueeze(-1), torch.inf).squeeze(-1),
        "normals": lambda: spread(shading_normals(inside, scene.mesh, "smooth"), 0.0),
        "uvs": lambda: spread(_uvs(inside, scene.mesh), 0.0),
        "face_index": lambda: local_faces(scene, face_image).long().reshape(shape),
    }
    unknown = [name for name in names if name not in make]
    if isinstance(names, str) or unknown:
        raise ValueError(f"buffers must be a sequence of names among {sorted(make)}; got {names!r}")
    return {name: make[name]() for name in names}


def _uvs(fragments: Fragments, mesh: Mesh) -> Tensor:
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("buffers asks for uvs, but the mesh has none")
    return interpolate(mesh.uvs, mesh.uv_faces, fragments)
