"""The command: exit status, one readable message, one JSON value."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from geodl.base.errors import DataError, DataWarning, GeodlError, OptionError
from geodl.cli import main as run_main
from geodl.cli.main import COMMANDS
from geodl.testing import make_scene


@pytest.fixture(scope="module")
def scene_files(make_once: Any) -> Path:
    return Path(make_once("cli-scene", lambda folder: make_scene(folder, size=(96, 128), seed=1)))


def _command(monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    """Make ``geodl info`` run ``work``."""
    from geodl.cli import look

    monkeypatch.setattr(look, "describe", work)


def test_json_is_one_value_on_stdout(scene_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["info", str(scene_files / "scene.tif"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "raster"
    assert (facts["height"], facts["width"], facts["bands"]) == (96, 128, 3)
    assert facts["cell_size"] == [0.5, 0.5]
    assert facts["nodata"] == 0
    assert "32633" in facts["crs"]


def test_info_knows_features(scene_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["info", str(scene_files / "labels.gpkg"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "features"
    assert facts["fields"] == ["class_name", "classvalue"]
    assert facts["geometry"] == ["Polygon"]
    assert facts["rows"] > 0


def test_info_for_people(scene_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["info", str(scene_files / "scene.tif")]) == 0
    out = capsys.readouterr().out
    assert "band names  red green blue" in out
    assert "cell size   0.5 0.5" in out


def test_a_missing_file_is_a_failed_run_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["info", "no/such/file.tif"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "file.tif" in captured.err
    assert len(captured.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(DataError("bad\nlabels\nin a file"), 1), (OptionError("bad value"), 2), (OSError("disk"), 1)],
)
def test_errors_are_at_most_two_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
) -> None:
    def fail(path: str) -> None:
        raise error

    _command(monkeypatch, fail)
    assert run_main(["info", "x"]) == status
    err = capsys.readouterr().err
    assert 1 <= len(err.splitlines()) <= 2
    assert err.startswith("geodl: ")
    assert "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise DataError("bad")

    _command(monkeypatch, fail)
    for words in (["--debug", "info", "x"], ["info", "x", "--debug"]):
        with pytest.raises(GeodlError, match="bad"):
            run_main(words)


def test_interrupted_work_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(path: str) -> None:
        raise KeyboardInterrupt

    _command(monkeypatch, stop)
    assert run_main(["info", "x"]) == 1
    assert "interrupted" in capsys.readouterr().err


def test_our_warnings_are_one_line_and_others_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(path: str) -> dict[str, Any]:
        warnings.warn("labels were\nrepaired", DataWarning, stacklevel=1)
        warnings.warn("deep inside a library", RuntimeWarning, stacklevel=1)
        sys.stdout.write("said on the way\n")
        return {"kind": "raster"}

    _command(monkeypatch, warn)
    assert run_main(["info", "x", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"kind": "raster"}
    assert "geodl: warning: labels were repaired" in captured.err
    assert "library" not in captured.err


@pytest.mark.parametrize("words", [["nonsense"], ["info"], ["info", "a", "--nonsense"]])
def test_wrong_use_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(words)
    assert caught.value.code == 2
    assert "usage: geodl" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["chips"], ["model"]])
def test_half_a_command_shows_its_help(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(words) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main([*path, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: geodl {' '.join(path)}" in out
    assert "--json" in out


def test_doctor_finds_this_machine_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == []
    assert report["packages"]["torch"]
    assert report["raster"]["gdal"]
    assert report["devices"]["threads"] >= 1
    assert run_main(["doctor"]) == 0
    assert "no faults found" in capsys.readouterr().out


def test_doctor_names_a_fault_and_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from geodl.cli import doctor

    real = doctor.import_module

    def broken(name: str) -> Any:
        if name == "torchvision.ops":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    monkeypatch.setattr(doctor, "_LITTLE_ROOM_BYTES", 2**80)
    assert run_main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAULT: torch or torchvision does not load" in out
    assert "constraints.txt" in out
    assert "GB free" in out


def test_weights_that_cannot_be_had_are_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_main(["weights", "fetch", "no_such_backbone", "--folder", str(tmp_path)])
    assert status == 2
    assert "no_such_backbone" in capsys.readouterr().err


def test_the_process_returns_the_status() -> None:
    code = "import sys; from geodl.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", "no.tif"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) <= 2


def test_a_fault_of_ours_is_two_lines_too() -> None:
    code = (
        "import sys; from geodl.cli import look, main\n"
        "look.describe = lambda path: 1 / 0\n"
        "sys.argv = ['geodl', 'info', 'x']\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "ZeroDivisionError" in done.stderr
    assert "--debug" in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("geodl 0.")
