"""The architecture: imports point one way, and importing the package does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffrender as dr

PACKAGE = Path(__file__).resolve().parents[1] / "diffrender"

# Lower ones first; modules of one line may not import each other, except within one folder.
LAYERS = (
    ("checks", "derivatives", "gather", "precision", "steady"),
    ("topology",),
    ("mesh",),
    ("primitives", "subdivide", "remesh", "isosurface"),
    ("kernels",),
    ("cameras",),
    ("io",),
    ("scene",),
    ("intersections", "pixel_rays"),
    ("visibility",),
    ("fragments",),
    ("sampling",),
    ("shading", "reproject", "unwrap"),
    ("filtered",),
    ("turning", "rim"),
    ("boundary", "grazing"),
    ("render",),
    ("losses", "regularizers", "optim", "least_squares", "hull", "distances"),
    ("voxels",),
    ("resurface",),
    ("fit", "calibrate", "testing"),
    ("cli",),
    ("names",),
    ("__init__", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
IO_MAY_IMPORT = {"checks", "steady", "mesh", "cameras", "io"}  # it stands beside the stages of rendering
FILES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The folder below the package, or the module itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Units of the package that a file imports, also inside functions; not those only needed by a type checker."""
    tree = ast.parse(path.read_text())
    idle = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {id(child) for node in idle for child in ast.walk(node)}
    folder = ["diffrender", *path.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        names |= {module.split(".")[1] for module in modules if module.startswith("diffrender.")}
    return names & RANK.keys()


def test_every_module_has_its_place() -> None:
    assert {unit(path) for path in FILES} <= RANK.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = unit(path)
    if here == "io":
        assert imported(path) <= IO_MAY_IMPORT
    for name in imported(path) - {here, "__init__"}:
        assert RANK[name] < RANK[here], f"{here} imports {name}"


def test_only_kernels_know_warp() -> None:
    for path in FILES:
        if unit(path) != "kernels":
            roots = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom) and not node.level
                    else []
                )
            }
            assert "warp" not in roots, path


def test_names_are_functions_also_where_their_module_came_first() -> None:
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules & set(dr.__all__) == dr.LIKE_MODULES
    code = "".join(f"from diffrender.{name} import {name}\nassert dr.{name} is {name}\n" for name in dr.LIKE_MODULES)
    subprocess.run([sys.executable, "-c", "import diffrender as dr\n" + code], check=True, cwd=PACKAGE.parent)


def test_importing_the_package_prints_nothing_and_changes_nothing() -> None:
    """In a fresh process: no output, Warp not started, torch's settings and random state as they were.

    Libraries that are slow to import, and that not everybody needs, are not there yet.
    """
    code = """
import sys, threading, warnings
warnings.simplefilter("error")
import torch
torch.manual_seed(7)
before = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.random.get_rng_state())
threads = threading.active_count()
import diffrender
diffrender.render  # and all other names with it
after = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.random.get_rng_state())
assert before[:3] == after[:3] and torch.equal(before[3], after[3])
assert threading.active_count() == threads
import warp
runtime = warp._src.context.runtime if hasattr(warp, "_src") else warp.context.runtime
assert runtime is None, "importing started Warp"
slow = {"imageio", "kornia", "matplotlib", "networkx", "scipy", "trimesh", "cv2", "torch._dynamo"} & set(sys.modules)
assert not slow, slow
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
