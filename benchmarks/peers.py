"""Other differentiable renderers, through a pinhole, as `gradients.py --peers` asks them: those that are installed.

    pip install deodr mitsuba

PyTorch3D has no wheels for new versions of torch; it installs from its sources (`pip install --no-build-isolation
git+https://github.com/facebookresearch/pytorch3d`, half an hour on one core).

Mitsuba's `llvm_ad_rgb` loads the system's libLLVM, or the one named by DRJIT_LIBLLVM_PATH: version 17 or
later. Colour and alpha are two of its renderings.

A peer gets vertices in the frame of the camera and colours per vertex; no light. It renders [H, W, 5] colour, depth and
alpha over a white background of depth 0, and differentiates a weighted sum of that to the vertices.
"""

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import diffrender as dr

MIN_LLVM = 17  # older ones abort the whole process: "Cannot select: fminimum"


class Peer(ABC):
    """One renderer and its settings, set up for the faces and colours of a mesh and a pinhole."""

    name: str

    def __init__(self, mesh: dr.Mesh, camera: dr.PinholeCamera) -> None:
        assert mesh.vertex_colors is not None
        self.mesh, self.colors = mesh, mesh.vertex_colors.detach()
        self.height, self.width = camera.size
        self.focal, self.cx, self.cy = float(camera.fx), float(camera.cx), float(camera.cy)
        self.faces = mesh.faces.numpy()
        corners = np.stack([self.faces, np.roll(self.faces, -1, axis=1)], axis=-1).reshape(-1, 2)
        _, edge, count = np.unique(np.sort(corners), axis=0, return_inverse=True, return_counts=True)
        self.edge, self.closed = edge.reshape(-1, 3), bool((count == 2).all())
        order, first = np.argsort(edge.reshape(-1), kind="stable"), np.cumsum(count) - count
        self.beside = order[np.stack([first, first + count - 1])] // 3  # [2, E] the faces on both sides of an edge

    @abstractmethod
    def image(self, vertices: Tensor) -> Tensor:
        """[H, W, 5]"""

    @abstractmethod
    def gradient(self, vertices: Tensor, weights: Tensor) -> Tensor:
        """[V, 3] of the sum of the image times `weights` [H, W, 5], rendering included."""


def peers(mesh: dr.Mesh, camera: dr.PinholeCamera) -> Iterator[Peer]:
    """Those that are installed and run here."""
    if importlib.util.find_spec("deodr"):
        yield Deodr(mesh, camera)
    if importlib.util.find_spec("mitsuba"):
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        peer = Mitsuba(mesh, camera)
        if peer.closed and drjit.detail.llvm_version()[0] >= MIN_LLVM:
            yield peer
    if importlib.util.find_spec("pytorch3d"):
        yield PyTorch3D(mesh, camera)


class Deodr(Peer):
    """Edges drawn `sigma` pixels wide outside of the outlines: de La Gorce, Fleet & Paragios 2011; its default.

    Its gradients want faces of one side and are of colours that are linear in the image, not in space.
    """

    name = "DEODR"
    sigma = 1.0

    def scene(self, vertices: Tensor) -> tuple["deodr.differentiable_renderer.Scene2D", Tensor]:  # type: ignore[name-defined] # noqa: F821
        from deodr.differentiable_renderer import Scene2D

        xy = self.focal * vertices[:, :2] / vertices[:, 2:] + vertices.new_tensor([self.cx, self.cy])
        ij, z, faces = xy.detach().numpy(), vertices[:, 2].detach().numpy(), self.faces.copy()
        a, b, c = (ij[faces[:, i]] for i in range(3))
        front = np.cross(b - a, c - a) < 0  # y points down: counterclockwise as seen
        if not self.closed:  # both sides are to be seen
            faces[~front] = faces[~front, ::-1]
        neighbour = self.beside.sum(0)[self.edge] - np.arange(len(faces))[:, None]
        outline = (front[neighbour] != front[:, None]) | (neighbour == np.arange(len(faces))[:, None])
        if not self.closed:
            outline[~front] = outline[~front, ::-1][:, [1, 2, 0]]
        ones = np.ones(len(z))
        scene = Scene2D(
            faces=faces.astype(np.uint32), faces_uv=faces.astype(np.uint32), ij=ij, depths=z,
            textured=np.zeros(len(faces), bool), uv=np.zeros((len(z), 2)), shade=np.zeros(len(z)),
            colors=np.column_stack([self.colors.numpy(), z, ones]), shaded=np.zeros(len(faces), bool),
            edgeflags=outline, height=self.height, width=self.width, nb_colors=5, texture=np.zeros((0, 0, 0)),
            background_color=np.array([1.0, 1.0, 1.0, 0.0, 0.0]), clockwise=False, backface_culling=True,
            integer_pixel_centers=False,
        )  # fmt: skip
        return scene, xy

    def image(self, vertices: Tensor) -> Tensor:
        return torch.from_numpy(self.scene(vertices)[0].render(self.sigma)[0])

    def gradient(self, vertices: Tensor, weights: Tensor) -> Tensor:
        vertices = vertices.detach().requires_grad_()
        scene, xy = self.scene(vertices)
        scene.render(self.sigma)
        scene.render_backward(weights.numpy().copy())  # it overwrites them
        to_xy, to_depth = torch.from_numpy(scene.ij_b), torch.from_numpy(scene.colors_b[:, 3])
        return torch.autograd.grad([xy, vertices[:, 2]], vertices, [to_xy, to_depth])[0]


class Mitsuba(Peer):
    """Mitsuba 3's `prb_projective`: Zhang et al. 2023; the surface emits its colour, and nothing is reflected.

    It emits to one side, so that open meshes, seen from both, are not for it. With their faces turned towards the
    camera the image is right, but its search for silhouettes does not see folds: 28 to 94 % off on the open sheet.
    """

    name = "Mitsuba 3, 16 samples"
    samples = 16

    def __init__(self, mesh: dr.Mesh, camera: dr.PinholeCamera) -> None:
        import mitsuba

        super().__init__(mesh, camera)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)  # it warns of shapes that leave the picture
        self.seed = 0
        self.scenes = [self.scene(background) for background in (1.0, 0.0, 0.0)]  # colour, depth, alpha

    def scene(self, background: float):  # type: ignore[no-untyped-def] # its types exist once a variant is chosen
        import mitsuba as mi

        properties = mi.Properties()
        radiance = {"type": "mesh_attribute", "name": "vertex_color"}
        properties["emitter"] = mi.load_dict({"type": "area", "radiance": radiance})
        properties["bsdf"] = mi.load_dict({"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}})
        mesh = mi.Mesh("mesh", len(self.mesh.vertices), len(self.mesh.faces), props=properties)
        mesh.add_attribute("vertex_color", 3, np.zeros(3 * len(self.mesh.vertices), np.float32))
        parameters = mi.traverse(mesh)
        parameters["faces"] = mi.UInt32(self.faces.astype(np.uint32).ravel())
        parameters["vertex_positions"] = mi.Float(self.mesh.vertices.detach().numpy().astype(np.float32).ravel())
        parameters.update()
        film = {
            "type": "hdrfilm", "width": self.width, "height": self.height, "rfilter": {"type": "box"},
            "pixel_format": "rgb", "component_format": "float32",
        }  # fmt: skip
        sensor = {
            "type": "perspective", "fov": math.degrees(2 * math.atan(self.width / 2 / self.focal)), "fov_axis": "x",
            "principal_point_offset_x": 0.5 - self.cx / self.width,
            "principal_point_offset_y": 0.5 - self.cy / self.height,
            "to_world": mi.ScalarTransform4f().rotate([0, 0, 1], 180),  # its x and y point left and up
            "near_clip": 0.1, "far_clip": 100.0, "film": film, "sampler": {"type": "independent"},
        }  # fmt: skip
        scene = {"type": "scene", "integrator": {"type": "prb_projective", "max_depth": 1, "sppi": 0}, "mesh": mesh,
                 "sensor": sensor}  # fmt: skip
        if background:
            scene["background"] = {"type": "constant", "radiance": {"type": "rgb", "value": background}}
        return mi.load_dict(scene)

    def render(self, part: int, vertices: Tensor, samples: int):  # type: ignore[no-untyped-def]
        """The image of colour, depth or alpha, and the parameters it follows."""
        import drjit
        import mitsuba as mi

        values = (self.colors, vertices[:, 2:].expand(-1, 3), torch.ones_like(vertices))[part]
        parameters = mi.traverse(self.scenes[part])
        places = [mi.Float(x.detach().float().numpy().ravel()) for x in (vertices, values)]
        drjit.enable_grad(*places)
        parameters["mesh.vertex_positions"], parameters["mesh.vertex_color"] = places
        parameters.update()
        self.seed += 1
        return mi.render(self.scenes[part], parameters, spp=samples, seed=self.seed), places

    def image(self, vertices: Tensor) -> Tensor:
        images = [torch.from_numpy(np.array(self.render(part, vertices, 256)[0])) for part in range(3)]
        return torch.cat([images[0], images[1][..., :1], images[2][..., :1]], dim=-1).double()

    def gradient(self, vertices: Tensor, weights: Tensor) -> Tensor:
        import drjit
        import mitsuba as mi

        total = torch.zeros_like(vertices)
        for part, channels in enumerate(((0, 1, 2), (3,), (4,))):
            if weights[..., channels].any():
                image, (moved, values) = self.render(part, vertices, self.samples)
                of_part = (weights[..., channels].expand(-1, -1, 3) / (3 / len(channels))).float()  # three alike
                drjit.backward(drjit.sum(image * mi.TensorXf(of_part.contiguous().numpy()), axis=None))
                total += torch.from_numpy(np.array(drjit.grad(moved))).reshape(-1, 3)
                if part == 1:  # the surface emits its depth
                    total[:, 2] += torch.from_numpy(np.array(drjit.grad(values))).reshape(-1, 3).sum(1)
        return total


class PyTorch3D(Peer):
    """Its soft rasterizer with the settings of its tutorial on fitting textured meshes: Liu et al. 2019; on the CPU."""

    name = "PyTorch3D, soft, 50 faces"
    sigma = 1e-4
    faces_per_pixel = 50

    def parts(self, vertices: Tensor) -> list[Tensor]:
        """[H, W, 4] colour over white, and depth over 0; alpha last."""
        from pytorch3d.renderer import (
            BlendParams,
            MeshRasterizer,
            PerspectiveCameras,
            RasterizationSettings,
            TexturesVertex,
            softmax_rgb_blend,
        )
        from pytorch3d.structures import Meshes

        camera = PerspectiveCameras(
            focal_length=((self.focal, self.focal),), principal_point=((self.cx, self.cy),), in_ndc=False,
            image_size=((self.height, self.width),),
        )  # fmt: skip
        settings = RasterizationSettings(
            image_size=(self.height, self.width), blur_radius=math.log(1 / self.sigma - 1) * self.sigma,
            faces_per_pixel=self.faces_per_pixel, perspective_correct=False, bin_size=0,
        )  # fmt: skip
        rasterizer = MeshRasterizer(cameras=camera, raster_settings=settings)
        placed = (vertices * vertices.new_tensor([-1.0, -1.0, 1.0])).float()  # its x points left, its y up
        shape, fragments, images = Meshes([placed], [self.mesh.faces]), None, []
        for values, background in ((self.colors, 1.0), (vertices[:, 2:].expand(-1, 3), 0.0)):
            shape.textures = TexturesVertex([values.float()])
            fragments = rasterizer(shape) if fragments is None else fragments
            blend = BlendParams(sigma=self.sigma, gamma=1e-4, background_color=(background,) * 3)
            images.append(softmax_rgb_blend(shape.sample_textures(fragments), fragments, blend)[0].double())
        return images

    def image(self, vertices: Tensor) -> Tensor:
        color, depth = self.parts(vertices)
        return torch.cat([color[..., :3], depth[..., :1], color[..., 3:]], dim=-1)

    def gradient(self, vertices: Tensor, weights: Tensor) -> Tensor:
        vertices = vertices.detach().requires_grad_()
        return torch.autograd.grad((self.image(vertices) * weights).sum(), vertices)[0]
