import os
import stat
import zipfile

import pytest

from geodl.base.errors import BundleError, SourceNotFoundError
from geodl.bundle.archive import open_package, plain_name
from geodl.bundle.read import read_bundle

UNSAFE = [
    "../evil.txt",
    "/etc/evil",
    "a/../../evil",
    "C:/evil",
    "c:evil",
    "..\\evil",
    "\\\\host\\share\\evil",
    "bad\x01name",
]


@pytest.mark.parametrize("name", [*UNSAFE, "", ".", "./", ".."])
def test_names_that_leave_the_package_are_refused(name):
    with pytest.raises(BundleError, match="inside the package"):
        plain_name(name, "x")


def test_esris_spelling_of_a_file_beside_the_emd_is_read():
    assert plain_name(".\\weights\\a.safetensors", "x") == "weights/a.safetensors"


@pytest.mark.parametrize("name", UNSAFE)
def test_a_zip_with_an_unsafe_name_is_refused_whole(package, write_zip, name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    path = write_zip(package.root / "x.dlpk", {**package.files, info: b"x"})
    with pytest.raises(BundleError, match=r"x\.dlpk"):
        open_package(path)
    assert not list(package.root.parent.glob("evil*"))


def test_a_link_in_a_zip_is_refused(package, write_zip):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(package.root / "x.dlpk", {**package.files, info: b"/etc/passwd"})
    with pytest.raises(BundleError, match="link"):
        open_package(path)


def test_a_bomb_is_refused_before_it_is_unpacked(package, write_zip):
    path = write_zip(package.root / "x.dlpk", {**package.files, "bomb": bytes(50 * 2**20)})
    with pytest.raises(BundleError, match=r"'bomb' would unpack to 52428800"):
        open_package(path)


def test_sizes_and_numbers_of_members_are_bounded(package, monkeypatch):
    path = package.dlpk()
    for limit in ("MEMBERS_LIMIT", "MEMBER_LIMIT_BYTES", "TOTAL_LIMIT_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"geodl.bundle.archive.{limit}", 1)
            with pytest.raises(BundleError, match=r"points\.dlpk"):
                open_package(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_members_of_one_name_are_refused(package, write_zip):
    twin = zipfile.ZipInfo("points.emd")
    path = write_zip(package.root / "x.dlpk", {**package.files, twin: b"{}"})
    with pytest.raises(BundleError, match="two files of the same name"):
        open_package(path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_zip_is_refused(package, keep):
    path = package.dlpk()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(BundleError, match=r"points\.dlpk is no readable DLPK"):
        open_package(path)


def test_damaged_content_is_found_by_its_checksum(package):
    path = package.dlpk()
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("points.safetensors")
    content[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"'points\.safetensors' is damaged"):
        read_bundle(path)


def test_a_zip_in_a_single_top_folder_with_foreign_entries_is_read(package, write_zip):
    members = {f"top/{name}": content for name, content in package.files.items()}
    path = write_zip(package.root / "x.dlpk", {**members, "esriinfo/iteminfo.xml": b"<x/>"})
    assert read_bundle(path).sha256 == read_bundle(package.folder()).sha256


def test_two_definitions_are_refused_in_zip_and_folder(package, write_zip):
    folder = package.folder()
    (folder / "second.emd").write_text("{}")
    for path in (folder, package.dlpk(**{"second.emd": b"{}"})):
        with pytest.raises(BundleError, match="2 model definitions"):
            open_package(path)
    assert read_bundle(folder / "points.emd").contract.model_name == "PointClassifier"


def test_no_definition_is_refused(tmp_path, write_zip):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", write_zip(tmp_path / "x.dlpk", {"a.txt": b"a"})):
        with pytest.raises(BundleError, match="no model definition"):
            open_package(path)


def test_what_is_not_there_or_no_package_is_said(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"missing\.emd"):
        open_package(tmp_path / "missing.emd")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(BundleError, match=r"a\.txt is no model package"):
        open_package(tmp_path / "a.txt")


def test_a_link_out_of_a_folder_is_refused(package):
    folder = package.folder()
    weights = folder / "points.safetensors"
    outside = package.root / "outside.safetensors"
    os.replace(weights, outside)
    weights.symlink_to(outside)
    with pytest.raises(BundleError, match="is a link"):
        read_bundle(folder)
    weights.unlink()
    with pytest.raises(BundleError, match="there is no file"):
        read_bundle(folder)


def test_a_file_larger_than_the_limit_is_not_read(package):
    for files in (open_package(package.folder()), open_package(package.dlpk())):
        with pytest.raises(BundleError, match="larger than 10 bytes"):
            files.read("points.emd", 10)
