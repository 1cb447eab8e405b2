"""Places on this machine and in object stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.base.errors import OptionError, OutputError
from geodl.base.places import copy_tree, is_remote, place, reached, remote_system, remove_tree


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://bucket/a.tif", True),
        ("gs://bucket/a", True),
        ("memory://a", True),
        ("/data/a.tif", False),
        ("a.tif", False),
        ("C:/data/a.tif", False),
        ("file:///data/a.tif", False),
    ],
)
def test_a_url_is_remote_and_a_path_is_not(text: str, remote: bool) -> None:
    assert is_remote(text) is remote


def test_remote_places_are_used_like_paths() -> None:
    pytest.importorskip("upath")
    spot = place("memory://folder/a.tif")
    assert (spot.name, spot.suffix) == ("a.tif", ".tif")
    assert str(spot.with_name("b.run") / "lock") == "memory://folder/b.run/lock"
    assert isinstance(place("/a/b"), Path)
    with pytest.raises(OptionError, match="nosuch"):
        place("nosuch://a/b")


def test_trees_are_copied_and_removed() -> None:
    pytest.importorskip("upath")
    top = place("memory://trees/one")
    for name in ("zarr.json", "a/b", "a/c", "lock"):
        (top / name).write_bytes(name.encode())
    copy_tree(top, place("memory://trees/two"), last=("zarr.json",))
    system, root = remote_system(place("memory://trees/two"))
    assert sorted(name[len(root) :] for name in system.find(root)) == [
        "/a/b",
        "/a/c",
        "/lock",
        "/zarr.json",
    ]
    remove_tree(place("memory://trees/two"), keep=("lock",))
    assert [name[len(root) :] for name in system.find(root)] == ["/lock"]
    remove_tree(place("memory://trees/none"))


def test_local_trees_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "lock").touch()
    remove_tree(tmp_path / "a", keep=("lock",))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["lock"]
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_cannot_be_reached_is_an_output_error() -> None:
    def fail() -> None:
        raise ConnectionError("no route")

    with pytest.raises(OutputError, match=r"s3://b/x cannot be reached .*no route"):
        reached("s3://b/x", fail)
    assert reached("s3://b/x", lambda: 3) == 3
