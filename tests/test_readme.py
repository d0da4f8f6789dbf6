"""The README tells the truth: its code runs, its commands are those of CI, its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.strip().splitlines()[-1][:40])
def test_code_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_fit_block_finds_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in PYTHON_BLOCKS if "growth" in block]
    exec(compile(block, "README.md", "exec"), {})
    found = float(re.search(r"growth (\S+),", capsys.readouterr().out).group(1))  # type: ignore[union-attr]
    assert abs(found - 0.2) < 0.02


def test_ci_runs_the_readme_s_test_command() -> None:
    (command,) = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert not missing
