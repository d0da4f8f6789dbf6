"""What may happen to a fit that runs overnight: it is killed, the disk fills up, a step ends in NaN."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diffrender.fit.folder as folder_module
import diffrender.fit.trainer as trainer_module
from diffrender.cli import main
from diffrender.fit import FitSettings, fit
from diffrender.fit.checkpoint import load_checkpoint, save_checkpoint
from diffrender.fit.folder import CHECKPOINT, claimed
from diffrender.fit.trainer import Trainer
from diffrender.fit.views import usable
from diffrender.io.datasets import load_dataset
from diffrender.io.images import save_image
from diffrender.io.meshes import load_mesh

SETTINGS = FitSettings(
    steps=8, image_sizes=(16, 32), mesh_cells=16, views_per_step=2, checkpoint_every=1, turntable_frames=0
)

# Forks a process for each line that it reads, which fits, and says its id and how it ended: lives without the seconds
# that imports take.
LIVES = f"""
import json, os, sys, traceback
from diffrender.fit import FitSettings, fit
from diffrender.io.datasets import load_dataset
import matplotlib.backends.backend_agg, matplotlib.figure
for line in sys.stdin:
    folder, out, resume = json.loads(line)
    life = os.fork()
    if life == 0:
        try:
            fit(load_dataset(folder), out, {SETTINGS!r}, resume=resume, progress=False)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(life, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)
"""


class Lives:
    """Processes that fit, and can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", LIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def live(self, out: Path, *, seconds: float | None = None) -> int:
        """Exit status of a fit into `out`, resumed where there is something to resume, killed after `seconds`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(self.folder), str(out), (out / CHECKPOINT).is_file()]) + "\n")
        self.process.stdin.flush()
        life = int(self.process.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            with suppress(ProcessLookupError):  # it was done already
                os.kill(life, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def timeless(value):
    """`value` without the times that a fit took."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kills", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_a_fit_killed_at_random_moments_ends_as_if_it_had_never_been(kills, small_set, tmp_path):
    lives, chance = Lives(small_set), random.Random(kills)
    try:
        lives.live(tmp_path / "warm")  # kernels may have to be compiled
        started = time.perf_counter()
        assert lives.live(tmp_path / "whole") == 0
        whole = time.perf_counter() - started
        killed, fits = 0, 0
        while killed < kills:
            out = tmp_path / f"out{fits}"
            while (status := lives.live(out, seconds=chance.uniform(0.0, whole) if killed < kills else None)) != 0:
                assert status == -signal.SIGKILL
                killed += 1
            fits += 1
            assert sorted(x.name for x in out.iterdir()) == sorted(x.name for x in (tmp_path / "whole").iterdir())
            assert (out / "mesh.glb").read_bytes() == (tmp_path / "whole" / "mesh.glb").read_bytes()
            metrics, expected = (
                timeless(json.loads((x / "metrics.json").read_text())) for x in (out, tmp_path / "whole")
            )
            assert metrics == expected
    finally:
        lives.end()


def test_a_killed_fit_leaves_no_file_that_stays(small_set, tmp_path):
    half = tmp_path / ".checkpoint-0123456789ab.pt"
    half.write_bytes(b"half")
    fit(load_dataset(small_set), tmp_path, SETTINGS, progress=False)  # they do not count as files of the user's
    assert not half.exists()


class Disk:
    """A disk, or a folder, that takes only so many whole files, and can be given more room."""

    def __init__(self, monkeypatch, room, folder=Path("/")):
        self.room = room
        whole = Path.write_bytes

        def write(path, content):
            if folder not in path.parents:
                return whole(path, content)
            if self.room == 0:
                whole(path, bytes(content)[:10])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= 1
            return whole(path, content)

        monkeypatch.setattr(Path, "write_bytes", write)


def at_step(monkeypatch, number, happens):
    """Call `happens` before a fit's step of that number."""
    step = Trainer.step

    def watched(self):
        if len(self.history) == number:
            happens()
        return step(self)

    monkeypatch.setattr(Trainer, "step", watched)


def interrupt():
    raise KeyboardInterrupt


def test_a_checkpoint_that_finds_no_room_is_noted_and_the_fit_goes_on(small_set, tmp_path, monkeypatch):
    images = load_dataset(small_set)
    disk = Disk(monkeypatch, room=4)
    at_step(monkeypatch, 6, lambda: setattr(disk, "room", 100))
    result = fit(images, tmp_path / "out", SETTINGS, progress=False)
    assert [note.split(":")[0] for note in result.notes] == [f"no checkpoint at step {k}" for k in (4, 5, 6)]
    assert "No space left" in result.notes[0]
    assert len(load_checkpoint(tmp_path / "out" / CHECKPOINT, images.train, SETTINGS)["history"]) == 8


def test_a_full_disk_at_the_end_says_what_there_is_and_how_to_go_on(small_set, tmp_path, monkeypatch, capsys):
    disk = Disk(monkeypatch, room=2)
    out = tmp_path / "out"
    assert main(["fit", str(small_set), "-o", str(out), "--steps", "4", "--detail", "16"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"No space left on device; {out} holds checkpoint.pt; with more room, to go on: diffrender fit" in said
    assert [x.name for x in out.iterdir()] == [CHECKPOINT]
    disk.room = 100
    assert main(["fit", str(small_set), "-o", str(out), "--steps", "4", "--detail", "16", "--resume"]) == 0


def test_a_full_disk_at_the_end_loses_no_step_where_there_is_another(small_set, tmp_path, monkeypatch, capsys):
    out, refuge = tmp_path / "out", tmp_path / "refuge"
    refuge.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(refuge))
    disk = Disk(monkeypatch, room=1, folder=out)
    command = ["fit", str(small_set), "-o", str(out), "--steps", "4", "--detail", "16"]
    assert main(command) == 2
    (kept,) = refuge.glob("*/checkpoint.pt")
    assert f"the last step is kept in {kept}, move it to {out}; {out} holds" in capsys.readouterr().err
    disk.room = 100
    shutil.move(kept, out / CHECKPOINT)
    monkeypatch.setattr(Trainer, "step", None)  # there is no step left to be done
    assert main([*command, "--resume"]) == 0


def test_a_folder_that_vanishes_is_made_again(small_set, tmp_path, monkeypatch):
    out = tmp_path / "out"
    at_step(monkeypatch, 3, lambda: shutil.rmtree(out))
    result = fit(load_dataset(small_set), out, SETTINGS, progress=False)
    assert all(file.is_file() for file in result.files)


def test_an_image_that_vanishes_ends_the_fit_with_what_there_is(small_set, tmp_path, monkeypatch, capsys):
    whole = fit(load_dataset(small_set), tmp_path / "whole", SETTINGS, progress=False)
    folder, out = tmp_path / "set", tmp_path / "out"
    shutil.copytree(small_set, folder)
    with monkeypatch.context() as patched:
        at_step(patched, 3, (folder / "3.png").unlink)
        with pytest.raises(OSError, match=r"3\.png; the fit was kept at step \d: repair it, and go on with resume"):
            fit(load_dataset(folder), out, SETTINGS, progress=False)
    assert (out / "mesh.glb").is_file()
    shutil.copy(small_set / "3.png", folder)
    resumed = fit(load_dataset(folder), out, SETTINGS, resume=True, progress=False)
    assert torch.equal(resumed.mesh.vertices, whole.mesh.vertices)


def test_a_folder_belongs_to_one_fit_at_a_time(small_set, tmp_path, capsys):
    with claimed(tmp_path, resume=False, overwrite=False):
        for way in ([], ["--overwrite"]):
            assert main(["fit", str(small_set), "-o", str(tmp_path), "--steps", "1", *way]) == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert f"another fit is writing into {tmp_path}: choose another folder, or end it" in said
        assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path, resume=False, overwrite=False):
        pass  # free again


def test_a_limit_of_the_operating_system_on_files_leaves_the_old_checkpoint(small_set, tmp_path):
    images = load_dataset(small_set)
    fit(images, tmp_path, FitSettings(**{**vars(SETTINGS), "steps": 2}), progress=False)
    before = (tmp_path / CHECKPOINT).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fit(images, tmp_path, SETTINGS, overwrite=True, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not [x for x in tmp_path.iterdir() if x.name.startswith(".")]


def spoiled(monkeypatch, steps, spoil):
    """Apply `spoil` to the image losses of those of the calls that are in `steps`."""
    whole, calls = trainer_module._image_losses, iter(range(1000))

    def losses(*arguments):
        color, silhouette = whole(*arguments)
        return (spoil(color), silhouette) if next(calls) in steps else (color, silhouette)

    monkeypatch.setattr(trainer_module, "_image_losses", losses)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda loss: loss * float("nan"), "the loss"),
        (
            lambda loss: loss + (loss - loss.detach()).sqrt(),
            "a derivative of the loss",
        ),
    ],
)
def test_a_step_that_ends_in_nan_is_taken_back_and_made_smaller(spoil, reason, small_set, monkeypatch):
    images = load_dataset(small_set).train
    trainer = Trainer(images, SETTINGS)
    spoiled(monkeypatch, {3}, spoil)
    records = [trainer.step() for _ in range(3)]
    before = trainer.mesh()
    assert trainer.step().step == 2  # the third step, done again
    assert trainer.incidents == [
        f"{reason} became infinite or not a number at step 3: went back to step 2, with 0.5 of the step size until the "
        "end of the stage"
    ]
    assert not torch.equal(trainer.mesh().vertices, before.vertices)
    assert trainer.history[-1].loss == records[2].loss  # of the same mesh and views
    while not trainer.done:
        trainer.step()
    assert len(trainer.history) == 8
    assert trainer.mesh().vertices.isfinite().all()


def test_a_fit_with_a_nan_says_so_and_resumes_with_the_same_bits(small_set, tmp_path, monkeypatch):
    images = load_dataset(small_set)
    with monkeypatch.context() as patched:
        spoiled(patched, {3}, lambda loss: loss * float("nan"))
        result = fit(images, tmp_path / "whole", SETTINGS, progress=False)
    assert ["went back to step 2" in note for note in result.notes] == [True]
    with monkeypatch.context() as patched:
        spoiled(patched, {3}, lambda loss: loss * float("nan"))
        at_step(patched, 4, interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(images, tmp_path / "out", SETTINGS, progress=False)
    resumed = fit(images, tmp_path / "out", SETTINGS, resume=True, progress=False)
    assert torch.equal(resumed.mesh.vertices, result.mesh.vertices)
    assert resumed.notes == result.notes


def test_a_fit_that_only_ends_in_nan_gives_up_with_a_checkpoint(small_set, tmp_path, monkeypatch):
    images = load_dataset(small_set)
    spoiled(monkeypatch, range(3, 1000), lambda loss: loss * float("nan"))
    with pytest.raises(FloatingPointError, match=r"also with 0\.00390625 of the step size: please report"):
        fit(images, tmp_path, SETTINGS, progress=False)
    assert len(load_checkpoint(tmp_path / CHECKPOINT, images.train, SETTINGS)["history"]) == 3
    assert load_mesh(tmp_path / "mesh.glb").num_faces > 0


def test_one_face_with_a_huge_derivative_neither_makes_a_thorn_nor_stops_the_rest():
    gradient = 1e-3 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    gradient[::2] = 0.0  # what no view sees
    gradient[7] = torch.tensor([30.0, 40.0, 0.0])
    limited = trainer_module._without_outliers(gradient)
    others = torch.arange(1000) != 7
    assert torch.equal(limited[others], gradient[others])
    # the 99th percentile of lengths of normal vectors is 3.4 standard deviations
    assert 0.025 < float(limited[7].norm()) < 0.045
    torch.testing.assert_close(limited[7] / limited[7].norm(), torch.tensor([0.6, 0.8, 0.0]))
    assert trainer_module._without_outliers(torch.zeros(4, 3)).equal(torch.zeros(4, 3))


def test_doubts_about_the_start_are_said_at_once_and_stay(small_set, tmp_path, monkeypatch, capsys):
    images = load_dataset(small_set)
    cameras = list(images.cameras)
    cameras[2], cameras[5] = cameras[5], cameras[2]
    settings = FitSettings(**{**vars(SETTINGS), "steps": 2})
    result = fit(replace(images, cameras=tuple(cameras)), tmp_path, settings)
    assert ["are probably wrong" in note for note in result.notes] == [True]
    assert "note: what all 8 masks see in common" in capsys.readouterr().err
    assert "are probably wrong" in (tmp_path / "report.html").read_text()


@pytest.fixture
def spoiled_set(small_set, tmp_path):
    """The image set with one file that ends in the middle: its header is right, so only decoding tells."""
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    content = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(content[: len(content) // 2])
    return folder


def test_an_unreadable_image_is_refused_before_anything_is_written(spoiled_set, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["fit", str(spoiled_set), "-o", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "3.png cannot be read" in said
    assert "--on-bad-image skip" in said
    assert not out.exists()


def test_an_unreadable_image_is_left_out_if_the_user_says_so(spoiled_set, tmp_path):
    result = fit(load_dataset(spoiled_set), tmp_path / "out", SETTINGS, on_bad_image="skip", progress=False)
    assert [row["view"] for row in result.metrics["views"]["train"]] == [f"{k}.png" for k in (0, 1, 2, 4, 5, 6, 7)]
    assert ["3.png is left out" in note for note in result.notes] == [True]
    with pytest.raises(ValueError, match="on_bad_image must be 'refuse' or 'skip'; got 'ignore'"):
        fit(load_dataset(spoiled_set), tmp_path / "other", SETTINGS, on_bad_image="ignore")


@pytest.mark.parametrize("name", ["3.png", "8.png"], ids=["to fit", "held out"])
def test_an_empty_mask_is_an_image_that_cannot_be_used(name, small_set, tmp_path):
    shutil.copytree(small_set, tmp_path, dirs_exist_ok=True)
    save_image(tmp_path / name, torch.zeros(32, 28, 4))
    with pytest.raises(ValueError, match=rf"{name} shows nothing, its mask is empty.*--on-bad-image skip"):
        usable(load_dataset(tmp_path), skip=False)
    images, notes = usable(load_dataset(tmp_path), skip=True)
    assert name not in images.names
    assert [note.split(":")[0] for note in notes] == [f"{name} is left out"]
    for k in range(9):
        save_image(tmp_path / f"{k}.png", torch.zeros(32, 28, 4))
    with pytest.raises(ValueError, match="and 8 more of 9 images are like that"):
        usable(load_dataset(tmp_path), skip=True)


@pytest.mark.parametrize("content", [None, b"", b"no image at all"], ids=["missing", "empty", "garbage"])
def test_files_that_are_no_images_can_be_left_out(content, small_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    (folder / "3.png").unlink()
    if content is not None:
        (folder / "3.png").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=r"3\.png"):
        load_dataset(folder)
    images, notes = usable(load_dataset(folder, keep_unreadable=True), skip=True)
    assert images.names == tuple(f"{k}.png" for k in (0, 1, 2, 4, 5, 6, 7, 8))
    assert ["3.png is left out: " in note for note in notes] == [True]


def test_the_command_line_leaves_out_what_is_no_image(small_set, tmp_path, capsys):
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    (folder / "3.png").write_bytes(b"")
    command = ["fit", str(folder), "-o", str(tmp_path / "out"), "--steps", "1", "--detail", "16"]
    assert main(command) == 2
    assert "3.png cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--on-bad-image", "skip"]) == 0
    assert "note: 3.png is left out" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_is_an_interruption(number, small_set, tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
    out = tmp_path / "out"
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        assert main(["fit", str(small_set), "-o", str(out), "--steps", "6", "--detail", "16"]) == 130
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert f"interrupted; {out} holds checkpoint.pt, mesh.glb; to go on:" in capsys.readouterr().err.splitlines()[-1]


def test_a_terminal_that_closes_does_not_end_a_fit_under_nohup(small_set, tmp_path, monkeypatch):
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        assert main(["fit", str(small_set), "-o", str(tmp_path), "--steps", "2", "--detail", "16"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interruption_does_not_cost_the_checkpoint(small_set, tmp_path, monkeypatch):
    images, interruptions = load_dataset(small_set), iter([None])

    def impatient(*arguments):
        if interrupted:
            for _ in interruptions:
                raise KeyboardInterrupt
        save_checkpoint(*arguments)

    def once():
        interrupted.append(True)
        interrupt()

    interrupted = []
    monkeypatch.setattr(folder_module, "save_checkpoint", impatient)
    at_step(monkeypatch, 3, once)
    with pytest.raises(KeyboardInterrupt):
        fit(images, tmp_path, FitSettings(**{**vars(SETTINGS), "checkpoint_every": 100}), progress=False)
    assert len(load_checkpoint(tmp_path / CHECKPOINT, images.train, SETTINGS)["history"]) == 3
