"""Several processes that fit together: the result of one, and a clean end when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffrender.fit import FitSettings, fit, share
from diffrender.fit.checkpoint import load_checkpoint
from diffrender.fit.folder import CHECKPOINT
from diffrender.io.datasets import load_dataset

PROCESSES = 2


SETTINGS = FitSettings(steps=6, image_sizes=(16, 32), mesh_cells=16, turntable_frames=0)
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
PROGRAM = """
import sys
from diffrender.fit import FitSettings, fit, share
from diffrender.io.datasets import load_dataset
with share.joined():
    print(len(fit(load_dataset(sys.argv[1]), sys.argv[2], {settings!r}, progress=False).files))
"""


def launched(*command: str) -> "subprocess.Popen[str]":
    """`torchrun` with two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*LAUNCH, *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def test_alone_there_is_nothing_to_share():
    assert (share.count(), share.rank()) == (1, 0)
    assert share.own([3, 1, 2]) == [3, 1, 2]
    tensor = torch.ones(2)
    assert share.total([tensor])[0] is tensor
    assert share.of_the_first({"a": 1}) == {"a": 1}


def test_two_processes_give_the_result_of_one(small_set, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(settings=SETTINGS))
    together = launched(str(program), str(small_set), str(tmp_path / "two"))
    said, complaints = together.communicate(timeout=240)
    assert together.returncode == 0, complaints
    assert sorted(said.split()) == ["0", "6"]  # the first process writes
    images = load_dataset(small_set)
    fit(images, tmp_path / "one", SETTINGS, progress=False)
    state = load_checkpoint(tmp_path / "two" / CHECKPOINT, images.train, SETTINGS)
    # losses are sums of a few thousand pixels in another order; the largest entries of the derivatives, which decide
    # the step, agree to a few roundings, and six steps of Adam from nearly the same derivatives stay together
    both = load_checkpoint(tmp_path / "one" / CHECKPOINT, images.train, SETTINGS)
    assert [r["step"] for r in state["history"]] == list(range(6))
    for one, two in zip(both["history"], state["history"], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert torch.equal(state["base"]["faces"], both["base"]["faces"])
    torch.testing.assert_close(state["coordinates"], both["coordinates"], rtol=0, atol=1e-3)
    torch.testing.assert_close(state["colors"], both["colors"], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_two_processes_fit_a_texture_like_one(small_set, tmp_path):
    settings = replace(SETTINGS, steps=3, image_sizes=(16,), appearance="texture", texture_size=128)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(settings=settings))
    together = launched(str(program), str(small_set), str(tmp_path / "two"))
    _, complaints = together.communicate(timeout=240)
    assert together.returncode == 0, complaints
    images = load_dataset(small_set)
    fit(images, tmp_path / "one", settings, progress=False)
    states = [load_checkpoint(tmp_path / name / CHECKPOINT, images.train, settings) for name in ("one", "two")]
    (*first, last), (*others, other) = ([record["loss"] for record in state["history"]] for state in states)
    assert others == pytest.approx(first, rel=1e-4)
    # charts are as large as fits, which rounding decides: texels lie elsewhere, and what they show of colours at
    # vertices, several texels apart, is the same up to a small part of the loss
    assert states[1]["base"]["uvs"] is not None
    assert other == pytest.approx(last, rel=0.01)


def workers(launcher: int) -> dict[int, int]:
    """Rank to process id of the processes of a launcher, by what the operating system says of them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            entries = dict(x.split("=", 1) for x in (process / "environ").read_text().split("\0") if "=" in x)
        except (OSError, ValueError):
            continue
        if parent == launcher and "LOCAL_RANK" in entries:
            found[int(entries["RANK"])] = int(process.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_dies_the_others_end_and_the_fit_can_go_on(victim, small_set, tmp_path):
    out, steps = tmp_path / "out", 400
    fits = ["-m", "diffrender", "fit", str(small_set), "-o", str(out), "--steps", str(steps), "--detail", "16"]
    together = launched(*fits)
    deadline = time.monotonic() + 120
    while not (out / CHECKPOINT).is_file() or len(workers(together.pid)) < PROCESSES:
        assert together.poll() is None, together.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2.0)  # some steps
    os.kill(workers(together.pid)[victim], signal.SIGKILL)
    _, complaints = together.communicate(timeout=120)
    assert together.returncode != 0
    images, settings = load_dataset(small_set), FitSettings(steps=steps, mesh_cells=16)
    left = load_checkpoint(out / CHECKPOINT, images.train, settings)  # whole, and of this fit
    assert len(left["history"]) < steps
    if victim == 1:  # the first process saves its last whole step
        assert len(left["history"]) > 0
        assert "--resume" in complaints
