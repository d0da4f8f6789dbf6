from pathlib import Path

import pytest

from diffrender.io.files import atomic_path


def test_the_temporary_path_lies_beside_the_target_and_keeps_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.v2.glb") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".glb"
        assert not temporary.exists()
        temporary.write_text("new")
        assert not (tmp_path / "model.v2.glb").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model.v2.glb"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_success_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    target.write_text("old")
    with atomic_path(str(target)) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    message = r"note.txt: the folder .*nowhere does not exist"
    with pytest.raises(FileNotFoundError, match=message), atomic_path(tmp_path / "nowhere" / "note.txt"):
        pass


def test_an_error_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    (tmp_path / "taken.txt").mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic_path(tmp_path / "taken.txt") as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(tmp_path / "taken.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.txt"]
