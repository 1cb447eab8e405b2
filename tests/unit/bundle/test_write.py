import zipfile

import pytest

from geodl.base.errors import OptionError, OutputError, OutputExistsError
from geodl.bundle import read_bundle
from geodl.bundle.write import check_name, write_package, zip_files


def test_a_new_folder_appears_whole_or_not_at_all(package, monkeypatch):
    def fail(path, content):
        if path.name == "points.emd":
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("geodl.bundle.write.write_atomic", fail)
    with pytest.raises(OutputError, match="points: No space left"):
        package.folder()
    assert not list(package.root.iterdir())


def test_saving_again_replaces_the_package_and_leaves_other_files(package):
    folder = package.folder()
    (folder / "notes.txt").write_text("mine")
    package.change(mIoU=0.75).folder()
    assert read_bundle(folder).metrics["mIoU"] == 0.75
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_not_touched(package):
    (package.root / "points").mkdir()
    (package.root / "points" / "work.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="something else"):
        package.folder()
    assert [p.name for p in (package.root / "points").iterdir()] == ["work.txt"]


def test_an_empty_folder_is_filled(package):
    (package.root / "points").mkdir()
    assert read_bundle(package.folder()).contract.tile_px == 64


def test_a_file_in_the_way_is_not_touched(package):
    (package.root / "points").write_text("mine")
    with pytest.raises(OutputExistsError):
        package.folder()


def test_the_parent_is_made(package):
    write_package(package.root / "a" / "b" / "points", package.files)
    assert read_bundle(package.root / "a" / "b" / "points").weights_name == "points.safetensors"


def test_the_zip_has_its_entries_at_the_root_and_is_the_same_each_time(package):
    with zipfile.ZipFile(package.dlpk()) as archive:
        assert sorted(archive.namelist()) == ["points.emd", "points.safetensors"]
        assert archive.testzip() is None
    assert zip_files(package.files) == zip_files(package.files)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a:b", 'a"', "a\\b"])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(OptionError, match="model's name"):
        check_name(name)
