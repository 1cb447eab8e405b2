"""What the README shows is true: the script runs, the commands parse, the lists are whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import geodl
from geodl.base.models import MODELS
from geodl.cli.main import _parser
from geodl.formats import FORMATS
from geodl.io.writers import WRITERS
from geodl.testing import make_scene

_ROOT = Path(geodl.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def readme() -> str:
    path = _ROOT / "README.md"
    if not path.is_file():
        pytest.skip("geodl is installed without its sources")
    return path.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
def test_the_ten_lines_run(
    readme: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    assert len(script.strip().splitlines()) <= 11
    # Small: only sizes, epochs and the search for a rate are changed.
    changes = {
        "256": "64", "fit(20": "fit(1", "resnet34": "resnet18",
        "model.lr_find()": "1e-3",
    }  # fmt: skip
    for shown, small in changes.items():
        assert shown in script
        script = script.replace(shown, small)
    scene = make_scene(tmp_path, size=(192, 192), nodata_corner=False)
    for name, source in [("ortho.tif", scene.raster), ("city.tif", scene.raster)]:
        (tmp_path / name).symlink_to(source)
    (tmp_path / "trees.gpkg").symlink_to(scene.labels)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})
    assert f"trees in {tmp_path / 'trees.parquet'}" in capsys.readouterr().out


def test_the_commands_parse(readme: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("geodl ")]
    assert len(commands) >= 3
    for words in commands:
        assert callable(_parser(words).parse_args(words).run)


def test_make_knows_the_targets(readme: str) -> None:
    rules = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target


def test_the_table_of_what_works_is_whole(readme: str) -> None:
    for name in [*FORMATS, *(name for name in MODELS if not name.startswith("Tiny"))]:
        assert f"`{name}`" in readme
    words = {".parquet": "GeoParquet", ".gpkg": "GeoPackage", ".fgb": "FlatGeobuf",
             ".geojson": "GeoJSON", ".shp": "Shapefile", ".tif": "COG", ".tiff": "COG",
             ".zarr": "Zarr"}  # fmt: skip
    for suffix in WRITERS:
        assert words[suffix] in readme


def test_the_picture_is_there_and_small(readme: str) -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", readme):
        assert (_ROOT / path).stat().st_size < 150_000
