from dataclasses import fields

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffrender.mesh import Mesh
from diffrender.primitives import cube, grid, sphere, torus
from diffrender.topology import Topology, weld_by_position

SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


def by_hand(weld: list[int], faces: list[list[int]]) -> dict[tuple[int, int], list[int]]:
    """Half-edges at every edge, from loops and dictionaries."""
    found: dict[tuple[int, int], list[int]] = {}
    for f, face in enumerate(faces):
        for i in range(3):
            a, b = sorted((weld[face[(i + 1) % 3]], weld[face[(i + 2) % 3]]))
            if a != b:
                found.setdefault((a, b), []).append(3 * f + i)
    return found


def check(topology: Topology, faces: Tensor) -> None:
    expected = by_hand(topology.weld.tolist(), faces.tolist())
    assert [tuple(e) for e in topology.edges.tolist()] == sorted(expected)
    start = topology.edge_start.tolist()
    assert start[0] == 0
    assert topology.face_edges.shape == faces.shape
    seen = torch.full_like(faces, -1).reshape(-1)
    for e, edge in enumerate(topology.edges.tolist()):
        halfedges = topology.edge_halfedges[start[e] : start[e + 1]].tolist()
        assert sorted(halfedges) == expected[tuple(edge)]
        assert int(topology.edge_count[e]) == len(halfedges)
        for h, forward in zip(halfedges, topology.forward[start[e] : start[e + 1]].tolist(), strict=True):
            f, i = divmod(h, 3)
            begins = int(topology.weld[faces[f, (i + 1) % 3]])
            assert forward == (begins == edge[0])
            seen[h] = e
    torch.testing.assert_close(topology.face_edges.reshape(-1), seen)
    assert start[-1] == len(topology.edge_halfedges)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(0, 12), st.integers(0, 2**31))
def test_edges_and_faces_of_any_soup_are_those_found_by_hand(num_vertices: int, num_faces: int, seed: int) -> None:
    """Repeated corners, repeated faces, many faces at one edge, vertices at one position."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randint(0, 2, (num_vertices, 3), generator=generator).float()
    faces = torch.randint(0, num_vertices, (num_faces, 3), generator=generator)
    topology = Topology.build(faces, vertices)
    for i in range(num_vertices):
        same = (vertices == vertices[i]).all(-1).nonzero()
        assert int(topology.weld[i]) == int(same[0])
    check(topology, faces)


def test_closed_surfaces_have_two_faces_at_every_edge_and_the_right_euler_number() -> None:
    for mesh, euler in ((sphere(2), 2), (cube(), 2), (torus(), 0)):
        topology = mesh.topology
        assert (topology.edge_count == 2).all()
        assert len(topology.weld.unique()) - topology.num_edges + mesh.num_faces == euler
        assert (
            topology.forward.reshape(-1, 2).sum(1) == 1
        ).all()  # neighbours run along an edge in opposite directions


def test_zeros_of_either_sign_are_one_position() -> None:
    assert weld_by_position(torch.tensor([[0.0, -0.0, 1.0], [-0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])).tolist() == [0, 0, 2]


def test_split_vertices_are_no_border_but_a_seam() -> None:
    split = torch.cat([SQUARE, SQUARE[[0, 2]]])
    topology = Topology.build(torch.tensor([[0, 1, 2], [4, 5, 3]]), split)
    assert topology.edge_count.tolist() == [1, 2, 1, 1, 1]
    assert topology.seam.tolist() == [False, True, False, False, False]
    assert not Topology.build(TWO, SQUARE).seam.any()


def test_uv_and_material_seams() -> None:
    diagonal = [False, True, False, False, False]
    assert Topology.build(TWO, SQUARE, uv_faces=torch.tensor([[0, 1, 2], [0, 4, 3]])).seam.tolist() == diagonal
    assert not Topology.build(TWO, SQUARE, uv_faces=TWO).seam.any()
    assert Topology.build(TWO, SQUARE, material_index=torch.tensor([0, 1])).seam.tolist() == diagonal
    assert not Topology.build(TWO, SQUARE, material_index=torch.tensor([1, 1])).seam.any()


def test_nothing_at_all() -> None:
    topology = Topology.build(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3))
    assert topology.num_edges == 0
    assert topology.edge_start.tolist() == [0]
    check(topology, torch.zeros(0, 3, dtype=torch.int64))


def test_joined_topologies_stay_apart() -> None:
    """Like one of meshes that touch nowhere."""
    parts = [sphere(1), cube(), torus(4, 3)]
    faces = torch.cat([m.faces + sum(p.num_vertices for p in parts[:i]) for i, m in enumerate(parts)])
    uv_faces = torch.cat([m.uv_faces + sum(len(p.uvs) for p in parts[:i]) for i, m in enumerate(parts)])
    apart = Topology.build(faces, torch.cat([m.vertices + 10 * i for i, m in enumerate(parts)]), uv_faces)
    joined = Topology.join([m.topology for m in parts])
    for field in fields(Topology):
        torch.testing.assert_close(getattr(joined, field.name), getattr(apart, field.name), rtol=0, atol=0)


def test_components_are_what_hangs_together_also_across_seams() -> None:
    ball, box = sphere(1), cube()
    faces = torch.cat([ball.faces, box.faces + ball.num_vertices])
    apart = Topology.build(faces, torch.cat([ball.vertices, box.vertices + 5])).component
    assert apart.tolist() == [apart[0]] * ball.num_vertices + [apart[-1]] * box.num_vertices
    assert apart[0] != apart[-1]
    corners = SQUARE[TWO].reshape(-1, 3)  # two triangles with three vertices each
    split = Topology.build(torch.arange(6).reshape(2, 3), corners)
    assert split.component.tolist() == [0] * 6
    assert Topology.build(TWO[:0], SQUARE).component.tolist() == [0, 1, 2, 3]
    assert Topology.build(TWO[:0], SQUARE[:0]).component.shape == (0,)
    joined = Topology.join([split, split]).component.tolist()
    assert joined == [joined[0]] * 6 + [joined[-1]] * 6
    assert joined[0] != joined[-1]


def test_closed_surfaces_have_every_edge_in_both_directions() -> None:
    ball = sphere(1)
    assert ball.topology.closed
    assert not grid(2, 2).topology.closed
    turned = ball.faces.clone()
    turned[0] = turned[0].flip(0)
    assert not Mesh(ball.vertices, turned).topology.closed
