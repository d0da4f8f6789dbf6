import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from diffrender.io.images import decode_srgb, encode_srgb, load_image, save_image
from diffrender.io.meshes import load_mesh, save_mesh
from diffrender.mesh import Material, Mesh, join
from diffrender.primitives import cube, grid, sphere

FULL = [".obj", ".glb", ".gltf"]  # formats that hold everything


def codes_image(height: int, width: int, seed: int = 0) -> Tensor:
    """A texture whose values are exact 8-bit sRGB codes, so that files give back the same bits."""
    codes = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return decode_srgb(codes.double() / 255).float()


def painted() -> Mesh:
    """Seams, two textures and a plain material, face by face: the hardest case that files can hold."""
    mesh = sphere(1)
    materials = (
        Material("wood", texture=codes_image(4, 6)),
        Material("paint", base_color=torch.tensor([0.5, 0.25, 0.001])),
        Material("dyed wood", base_color=torch.tensor([1.0, 0.3, 0.2]), texture=codes_image(3, 2, seed=1)),
    )
    return mesh.replace(materials=materials, material_index=torch.arange(mesh.num_faces) * 3 // mesh.num_faces)


def corner_keys(mesh: Mesh) -> np.ndarray:
    """Faces as sorted rows of corner positions, rotated so that the lowest is first: equal for equal surfaces."""
    corners = mesh.vertices[mesh.faces].numpy()
    first = np.array([min(range(3), key=lambda i: tuple(c[i])) for c in corners])
    rotated = np.stack([corners[np.arange(len(corners)), (first + i) % 3] for i in range(3)], axis=1).reshape(-1, 9)
    return rotated[np.lexsort(rotated.T[::-1])]


@pytest.mark.parametrize("suffix", [*FULL, ".ply"])
def test_geometry_comes_back_vertex_for_vertex(tmp_path: Path, suffix: str) -> None:
    mesh = Mesh(torch.cat([sphere(1).vertices / 3, torch.ones(1, 3)]), sphere(1).faces)  # one vertex without faces
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}")
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert back.uvs is None
    assert back.materials == ()
    assert back.vertex_colors is None
    assert back.vertex_normals is None


def test_stl_keeps_the_surface(tmp_path: Path) -> None:
    mesh = Mesh(sphere(1).vertices, sphere(1).faces)
    save_mesh(tmp_path / "a.stl", mesh)
    back = load_mesh(tmp_path / "a.stl")
    assert back.num_vertices == mesh.num_vertices
    assert np.array_equal(corner_keys(back), corner_keys(mesh))


@pytest.mark.parametrize("suffix", FULL)
def test_uvs_textures_and_materials_come_back(tmp_path: Path, suffix: str) -> None:
    mesh = painted()
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}")
    assert mesh.uvs is not None
    assert back.uvs is not None
    assert back.num_vertices == mesh.num_vertices
    assert len(back.uvs) == len(mesh.uvs)
    assert torch.equal(back.vertices[back.faces], mesh.vertices[mesh.faces])  # materials lie in order of faces here
    # glTF stores 1 - v, so two roundings of numbers up to 1.1
    assert torch.allclose(back.uvs[back.uv_faces], mesh.uvs[mesh.uv_faces], rtol=0, atol=1.2e-7)
    assert back.material_index is not None
    assert torch.equal(back.material_index, mesh.material_index)
    assert [m.name.replace("_", " ") for m in back.materials] == [m.name for m in mesh.materials]
    for ours, theirs in zip(mesh.materials, back.materials, strict=True):
        assert (ours.texture is None) == (theirs.texture is None)
        if ours.texture is not None and theirs.texture is not None:
            assert torch.equal(theirs.texture, ours.texture)
        if ours.base_color is not None:
            assert theirs.base_color is not None
            assert torch.allclose(
                theirs.base_color, ours.base_color, rtol=1e-6
            )  # sRGB in OBJ: there and back in float32


@pytest.mark.parametrize("suffix", [*FULL, ".ply"])
def test_vertex_colours_come_back(tmp_path: Path, suffix: str) -> None:
    colors = torch.rand(42, 3, generator=torch.Generator().manual_seed(0))
    mesh = Mesh(sphere(1).vertices, sphere(1).faces, vertex_colors=colors)
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}").vertex_colors
    assert back is not None
    # PLY rounds sRGB to 8 bits: half a code where the slope of decoding is at most 2.275
    tolerance = 2.275 * 0.5 / 255 + 1e-6 if suffix == ".ply" else 1e-6
    assert float((back - colors).abs().max()) <= tolerance


@pytest.mark.parametrize("suffix", FULL)
def test_colours_and_texture_go_together(tmp_path: Path, suffix: str) -> None:
    mesh = grid(2, 2).replace(vertex_colors=torch.rand(9, 3), materials=(Material(texture=codes_image(2, 2)),))
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}")
    assert back.vertex_colors is not None
    assert mesh.vertex_colors is not None
    assert torch.allclose(back.vertex_colors[back.faces], mesh.vertex_colors[mesh.faces], atol=1e-6)
    assert back.materials[0].texture is not None


@pytest.mark.parametrize("suffix", [*FULL, ".ply"])
def test_given_normals_come_back_and_keep_vertices_split(tmp_path: Path, suffix: str) -> None:
    flat = cube()
    corners = flat.faces.reshape(-1)
    mesh = Mesh(
        flat.vertices[corners],
        torch.arange(36).reshape(-1, 3),
        uvs=None if suffix == ".ply" else torch.rand(36, 2),
        vertex_normals=flat.face_normals().repeat_interleave(3, dim=0),
    )
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}")
    assert back.vertex_normals is not None
    assert torch.equal(back.vertex_normals[back.faces], mesh.vertex_normals[mesh.faces])  # type: ignore[index]
    assert back.num_vertices == (36 if suffix == ".ply" else 24)  # three at each corner of the cube


@pytest.mark.parametrize(
    ("suffix", "mesh", "dropped"),
    [
        (".ply", painted(), "uvs, materials"),
        (".stl", Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), vertex_colors=torch.ones(3, 3)), "vertex_colors"),
        (".glb", Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), vertex_colors=torch.ones(3, 5)), "with 5 channels"),
    ],
)
def test_what_a_format_does_not_hold_is_named(tmp_path: Path, suffix: str, mesh: Mesh, dropped: str) -> None:
    with pytest.warns(UserWarning, match=f"a{suffix} does not hold .*{dropped}"):
        save_mesh(tmp_path / f"a{suffix}", mesh)
    assert load_mesh(tmp_path / f"a{suffix}").num_faces == mesh.num_faces


def test_saved_files_are_named_after_the_mesh_and_complete(tmp_path: Path) -> None:
    save_mesh(tmp_path / "pot.obj", painted())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pot.mtl", "pot.obj", "pot_0.png", "pot_1.png"]
    save_mesh(tmp_path / "pot.glb", painted().to(dtype=torch.float64))
    save_mesh(tmp_path / "pot.gltf", painted())  # everything inside
    assert len(list(tmp_path.iterdir())) == 6


def test_a_shared_texture_is_one_file(tmp_path: Path) -> None:
    texture = codes_image(2, 2)
    materials = (Material("a", texture=texture), Material("b", base_color=torch.zeros(3), texture=texture))
    save_mesh(tmp_path / "a.obj", grid(1, 1).replace(materials=materials, material_index=torch.tensor([0, 1])))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mtl", "a.obj", "a.png"]


def test_materials_of_one_name_stay_apart(tmp_path: Path) -> None:
    colors = [torch.tensor([float(i), 0.5, 0.0]) for i in range(3)]
    mesh = grid(1, 3).replace(
        materials=tuple(Material("same", base_color=c) for c in colors), material_index=torch.tensor([0, 0, 1, 1, 2, 2])
    )
    for suffix in FULL:
        save_mesh(tmp_path / f"a{suffix}", mesh)
        back = load_mesh(tmp_path / f"a{suffix}")
        assert [round(float(m.base_color[0]), 6) for m in back.materials] == [0, 1, 2]  # type: ignore[index]


def test_materials_come_back_from_obj_whatever_they_and_the_file_are_called(tmp_path: Path) -> None:
    """The third is not called x_2 to stay apart from the first; a # within a word begins no comment."""
    names = ("x", "x_2", "x", "y#z")
    materials = tuple(Material(n, torch.tensor([i / 4, 0.5, 0.0]), codes_image(2, 3)) for i, n in enumerate(names))
    save_mesh(tmp_path / "a#1.obj", grid(1, 4).replace(materials=materials, material_index=torch.arange(8) // 2))
    back = load_mesh(tmp_path / "a#1.obj").materials
    assert [round(float(m.base_color[0]), 6) for m in back] == [0, 0.25, 0.5, 0.75]  # type: ignore[index]
    assert all(m.texture is not None for m in back)


def test_gradients_and_precision_of_the_mesh_do_not_matter_for_saving(tmp_path: Path) -> None:
    mesh = painted().to(dtype=torch.float64)
    mesh = mesh.replace(vertices=mesh.vertices.clone().requires_grad_())
    for suffix in FULL:
        save_mesh(tmp_path / f"a{suffix}", mesh)
        back = load_mesh(tmp_path / f"a{suffix}")
        assert torch.equal(back.vertices[back.faces], mesh.vertices.detach().float()[mesh.faces])


@pytest.mark.parametrize("suffix", FULL)
def test_other_readers_see_the_same(tmp_path: Path, suffix: str) -> None:
    """The oracle is trimesh's own reading: the corner of the texture that a uv means, and the surface."""
    texture = torch.zeros(2, 2, 3)
    texture[0, 0, 0] = texture[1, 0, 1] = 1.0  # red in the upper left, green in the lower left corner
    save_mesh(tmp_path / f"a{suffix}", grid(1, 1).replace(materials=(Material(texture=texture),)))
    scene = trimesh.load_scene(tmp_path / f"a{suffix}", process=False)
    (part,) = scene.geometry.values()
    colors = part.visual.to_color().vertex_colors[:, :3]
    for vertex, color in zip(part.vertices, colors, strict=True):
        if vertex[0] < 0:
            assert color.tolist() == ([255, 0, 0] if vertex[1] > 0 else [0, 255, 0])


def write_obj(folder: Path, mtl: str | None, *, body: str = "") -> Path:
    text = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl red\nf 1/1 2/2 3/3\n"
    (folder / "a.obj").write_text(body or text)
    if mtl is not None:
        (folder / "a.mtl").write_text(mtl)
    return folder / "a.obj"


def test_obj_colours_are_srgb(tmp_path: Path) -> None:
    path = write_obj(tmp_path, "# palette\nnewmtl red\nKd 0.5 0.25 1 # warm\n")
    expected = decode_srgb(torch.tensor([0.5, 0.25, 1.0]))
    assert torch.allclose(load_mesh(path).materials[0].base_color, expected)  # type: ignore[arg-type]
    path = write_obj(tmp_path, None, body="v 0 0 0 .5 .25 1\nv 1 0 0 .5 .25 1\nv 0 1 0 .5 .25 1\nf 1 2 3\n")
    assert torch.allclose(load_mesh(path).vertex_colors, expected.expand(3, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kd", "expected"),
    [("\t0.5 0.25\t1", (0.5, 0.25, 1.0)), (" 0.5", (0.5, 0.5, 0.5)), (" 0.5 0.25 1 1", (0.5, 0.25, 1))],
)
def test_colours_of_many_exporters_are_read(tmp_path: Path, kd: str, expected: tuple[float, ...]) -> None:
    (material,) = load_mesh(write_obj(tmp_path, f"newmtl\tred\n\tKd{kd}\n")).materials
    assert material.name == "red"
    assert torch.allclose(material.base_color, decode_srgb(torch.tensor(expected)))  # type: ignore[arg-type]


def test_materials_of_several_files_are_read_whatever_else_they_say(tmp_path: Path) -> None:
    (tmp_path / "b.mtl").write_text("newmtl blue\nKs 0.2\nNs high\nKd 0 0 1\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl red\nf 1/1 2/2 3/3\nusemtl blue\nf 1/1 3/3 2/2\n"
    path = write_obj(tmp_path, "newmtl red\nKd 1 0 0\n", body=f"mtllib a.mtl\nmtllib b.mtl\n{corners}{faces}")
    colors = {m.name: m.base_color.tolist() for m in load_mesh(path).materials}  # type: ignore[union-attr]
    assert colors == {"red": [1, 0, 0], "blue": [0, 0, 1]}


def test_a_colour_that_is_none_names_file_and_material(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.mtl, material 'red', Kd: could not convert string to float: 'dark'"):
        load_mesh(write_obj(tmp_path, "newmtl red\nKd dark\n"))
    with pytest.raises(ValueError, match=r"a.mtl, material 'red', Kd: a colour has three numbers, or one"):
        load_mesh(write_obj(tmp_path, "newmtl red\nKd 0.5 0.5\n"))


@pytest.mark.parametrize("faces", ["f 1 2 3\n", "f 1/1 2/2 3/3\nf 1 3 4\n"])
def test_a_texture_that_lacks_uvs_in_obj_is_warned_of(tmp_path: Path, faces: str) -> None:
    corners = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nusemtl red\n"
    path = write_obj(tmp_path, "newmtl red\nKd 1 0 0\nmap_Kd wood.png\n", body=corners + faces)
    with pytest.warns(UserWarning, match=r"a.obj: not all faces of the material 'red' have uvs, .* wood.png is left"):
        (material,) = load_mesh(path).materials
    assert material.texture is None
    assert material.base_color is not None
    assert material.base_color.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("reference", ["wood.png", "tex\\wood.png", "-clamp on -s 1 1.0 1 wood.png", "my wood.png"])
def test_texture_references_of_many_exporters_are_found(tmp_path: Path, reference: str) -> None:
    name = reference.split("\\")[-1].split(" 1 ")[-1]
    folder = tmp_path / "tex" if "\\" in reference else tmp_path
    folder.mkdir(exist_ok=True)
    save_image(folder / name, codes_image(2, 3))
    mesh = load_mesh(write_obj(tmp_path, f"newmtl red\nmap_Kd {reference}\n"))
    assert mesh.materials[0].texture is not None
    assert torch.equal(mesh.materials[0].texture, codes_image(2, 3))


def test_a_missing_texture_names_the_file_and_who_asks(tmp_path: Path) -> None:
    path = write_obj(tmp_path, "newmtl red\nmap_Kd wood.png\n")
    with pytest.raises(FileNotFoundError, match=r"a.obj asks for the texture wood.png \(material 'red' in a.mtl\)"):
        load_mesh(path)
    path.with_suffix(".mtl").unlink()
    with pytest.raises(FileNotFoundError, match=r"a.obj asks for the material file a.mtl"):
        load_mesh(path)


@pytest.mark.parametrize("faces", ["f 1 2 3 4\n", "f -5 -4 -3 -2\n", "f 1 2 3\nf 1 3 4\n", "f 1 2 3\nf 1 3 4 5\n"])
def test_polygons_are_cut_into_triangles(tmp_path: Path, faces: str) -> None:
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0.5 0\n"  # the fifth lies on a side of the unit square
    mesh = load_mesh(write_obj(tmp_path, None, body=corners + faces))
    assert float(doubled_area(mesh)) == pytest.approx(2.0)
    assert bool((mesh.face_normals()[:, 2] >= 0).all())


def edit_gltf(path: Path, edit: object) -> None:
    header = json.loads(path.read_text())
    edit(header)  # type: ignore[operator]
    path.write_text(json.dumps(header))


def test_a_missing_gltf_texture_or_buffer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    save_mesh(path, grid(1, 1).replace(materials=(Material("wood", texture=codes_image(2, 2)),)))
    edit_gltf(path, lambda header: header["images"].__setitem__(0, {"uri": "my%20wood.png"}))
    with pytest.raises(
        FileNotFoundError, match=r"a.gltf asks for the file my%20wood.png \(texture of material 'wood'\)"
    ):
        load_mesh(path)
    save_image(tmp_path / "my wood.png", codes_image(2, 2))
    assert load_mesh(path).materials[0].texture is not None
    edit_gltf(path, lambda header: header["buffers"].__setitem__(0, {"uri": "a.bin", "byteLength": 8}))
    with pytest.raises(FileNotFoundError, match=r"a.gltf asks for the file a.bin \(buffer\)"):
        load_mesh(path)


def test_an_unreadable_gltf_texture_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    save_mesh(path, grid(1, 1).replace(materials=(Material("wood", texture=codes_image(2, 2)),)))
    (tmp_path / "wood.png").write_text("no image")
    edit_gltf(path, lambda header: header["images"].__setitem__(0, {"uri": "wood.png"}))
    with pytest.raises(ValueError, match="the texture of material 'wood' is in a format that cannot be read"):
        load_mesh(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h.update(extensionsRequired=["KHR_draco_mesh_compression"]), "is compressed .KHR_draco_mesh_compr"),
        (lambda h: h.update(extensionsRequired=["EXT_meshopt_compression"]), "save it uncompressed"),
        (lambda h: h["accessors"][accessor_of(h, "POSITION")].update(sparse={}), "stores POSITION sparsely"),
        (lambda h: h["accessors"][accessor_of(h, "POSITION")].update(normalized=True), r"stores POSITION .*quantized"),
        (lambda h: h["accessors"][accessor_of(h, "TEXCOORD_0")].update(componentType=5123), r"TEXCOORD_0 .*quantized"),
        (lambda h: h["meshes"][0].pop("primitives"), "speaks of what it does not hold, 'primitives'"),
        (lambda h: h["accessors"].clear(), "speaks of what it does not hold, list index"),
    ],
)
def test_gltf_whose_numbers_would_be_taken_for_others_is_an_error(tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "a.gltf"
    save_mesh(path, grid(1, 1).replace(materials=(Material("wood", texture=codes_image(2, 2)),)))
    edit_gltf(path, edit)
    with pytest.raises(ValueError, match=f"a.gltf .*{message}"):
        load_mesh(path)


def accessor_of(header: dict, name: str) -> int:
    return header["meshes"][0]["primitives"][0]["attributes"][name]


def test_a_second_set_of_uvs_of_gltf_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    save_mesh(path, grid(1, 1).replace(materials=(Material("wood", texture=codes_image(2, 2)),)))
    edit_gltf(path, lambda h: h["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"].update(texCoord=1))
    with pytest.warns(UserWarning, match="material 'wood' places its texture by a second set of uvs"):
        load_mesh(path)


def test_binary_data_is_no_obj(tmp_path: Path) -> None:
    for suffix in (".obj", ".stl"):
        (tmp_path / f"a{suffix}").write_bytes(bytes(range(256)) * 4)
        with pytest.raises(ValueError, match=rf"a{suffix} cannot be read as .*, it may be truncated: it is no text"):
            load_mesh(tmp_path / f"a{suffix}")


def test_node_transforms_are_applied_and_mirrors_keep_the_outside_outside(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    mesh = sphere(1)
    save_mesh(path, Mesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals()))

    def mirror(header: dict) -> None:
        for node in header["nodes"]:
            if "mesh" in node:
                node.pop("matrix", None)
                node |= {"scale": [-2.0, 1.0, 1.0], "translation": [5.0, 0.0, 0.0]}

    edit_gltf(path, mirror)
    back = load_mesh(path)
    assert torch.allclose(back.bounds(), torch.tensor([[3.0, -1.0, -1.0], [7.0, 1.0, 1.0]]), atol=1e-6)
    outward = back.vertices[back.faces].mean(1) - torch.tensor([5.0, 0.0, 0.0])
    assert bool(((outward * back.face_normals()).sum(-1) > 0).all())
    # an ellipsoid's normal is its gradient (x / 4, y, z); 42 vertices of a sphere give it to a few degrees
    gradient = (back.vertices - torch.tensor([5.0, 0.0, 0.0])) / torch.tensor([4.0, 1.0, 1.0])
    cosine = torch.nn.functional.cosine_similarity(gradient, back.normals())
    assert float(cosine.min()) > 0.99


@pytest.mark.parametrize("stored", ["float", "8 bits", "no material"])
def test_gltf_vertex_colours_are_linear(tmp_path: Path, stored: str) -> None:
    part = trimesh.Trimesh(np.eye(3), [[0, 1, 2]], process=False, vertex_colors=np.full((3, 4), 51, dtype=np.uint8))
    if stored == "no material":
        part.export(tmp_path / "a.glb")
    else:
        color = torch.full((3, 3), 0.2)
        save_mesh(tmp_path / "a.glb", Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), vertex_colors=color))
    back = load_mesh(tmp_path / "a.glb").vertex_colors
    assert back is not None
    assert torch.allclose(back, torch.full((3, 3), 0.2), atol=1e-7)  # 51 / 255


def test_texture_transform_of_gltf_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    save_mesh(path, grid(1, 1).replace(materials=(Material(texture=codes_image(2, 2)),)))

    def transform(header: dict) -> None:
        reference = header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        reference["extensions"] = {"KHR_texture_transform": {"offset": [0.25, 0.5], "scale": [0.5, 0.25]}}

    edit_gltf(path, transform)
    mesh = load_mesh(path)
    assert mesh.uvs is not None
    u, v = ((mesh.vertices[mesh.faces][..., :2] + 1) / 2).unbind(-1)
    # v points down in the file: 1 - v' = 0.5 + 0.25 (1 - v)
    expected = torch.stack([0.25 + 0.5 * u, 1 - (0.5 + 0.25 * (1 - v))], dim=-1)
    assert torch.allclose(mesh.uvs[mesh.uv_faces], expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_a_truncated_glb_is_one_clear_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.glb"
    save_mesh(path, painted())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"a.glb (is truncated|is no GLB file)") as raised:
        load_mesh(path)
    assert "\n" not in str(raised.value)


def test_a_glb_with_damaged_insides_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    save_mesh(path, sphere(1))
    data = bytearray(path.read_bytes())
    data[20:30] = b"#" * 10
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.glb cannot be read as GLB") as raised:
        load_mesh(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".ply", ".stl"])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_mesh(path, Mesh(sphere(1).vertices, sphere(1).faces))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"a{suffix} "):
        load_mesh(path)


def test_an_obj_cut_off_in_its_vertices_is_an_error(tmp_path: Path) -> None:
    path = write_obj(tmp_path, None, body="v 0 0 0\nv 1 0 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"a.obj "):
        load_mesh(path)


def test_a_mesh_with_nan_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    save_mesh(path, Mesh(sphere(1).vertices, sphere(1).faces))
    data = path.read_bytes()
    start = data.index(b"end_header\n") + len(b"end_header\n")
    path.write_bytes(data[:start] + struct.pack("<f", float("nan")) + data[start + 4 :])
    with pytest.raises(ValueError, match=r"a.ply is damaged: vertices holds 1 values that are NaN .* index \(0, 0\)"):
        load_mesh(path)


def test_unknown_suffixes_missing_files_and_empty_meshes_are_named(tmp_path: Path) -> None:
    supported = r"only .glb, .gltf, .obj, .ply, .stl can be"
    (tmp_path / "a.fbx").write_text("")
    with pytest.raises(ValueError, match=rf"a.fbx: {supported} read; got the suffix '.fbx'"):
        load_mesh(tmp_path / "a.fbx")
    with pytest.raises(FileNotFoundError, match=r"no such mesh file: .*b.fbx"):
        load_mesh(tmp_path / "b.fbx")
    with pytest.raises(IsADirectoryError, match=r"path must be a mesh file; .* is a folder"):
        load_mesh(tmp_path)
    with pytest.raises(ValueError, match=rf"{supported} written"):
        save_mesh(tmp_path / "a", sphere(0))
    with pytest.raises(FileNotFoundError, match=r"no such mesh file: .*a.obj"):
        load_mesh(tmp_path / "a.obj")
    with pytest.raises(TypeError, match="mesh must be a Mesh; got list: join makes one of a list"):
        save_mesh(tmp_path / "a.obj", [sphere(0)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mesh must have faces to be saved"):
        save_mesh(tmp_path / "a.obj", Mesh(torch.zeros(2, 3), torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        save_mesh(tmp_path / "gone" / "a.obj", sphere(0))
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(ValueError, match=r"points.obj holds no triangles"):
        load_mesh(tmp_path / "points.obj")


def test_joined_meshes_come_back(tmp_path: Path) -> None:
    mesh = join([painted(), cube().replace(vertices=cube().vertices + 5)])
    for suffix in FULL:
        save_mesh(tmp_path / f"a{suffix}", mesh)
        assert np.array_equal(corner_keys(load_mesh(tmp_path / f"a{suffix}")), corner_keys(mesh))


def test_spot_is_one_closed_surface_with_seams_in_uv_only(shared_data: Path) -> None:
    from_obj, from_glb = load_mesh(shared_data / "spot" / "cow.obj"), load_mesh(shared_data / "spot" / "spot.glb")
    positions = [line for line in (shared_data / "spot" / "cow.obj").read_text().splitlines() if line.startswith("v ")]
    for mesh in (from_obj, from_glb):
        assert mesh.num_vertices == len(positions)
        assert mesh.num_faces == 5856
        assert mesh.uvs is not None
        assert len(mesh.uvs) == 3225
        assert bool((mesh.topology.edge_count == 2).all())
        assert mesh.vertex_normals is None
        assert mesh.materials[0].texture is not None
        assert torch.equal(mesh.materials[0].texture, load_image(shared_data / "spot" / "cow_texture.png")[..., :3])
    expected = torch.tensor([[float(x) for x in line.split()[1:4]] for line in positions])
    assert torch.equal(from_obj.vertices, expected)
    assert torch.equal(from_obj.vertices[from_obj.faces], from_glb.vertices[from_glb.faces])
    assert torch.allclose(from_obj.uvs[from_obj.uv_faces], from_glb.uvs[from_glb.uv_faces], atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "num_faces", "num_materials", "num_textures"),
    [
        ("FlightHelmet.glb", 94722, 6, 6),
        ("avocado/avocado.gltf", 682, 1, 1),
        ("avocado/avocado.obj", 682, 1, 1),
        ("bob/bob_tri.obj", 10688, 1, 1),
        ("cakeBirthday.glb", 1332, 7, 0),
    ],
)
def test_real_models_open(shared_data: Path, name: str, num_faces: int, num_materials: int, num_textures: int) -> None:
    mesh = load_mesh(shared_data / "models" / name)
    assert mesh.num_faces == num_faces
    assert len(mesh.materials) == num_materials
    assert sum(m.texture is not None for m in mesh.materials) == num_textures
    scene = trimesh.load_scene(shared_data / "models" / name, process=False)
    assert np.allclose(mesh.bounds().numpy(), scene.bounds, atol=1e-6)  # float32 rounding of coordinates below 1
    assert float(scene.area) == pytest.approx(float(doubled_area(mesh) / 2), rel=1e-4)


def doubled_area(mesh: Mesh) -> Tensor:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1).sum()


def test_base_colours_of_the_cake_are_those_of_the_file_unrounded(shared_data: Path) -> None:
    path = shared_data / "models" / "cakeBirthday.glb"
    data = path.read_bytes()
    header = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    expected = {m["name"]: m["pbrMetallicRoughness"]["baseColorFactor"][:3] for m in header["materials"]}
    for material in load_mesh(path).materials:
        color = torch.ones(3) if material.base_color is None else material.base_color
        assert torch.equal(color, torch.tensor(expected[material.name]))


@pytest.mark.parametrize("name", ["spot/spot.glb", "models/avocado/avocado.obj", "models/FlightHelmet.glb"])
@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_real_models_survive_the_round_trip(shared_data: Path, tmp_path: Path, name: str, suffix: str) -> None:
    mesh = load_mesh(shared_data / name)
    mesh = mesh.replace(materials=tuple(Material(m.name, m.base_color, m.texture[:64]) for m in mesh.materials))  # type: ignore[index]
    save_mesh(tmp_path / f"a{suffix}", mesh)
    back = load_mesh(tmp_path / f"a{suffix}")
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert torch.equal(back.material_index, mesh.material_index)  # type: ignore[arg-type]
    assert torch.allclose(back.uvs[back.uv_faces], mesh.uvs[mesh.uv_faces], rtol=0, atol=1.2e-7)  # type: ignore[index]
    for ours, theirs in zip(mesh.materials, back.materials, strict=True):
        assert torch.equal(encode_srgb(ours.texture), encode_srgb(theirs.texture))  # type: ignore[arg-type]
