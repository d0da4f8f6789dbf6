"""Is it a camera? An instrument for authors of cameras that says what is wrong, and what to do about it."""

from dataclasses import dataclass

import torch

from ..cameras import Camera
from .questions import QUESTIONS, Answer, Subject


@dataclass(frozen=True)
class Finding:
    """One question to a camera.

    Attributes:
        name: of the question, such as `pixel -> ray -> pixel`.
        ok: whether the camera passed.
        measured: the figure, in words.
        advice: what to do; empty if it passed.
    """

    name: str
    ok: bool
    measured: str
    advice: str = ""


@dataclass(frozen=True)
class CameraReport:
    """All findings about one camera: print it, ask `ok`, or let `check()` raise."""

    camera: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.ok)

    def check(self) -> None:
        """Raise AssertionError with the whole table unless everything is in order."""
        if not self.ok:
            raise AssertionError(f"{len(self.failures)} findings\n{self}")

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        lines = [self.camera]
        for finding in self.findings:
            lines.append(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<{width}}  {finding.measured}")
            if finding.advice:
                lines.append(f"      {'':<{width}}  -> {finding.advice}")
        return "\n".join(lines)


def check_camera(camera: Camera) -> CameraReport:
    """Ask a camera everything that rendering, fitting and reprojection take for granted.

    Round trips from pixels to rays and back, and from points; depth along rays; slopes by points, pixels and every
    parameter against finite differences; batches against their members; masks; what happens to gradients where nothing
    is seen; precision; jumps; crop and resize. It looks at what lies in the image and around it, and cannot know what
    the lens ought to look like. Of a batched camera the first is examined. It works in float64, for a second or two.

    >>> from diffrender import PinholeCamera
    >>> report = check_camera(PinholeCamera(50.0, 50.0, 32.0, 24.0, size=(48, 64)))
    >>> report.ok
    True
    """
    if not isinstance(camera, Camera):
        raise TypeError(
            f"camera must be a diffrender.Camera; got {type(camera).__name__}: subclass Camera or RayCamera"
        )
    if camera.batch_shape.numel() == 0:
        raise ValueError(f"camera must hold at least one camera; its batch has the shape {tuple(camera.batch_shape)}")
    one = camera[(0,) * len(camera.batch_shape)] if camera.batch_shape else camera
    findings: list[Finding] = []
    subject = None
    for name, question, if_it_raises in QUESTIONS:
        try:
            if subject is None:
                subject = Subject.of(one)
            for answer in question(subject):
                findings.append(_finding(name, answer))
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            findings.append(Finding(name, False, f"raised {type(error).__name__}: {first_line}", if_it_raises))
        if subject is None or not len(subject.xy):
            break  # nothing to ask without a ray
    return CameraReport(repr(one.to(dtype=torch.float64)), tuple(findings))


def _finding(name: str, answer: Answer) -> Finding:
    return Finding(f"{name} {answer.of}".rstrip(), answer.ok, answer.measured, "" if answer.ok else answer.advice)
