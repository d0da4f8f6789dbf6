"""The options of the commands and their help. Nothing here imports torch."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

MODELS = ("pinhole", "opencv", "rational", "fisheye", "thin_prism_fisheye", "unified", "double_sphere", "eucm")
CAMERAS = ("pinhole", "fisheye", "orthographic", "opencv")
COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5), "gray": (0.5, 0.5, 0.5)}
LARGEST_SIDE = 16384  # pixels: more is a slip of the finger, and takes GB for the image alone

_DESCRIPTION = """\
Render triangle meshes through any camera, and fit textured meshes to photographs with known cameras.
Everything is differentiable and runs on any machine; this is its command line."""

_EPILOG = """\
examples:
  diffrender render cow.glb -o cow.png                      a picture of the whole model
  diffrender render cow.glb --turntable cow.gif             turn it around
  diffrender fit dinoSparseRing -o dino                     photographs in, a mesh out
  diffrender calibrate photos/*.jpg --board 9x6 -o lens     a chessboard in, a camera out
  diffrender info cow.glb                                   what is in a file

`diffrender COMMAND --help` explains a command, with more examples.

exit status: 0 done; 2 something in the command or the files is wrong (one line says what); 130 interrupted;
1 a mistake of the program itself"""

_RENDER_DESCRIPTION = """\
Render a mesh file (.glb .gltf .obj .ply .stl) to a picture, and with --turntable to an animation. Without
options the camera sees the whole model from right of the front (+z; -y if z is up) and a little above, under soft
light with a key light from above left. Lengths are in the model's units, angles in degrees, sizes in pixels."""

_RENDER_EPILOG = """\
examples:
  diffrender render cow.glb -o cow.png
  diffrender render helmet.glb -o helmet.png --size 1024x1024 --background transparent
  diffrender render cow.glb -o wide.png --camera fisheye --fov 150 --background 0.1,0.1,0.2
  diffrender render cow.glb -o back.png --azimuth 180 --elevation 10
  diffrender render cow.glb -o side.png --eye 3,0.5,0 --target 0,0,0 --fov 40
  diffrender render scan.ply -o scan.png --up 0,0,1 --camera orthographic
  diffrender render cow.glb --turntable cow.gif --frames 60 --size 320x240

a camera file (JSON; x right, y down, z forward; the corner of the upper left pixel is (0, 0)):
  {"model": "opencv", "width": 640, "height": 480,
   "fx": 600, "fy": 600, "cx": 320, "cy": 240, "dist": [-0.2, 0.05, 0, 0],
   "R": [[1, 0, 0], [0, -1, 0], [0, 0, -1]], "t": [0, 0, 3]}
  fx, fy: pixels, for a fisheye pixels per radian, for an orthographic camera pixels per unit of length
  cx, cy: principal point, the middle if left out;  dist: opencv's coefficients;  k: the fisheye's k1 ... k4
  R, t: x_camera = R x_world + t; without them the model is framed, or --eye says where the camera is"""

_FIT_DESCRIPTION = """\
Fit a coloured mesh to photographs of one object with known cameras. DATASET is a folder with images and
  - *_par.txt: Middlebury multi-view, an object before black, or
  - transforms.json (or transforms_train.json and transforms_test.json): NeRF's format, images with alpha, or
  - images and sparse/0 (or the model itself): COLMAP's format, images with alpha, or masks/NAME.png.
The folder OUT gets report.html (everything to look at), the mesh, metrics.json, a plot of the convergence, a sheet of
target, fit and difference, a turntable, and checkpoints to resume from. Several processes share the views of a step:
torchrun --nproc-per-node 2 -m diffrender fit ..."""

_FIT_EPILOG = """\
examples:
  diffrender fit dinoSparseRing -o dino
  diffrender fit dinoSparseRing -o dino --hold-out dinoSR0005 dinoSR0012    measure on views that the fit never sees
  diffrender fit chair -o quick --steps 100 --detail 50                     a quick look
  diffrender fit chair -o chair --appearance texture --sheen 8              for fine patterns, satin and varnish
  diffrender fit shots -o cup --background 0,0.7,0.2 --exposure             before a green screen, lamps flicker
  diffrender fit dinoSparseRing -o dino --resume                            go on after an interruption (Ctrl-C)"""

_CALIBRATE_DESCRIPTION = """\
Calibrate a camera: intrinsics, distortion, their uncertainties, and the pose of the board in every view, from
photographs of a flat chessboard (which need OpenCV: pip install 'diffrender[calibrate]') or from a corner file (what
this command writes, or objectPoints, imagePoints and imageSize in OpenCV's XML or YAML).
The board is told by its inner corners, where four squares meet: one less than squares along a side. Ten or more views,
slanted and turned differently, with corners up to the borders of the image, make a good calibration.
The corners give a first answer, which then is refined on the pixels, by rendering the board: closer to the truth on
made-up photographs; on real ones no test could tell which is better (--corners-only leaves it out, and is faster).
The folder OUT gets camera.json (for `diffrender render --camera`), camera.yml (OpenCV's), transforms.json (NeRF's),
metrics.json, corners.json (to calibrate again without photographs), residuals.png, pixels.png and undistorted.png."""

_CALIBRATE_EPILOG = """\
examples:
  diffrender calibrate photos/*.jpg --board 9x6 --square 25 -o lens         lengths in the unit of --square
  diffrender calibrate photos --board 9x6 --model fisheye -o lens           all images of a folder
  diffrender calibrate lens/corners.json --model unified -o wide            another model, the same corners

models, narrow to wide:
  pinhole               straight lines stay straight
  opencv, rational      OpenCV's distortion with 5 and 8 coefficients
  fisheye               OpenCV's fisheye (Kannala-Brandt), 4 coefficients
  thin_prism_fisheye    the same with tangential and thin-prism terms (COLMAP's)
  unified               Mei's, OpenCV's omnidir: mirrors and lenses beyond 180 degrees, 4 coefficients
  double_sphere, eucm   two parameters for lenses of about 180 degrees"""

_UNDISTORT_DESCRIPTION = """\
Turn a photograph taken through a known lens into the picture that a pinhole in the same place takes: straight lines
become straight. The camera is a JSON file as for `diffrender render`, or a calibration file (.yml .xml) of OpenCV, ROS
or fisheye-calib-adapter. Of wide lenses at most 75 degrees from the axis are shown."""

_UNDISTORT_EPILOG = """\
examples:
  diffrender undistort left01.jpg --camera left_intrinsics.yml -o left01_straight.png
  diffrender undistort left01.jpg --camera left_intrinsics.yml -o whole.png --keep 1 --size 800x600"""

_INFO_DESCRIPTION = """\
Say what is in a mesh file (.glb .gltf .obj .ply .stl): its size, whether it is watertight, its materials and
textures; or in a set of images with cameras (see `diffrender fit --help`). Vertices at the same position count
as one for edges and components. Lengths are in the file's units."""

_INFO_EPILOG = """\
examples:
  diffrender info cow.glb
  diffrender info dinoSparseRing"""


class UsageError(Exception):
    """The command line itself is wrong; the message says how."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with whole help texts, that raises UsageError instead of printing the usage and exiting."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)  # type: ignore[arg-type]

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        return super().parse_known_args(None if args is None else joined_negatives(args), namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="diffrender", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"diffrender {metadata.version('diffrender')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_render(commands)
    _add_fit(commands)
    _add_calibrate(commands)
    _add_undistort(commands)
    _add_info(commands)
    return parser


def _add_render(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "render", help="a picture of a mesh", description=_RENDER_DESCRIPTION, epilog=_RENDER_EPILOG
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="mesh file: .glb .gltf .obj .ply .stl")
    output = parser.add_argument_group("what to write (one of them, or both)")
    output.add_argument("-o", "--output", metavar="IMAGE", type=Path, help="picture: .png .jpg, or .npy (linear)")
    output.add_argument("--turntable", metavar="FILE", type=Path, help="animation, all the way around: .gif .mp4")
    output.add_argument("--frames", metavar="N", type=positive_int, default=48, help="of the turntable (default 48)")
    output.add_argument("--overwrite", action="store_true", help="replace files of these names")

    camera = parser.add_argument_group("camera")
    camera.add_argument(
        "--camera", default="pinhole", metavar="CAMERA", help=f"{', '.join(CAMERAS)} or a file (default pinhole)"
    )
    camera.add_argument("--size", metavar="WxH", type=size, help="width x height in pixels (default 640x480)")
    camera.add_argument("--fov", metavar="DEG", type=number, help="view angle, top to bottom (default 35, fisheye 120)")
    camera.add_argument(
        "--dist",
        metavar="K,...",
        type=numbers(),
        help="lens distortion: opencv's k1,k2,p1,p2,... or fisheye's k1,..,k4",
    )
    camera.add_argument(
        "--azimuth", metavar="DEG", type=number, default=35.0, help="seen from so far right of the front (default 35)"
    )
    camera.add_argument(
        "--elevation", metavar="DEG", type=number, default=20.0, help="and from so far above (default 20)"
    )
    camera.add_argument(
        "--eye", metavar="X,Y,Z", type=numbers(3), help="where the camera is (default: frames the model)"
    )
    camera.add_argument("--target", metavar="X,Y,Z", type=numbers(3), help="what it looks at (default: the middle)")
    camera.add_argument("--up", metavar="X,Y,Z", type=numbers(3), default=(0.0, 1.0, 0.0), help="(default 0,1,0)")

    look = parser.add_argument_group("look")
    look.add_argument(
        "--background",
        metavar="COLOR",
        type=background,
        default=(1.0, 1.0, 1.0),
        help="white, black, grey, transparent, or r,g,b from 0 to 1 as seen on a screen (sRGB) (default white)",
    )
    look.add_argument("--unlit", action="store_true", help="colours as they are in the file, no lights")
    look.add_argument("--flat", action="store_true", help="show the facets: one normal for each face")
    look.add_argument(
        "--samples", metavar="N", type=positive_int, default=2, help="N x N look-ups of the surface a pixel (default 2)"
    )
    _add_debug(parser)


def _add_fit(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "fit", help="a mesh from photographs", description=_FIT_DESCRIPTION, epilog=_FIT_EPILOG
    )
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder of the image set, or its text file")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    views = parser.add_argument_group("views, by the names of their files; the suffix may be left out")
    views.add_argument(
        "--hold-out", metavar="NAME", nargs="+", action="extend", default=[], help="measure on these, do not fit them"
    )
    views.add_argument(
        "--views", metavar="NAME", nargs="+", action="extend", default=[], help="fit only these (default: all)"
    )
    views.add_argument(
        "--on-bad-image",
        choices=("refuse", "skip"),
        default="refuse",
        help="unreadable, or with an empty mask (default: refuse)",
    )
    views.add_argument(
        "--background", metavar="COLOR|FILE", type=backdrop, help="around the object: white, r,g,b, or a picture of it"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--steps", metavar="N", type=positive_int, help="optimizer steps; more is finer and slower")
    how.add_argument("--detail", metavar="N", type=positive_int, help="cells along the longest side of the mesh")
    how.add_argument("--start", choices=("hull", "sphere"), help="from the masks' visual hull (default) or a sphere")
    how.add_argument(
        "--topology", choices=("fixed", "free"), help="free: holes open where masks show them (default: fixed)"
    )
    how.add_argument(
        "--edges", choices=("even", "driven"), help="driven: shorter where images still pull (default: even)"
    )
    how.add_argument(
        "--appearance", choices=("vertex", "texture"), help="colours at vertices (default), or an image on the surface"
    )
    how.add_argument("--texture-size", metavar="N", type=positive_int, help="texels along its sides (default 1024)")
    how.add_argument(
        "--sheen", metavar="N", type=int, help="colours depend on the direction of view, in N ways (8 is plenty)"
    )
    how.add_argument(
        "--exposure", action="store_true", default=None, help="views differ in brightness and white balance"
    )
    how.add_argument(
        "--refine-cameras", action="store_true", default=None, help="poses may be a little off: correct them"
    )
    how.add_argument(
        "--refine-lens",
        action="store_true",
        default=None,
        help="focal lengths and distortion may be off, for all views alike: correct them",
    )
    how.add_argument("--seed", metavar="N", type=whole, help="of the random choices (default 0)")
    how.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu (default), cuda, or one of several: cuda:1")
    folder = parser.add_argument_group("if OUT holds a fit already").add_mutually_exclusive_group()
    folder.add_argument("--resume", action="store_true", help="go on from its last checkpoint")
    folder.add_argument("--overwrite", action="store_true", help="start again and replace it")
    _add_debug(parser)


def _add_calibrate(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "calibrate", help="a camera from chessboards", description=_CALIBRATE_DESCRIPTION, epilog=_CALIBRATE_EPILOG
    )
    parser.add_argument(
        "images", metavar="IMAGES", type=Path, nargs="+", help="photographs, folders of them, or one corner file"
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    parser.add_argument("--board", metavar="NxM", type=board, help="inner corners along its sides, as in 9x6")
    parser.add_argument("--square", metavar="LENGTH", type=number, help="side of a square (default 1)")
    parser.add_argument("--model", default="opencv", choices=MODELS, help="of the camera (default opencv)")
    parser.add_argument("--corners-only", action="store_true", help="do not refine on the pixels of the photographs")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier calibration in OUT")
    _add_debug(parser)


def _add_undistort(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "undistort",
        help="a photograph without distortion",
        description=_UNDISTORT_DESCRIPTION,
        epilog=_UNDISTORT_EPILOG,
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="photograph: .png .jpg ...")
    parser.add_argument("--camera", metavar="FILE", type=Path, required=True, help=".json, or calibration .yml .xml")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="picture: .png .jpg, or .npy")
    parser.add_argument("--overwrite", action="store_true", help="replace a file of this name")
    parser.add_argument(
        "--keep", metavar="A", type=share, default=0.0, help="0 crops to what is valid (default), 1 keeps everything"
    )
    parser.add_argument("--size", metavar="WxH", type=size, help="width x height of the picture (default: the same)")
    parser.add_argument(
        "--samples", metavar="N", type=positive_int, default=1, help="N x N look-ups a pixel (default 1)"
    )
    _add_debug(parser)


def _add_info(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "info", help="what is in a mesh file or image set", description=_INFO_DESCRIPTION, epilog=_INFO_EPILOG
    )
    parser.add_argument("path", metavar="MODEL|DATASET", type=Path, help="mesh file, or folder of images with cameras")
    _add_debug(parser)


def _add_debug(parser: Parser) -> None:
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")


def joined_negatives(arguments: Sequence[str]) -> list[str]:
    """`--eye -1,2,3` as `--eye=-1,2,3`: argparse would take the value for an option.

    >>> joined_negatives(["render", "--eye", "-1,2,3", "-o", "a.png"])
    ['render', '--eye=-1,2,3', '-o', 'a.png']
    """
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-[\d.]", argument) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def number(text: str) -> float:
    """A finite number."""
    return numbers(1)(text)[0]


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1; got {text!r}")
    return value


def whole(text: str) -> int:
    """A whole number of at least 0."""
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0; got {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def numbers(count: int | None = None) -> Callable[[str], tuple[float, ...]]:
    """A parser of `count` (None: any number of) finite numbers with commas between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or not all(map(math.isfinite, values)) or count not in (None, len(values)):
            wanted = "a number" if count == 1 else f"{count or 'some'} numbers with commas between them"
            raise argparse.ArgumentTypeError(f"must be {wanted}; got {text!r}")
        return values

    return parse


def size(text: str) -> tuple[int, int]:
    """`WxH` (or one number for a square) to (height, width).

    >>> size("640x480")
    (480, 640)
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, as in 640x480; got {text!r}")
    width, height = int(found[1]), int(found[2] or found[1])
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise argparse.ArgumentTypeError(f"must have sides from 1 to {LARGEST_SIDE} pixels; got {text!r}")
    return height, width


def board(text: str) -> tuple[int, int]:
    """`NxM` to (columns, rows).

    >>> board("9x6")
    (9, 6)
    """
    found = re.fullmatch(r"([0-9]{1,3})[xX]([0-9]{1,3})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be NxM, inner corners along two sides, as in 9x6; got {text!r}")
    return int(found[1]), int(found[2])


def background(text: str) -> tuple[float, float, float] | None:
    """A colour by its name or as r,g,b in sRGB; None for "transparent"."""
    if text == "transparent":
        return None
    if text in COLORS:
        return COLORS[text]
    try:
        r, g, b = numbers(3)(text)
    except argparse.ArgumentTypeError:
        r = g = b = -1.0
    if not all(0.0 <= value <= 1.0 for value in (r, g, b)):
        raise argparse.ArgumentTypeError(
            f"must be white, black, grey, transparent or r,g,b, each from 0 to 1 (not 255); got {text!r}"
        )
    return r, g, b


def backdrop(text: str) -> tuple[float, float, float] | Path:
    """What is around an object: a colour, or the file of a picture."""
    if Path(text).is_file():
        return Path(text)
    if Path(text).suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise argparse.ArgumentTypeError(f"names a picture that is not there: {text}")
    color = background(text)
    if color is None:
        raise argparse.ArgumentTypeError("must be a colour or a picture: alpha needs no background")
    return color
