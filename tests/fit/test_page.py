"""The report: one file that needs nothing else, and that a browser shows."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from diffrender.fit import FitSettings, fit
from diffrender.fit.page import _plot
from diffrender.fit.trainer import Record
from diffrender.io.datasets import load_dataset
from diffrender.io.images import load_image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def page(small_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "a <folder>"
    settings = FitSettings(steps=6, image_sizes=(16, 32), mesh_cells=16, views_per_step=2, turntable_frames=3)
    result = fit(load_dataset(small_set), out, settings, progress=False)
    assert out / "report.html" in result.files
    return out / "report.html"


class Tags(HTMLParser):
    """All tags in the order of their beginning; complains about those that are closed wrongly."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("img", "input", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_report_is_one_whole_file_with_everything_in_it(page):
    text = page.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    pictures = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(pictures) == 4 * 9 + 1  # of each view, and the turntable
    assert all(picture["src"].startswith("data:image/") and picture["alt"] for picture in pictures)
    assert not re.search(r"https?://|url\(|<link|<script src", text)  # nothing from elsewhere
    assert [attributes["type"] for tag, attributes in tags.found if tag == "input"] == ["range"] * 9
    assert "<h1>a &lt;folder&gt;</h1>" in text
    for said in (
        "held out",
        "Convergence",
        "Held-out views over time",
        "stage 2",
        "mesh_cells",
        "torch",
        "self_intersections",
        "flipped",
    ):
        assert said in text


def browse(address, profile, *options):
    """What a headless browser writes to standard output about a page, of which its console has nothing to say."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", *options, address]
    seen = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    said = [
        line for line in seen.stderr.splitlines() if "CONSOLE" in line
    ]  # scripts that fail, pictures that are broken
    assert not said
    return seen.stdout


def test_a_browser_shows_the_report(page, tmp_path):
    browse(page.as_uri(), tmp_path / "profile", "--window-size=1200,1400", f"--screenshot={tmp_path / 'page.png'}")
    seen = load_image(tmp_path / "page.png")[..., :3]
    assert seen.shape == (1400, 1200, 3)
    assert float(seen[:4, :4].mean()) > 0.9  # the page's light ground
    assert float((seen.amax(-1) < 0.01).float().mean()) > 0.05  # pictures before black
    apart = seen.amax(-1) - seen.amin(-1)
    assert float((apart > 0.1).float().mean()) > 0.01  # in colour


def test_sliders_move_the_border_between_photograph_and_fit(page, tmp_path):
    hand = """<script>
        const slider = document.querySelectorAll('input[type=range]')[1];
        slider.value = 20;
        slider.dispatchEvent(new Event('input'));
        document.title = document.images.length + ' of ' + [...document.images].filter(x => x.naturalWidth > 0).length;
    </script>"""
    (tmp_path / "moved.html").write_text(page.read_text() + hand)
    seen = browse((tmp_path / "moved.html").as_uri(), tmp_path / "profile", "--dump-dom")
    assert re.findall(r'class="compare" style="--x: *(\d+%);?"', seen) == ["20%"]  # of that view only
    assert "<title>37 of 37</title>" in seen  # four pictures of each of nine views and the turntable, all decoded


def test_plots_of_nothing_say_so():
    assert "Too few steps" in _plot([])
    assert "Too few steps" in _plot([Record(0, 0, 1.0, 1.0, 1.0)])


def test_losses_of_zero_do_not_break_the_plot():
    records = [Record(k, k // 5, 0.1 / (k + 1), 0.0, 0.05) for k in range(1000)]
    drawn = _plot(records)
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert drawn.count("<polyline") == 3
    marks = re.findall(r'text-anchor="middle">(\d+)<', drawn)
    assert marks == ["0", "200", "400", "600", "800"]
    assert " 708.0," in drawn  # the last step, at the right border


@pytest.mark.parametrize("count", [2, 3, 6, 7, 100])
def test_steps_are_marked_by_round_numbers(count):
    marks = re.findall(r'text-anchor="middle">(\d+)<', _plot([Record(k, 0, 1.0 + k, 1.0, 1.0) for k in range(count)]))
    assert 2 <= len(marks) <= 6
    assert int(marks[-1]) <= count - 1
