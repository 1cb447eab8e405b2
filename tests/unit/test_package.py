"""The package as a whole: light to import, whole in its metadata, floors kept."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import geodl
from geodl.base.models import MODELS

_ROOT = Path(geodl.__file__).resolve().parent.parent
_HEAVY = ("torch", "dask", "distributed", "rasterio", "matplotlib", "pandas")
# Modules whose distribution has another name.
_DISTRIBUTION = {
    "PIL": "pillow",
    "rio_cogeo": "rio-cogeo",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "faster_coco_eval": "faster-coco-eval",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "dask_cuda": "dask-cuda",
    "dask_jobqueue": "dask-jobqueue",
    "yaml": "pyyaml",
    "huggingface_hub": "huggingface-hub",
    "lightning_fabric": "lightning-fabric",
}
# Not ours to install: notebooks bring it.
_NOT_OURS = {"IPython"}


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT
    )
    return done.stdout


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    path = _ROOT / "pyproject.toml"
    if not path.is_file():
        pytest.skip("geodl is installed without its sources")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", ["geodl", "geodl.learn", "geodl.testing", "geodl.cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = json.loads(
        _python(f"import json, sys, {module}; print(json.dumps(list(sys.modules)))")
    )
    assert not set(_HEAVY) & set(loaded)


def test_import_takes_at_most_six_times_numpys() -> None:
    code = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"

    def best(module: str) -> float:
        return min(float(_python(code.format(module))) for _ in range(3))

    assert best("geodl") <= 6 * best("numpy")


@pytest.mark.parametrize(
    "module",
    [
        "geodl.io.raster",
        "geodl.io.vector",
        "geodl.io.writers",
        "geodl.formats",
        "geodl.runtime.run",
        "geodl.runtime.connect",
        "geodl.tools.export_training_data",
    ],
)
def test_rasters_chips_and_cluster_work_load_no_torch(module: str) -> None:
    loaded = json.loads(
        _python(f"import json, sys, {module}; print(json.dumps(list(sys.modules)))")
    )
    assert "torch" not in loaded


@pytest.mark.parametrize("package", ["geodl", "geodl.learn", "geodl.testing"])
def test_every_public_name_resolves(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_unknown_public_name_gets_the_nearest() -> None:
    with pytest.raises(AttributeError, match="open_raster"):
        _ = geodl.open_rasters


def test_every_registered_model_is_in_learn_under_its_name() -> None:
    learn = importlib.import_module("geodl.learn")
    for name in MODELS:
        if name.startswith("Tiny"):  # models with known answers, for tests
            continue
        assert getattr(learn, name) is MODELS[name]
        assert MODELS[name].__name__ == name


def _top_level_imports() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((_ROOT / "geodl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(_ROOT)))
    return found


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0].lower() for text in requirements}


def test_every_import_is_a_declared_dependency(project: dict[str, Any]) -> None:
    declared = _names(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        declared |= _names(extra)
    for module, path in _top_level_imports().items():
        if module in sys.stdlib_module_names or module == "geodl" or module in _NOT_OURS:
            continue
        name = _DISTRIBUTION.get(module, module).lower()
        assert name in declared, f"{path} imports {module}, which pyproject.toml does not name"


def test_every_dependency_of_the_core_is_used(project: dict[str, Any]) -> None:
    # rasterio's companions that xarray, fsspec or fit() load by name.
    by_name = {"cftime", "h5netcdf", "h5py", "tensorboard"}
    used = {_DISTRIBUTION.get(module, module).lower() for module in _top_level_imports()}
    assert _names(project["project"]["dependencies"]) - used <= by_name


def test_extras_are_those_promised(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert set(extras) == {
        "detection", "transformers", "diffusion", "tabular", "points", "embeddings", "maps",
        "video", "export", "s3", "catalog", "dashboard", "docs", "test", "cuda", "slurm", "mm",
        "all",
    }  # fmt: skip
    inside = set(re.findall(r"\w+", extras["all"][0].partition("[")[2]))
    assert inside == set(extras) - {"all", "cuda", "slurm", "mm"}


def test_every_floor_says_why(project: dict[str, Any]) -> None:
    assert project["project"]["requires-python"] == ">=3.11"
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("dependencies = [")[2].partition("[project.scripts]")[0]
    floors = [line for line in section.splitlines() if re.match(r'\s+"[a-z0-9\[\]-]+[>=]=', line)]
    assert len(floors) > 40
    assert [line for line in floors if "#" not in line] == []


def test_tested_set_covers_the_core_and_meets_its_floors(project: dict[str, Any]) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    extras = project["project"]["optional-dependencies"]
    for text in [*project["project"]["dependencies"], *extras["detection"], *extras["test"]]:
        requirement = Requirement(text)
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), text


def test_metadata_says_version_and_licence() -> None:
    facts = importlib.metadata.metadata("geodl")
    assert facts["License-Expression"] == "Apache-2.0"
    assert (_ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")
