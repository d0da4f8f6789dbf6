"""What the colours of a fit are painted on: the vertices of its mesh, or the texels of a texture."""

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy import ndimage
from torch import Tensor

from .. import steady
from ..cameras import OrthographicCamera
from ..io.images import decode_srgb, encode_srgb
from ..mesh import Material, Mesh
from ..render import render
from ..sampling import covered_texels
from .sheen import gains

COLOR_STEP = 0.02  # first step of Adam on the colours, linear or sRGB
COLOR_SMOOTHNESS = 0.3  # of squared differences along edges: colours must not paint what the shape should explain
TEXEL_SMOOTHNESS = 1.0  # the same for texels, which are many more, and pull at fewer pixels each


@dataclass(frozen=True, eq=False)
class VertexPaint:
    """Linear colours [V, C] at the vertices; see `sheen` for channels beyond the third."""

    def on(self, mesh: Mesh, colors: Tensor) -> Mesh:
        """`mesh` with these colours."""
        return mesh.replace(vertex_colors=colors)

    def values_of(self, mesh: Mesh) -> Tensor:
        """[V, C] what colours `mesh` has where this paint has some."""
        assert mesh.vertex_colors is not None
        return mesh.vertex_colors

    def matte(self, colors: Tensor, lights: Tensor) -> Tensor:
        """[V, 3] `colors` under `lights` [V, K * 3]."""
        return colors[:, :3] * gains(colors[:, 3:], lights)

    def prior(self, mesh: Mesh, colors: Tensor) -> Tensor:
        """How far neighbours differ."""
        low, high = mesh.topology.edges.unbind(-1)
        apart = colors.index_select(0, low) - colors.index_select(0, high)
        return COLOR_SMOOTHNESS * steady.mean(apart.square()) * (apart.shape[-1] / 3)


@dataclass(frozen=True, eq=False)
class TexturePaint:
    """sRGB values [N, C] of the texels with their centre in a chart, in order of rows; channels as in `sheen`.

    sRGB as in the file, and because a step of an optimizer is then as visible in dark places as in bright ones. Texels
    beyond the charts are as the nearest one inside: what filters read there is what lies on this side of the seam, and
    its derivative goes where it belongs.

    Attributes:
        size: texels along each side of the texture.
        base: a mesh with the uvs of `unwrap` for this size, and one material.
    """

    size: int
    base: Mesh

    @cached_property
    def covered(self) -> Tensor:
        """[size, size] bool: the texels with a value of their own."""
        return covered_texels(self.base, (self.size, self.size))

    @cached_property
    def _nearest(self) -> Tensor:
        """[size * size] for each texel, which of the N values is that of the nearest covered one."""
        number = self.covered.reshape(-1).long().cumsum(0) - 1
        row, column = ndimage.distance_transform_edt(
            ~self.covered.cpu().numpy(), return_distances=False, return_indices=True
        )
        return number[torch.from_numpy(row * self.size + column).to(number).reshape(-1)]

    def colors_of(self, mesh: Mesh) -> Tensor:
        """The texels [N, C] that look like the vertex colours of `mesh`, whose faces are those of `base`."""
        values = self.values_of(mesh)
        return torch.cat([encode_srgb(values[:, :3].clamp(0, 1)), values[:, 3:]], dim=-1)

    def matte(self, colors: Tensor, lights: Tensor) -> Tensor:
        """Texels [N, 3] as `colors` are under `lights` [N, K * 3]."""
        return encode_srgb((decode_srgb(colors[:, :3]) * gains(colors[:, 3:], lights)).clamp(0, 1))

    @torch.no_grad()
    def values_of(self, mesh: Mesh) -> Tensor:
        """[N, C] the vertex colours of `mesh`, whose faces are those of `base`, at the texels."""
        assert mesh.vertex_colors is not None
        assert self.base.uvs is not None
        assert self.base.uv_faces is not None
        colors = mesh.vertex_colors.new_zeros(len(self.base.uvs), mesh.vertex_colors.shape[-1])
        colors[self.base.uv_faces.reshape(-1)] = mesh.vertex_colors[mesh.faces.reshape(-1)]
        flat = Mesh(torch.nn.functional.pad(self.base.uvs, (0, 1), value=1.0), self.base.uv_faces, vertex_colors=colors)
        side = float(self.size)
        above = OrthographicCamera(side, -side, 0.0, side, size=(self.size, self.size)).to(colors.device)
        seen = render(flat, above, intersecting=False)[self.covered]
        # texels at borders are covered in part; their centre is, so that the share cannot vanish
        return seen[:, :-1] / seen[:, -1:].clamp(min=1e-3)

    def on(self, mesh: Mesh, colors: Tensor) -> Mesh:
        """`mesh`, which is `base` with vertices moved, with these texels."""
        linear = torch.cat([decode_srgb(colors[:, :3]), colors[:, 3:]], dim=-1)
        texture = linear.index_select(0, self._nearest).reshape(self.size, self.size, -1)
        return mesh.replace(materials=(Material("fitted", texture=texture),))

    @cached_property
    def _pairs(self) -> tuple[Tensor, int]:
        """The Laplacian [N, N], sparse, of the graph whose P edges are texels side by side, or one above the other, and
        P. Neighbours are always of one chart, for charts keep apart."""
        number = (self.covered.reshape(-1).long().cumsum(0) - 1).reshape(self.covered.shape)
        across, down = self.covered[:, 1:] & self.covered[:, :-1], self.covered[1:] & self.covered[:-1]
        first = torch.cat([number[:, :-1][across], number[:-1][down]])
        second = torch.cat([number[:, 1:][across], number[1:][down]])
        every = torch.arange(int(self.covered.sum()), device=first.device)
        degree = torch.bincount(torch.cat([first, second]), minlength=len(every)).float()
        index = torch.stack([torch.cat([first, second, every]), torch.cat([second, first, every])])
        values = torch.cat([degree.new_full((2 * len(first),), -1.0), degree])
        return torch.sparse_coo_tensor(index, values, (len(every), len(every)), check_invariants=True).coalesce(), len(
            first
        )

    def prior(self, mesh: Mesh, colors: Tensor) -> Tensor:
        """How far neighbours differ: what views do not agree about would be noise otherwise."""
        laplacian, count = self._pairs
        pulled = laplacian @ colors.detach()  # one product for value and derivative: pairs would take ten times as long
        energy = steady.total(colors * pulled)
        energy = 2 * energy - energy.detach()  # a quadratic form, whose derivative is twice the product
        return TEXEL_SMOOTHNESS * energy / (3 * max(count, 1))
