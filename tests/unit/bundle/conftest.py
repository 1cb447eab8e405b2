"""A model package with a network of two small layers."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

from geodl.base.models import MODELS
from geodl.bundle.cache import forget_models
from geodl.bundle.schema import definition
from geodl.bundle.weights import write_weights
from geodl.bundle.write import package_files, write_package, zip_files
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization
from geodl.tasks.pixels import PixelTask

# Of each fuzz test; tests/faults/test_fuzz.py asks for many.
if "GEODL_FUZZ" in os.environ:
    settings.register_profile(
        "packages", max_examples=int(os.environ["GEODL_FUZZ"]), derandomize=False
    )
    settings.load_profile("packages")


class PointNet(nn.Module):
    def __init__(self, bands, outputs, width):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(bands, width, 1), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x):
        return self.head(self.backbone(x))


class PointClassifier:
    """A model class as the registry holds them, reduced to what packages need."""

    built = 0

    @classmethod
    def build(cls, *, classes, bands, tile_px, parameters, pretrained, batch_size):
        # Shapes are compared first, with a network that takes no memory.
        cls.built += torch.get_default_device().type != "meta"
        assert not pretrained
        net = PointNet(bands, len(classes) + 1, int(parameters["width"]))
        return net, PixelTask(classes), False


CONTRACT = ModelContract(
    model_name="PointClassifier",
    kind="pixels",
    classes=ClassTable.from_mapping({3: "roof", 7: "tree"}),
    extract_bands=(2, 0),
    band_names=("red", "green", "nir", "alt"),
    source_bands=4,
    tile_px=64,
    normalization=Normalization(
        minimum=(-5.0, 0.0), maximum=(4000.0, 255.0), scaled_mean=(0.3, 0.5), scaled_std=(0.1, 0.2)
    ),
    dtype="int16",
    cell_size=(0.5, 2.0),
    image_space="IMAGE_SPACE",
    variable_tile=False,
)


class Package:
    """Files of a package that a test may spoil before they are written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.net = PointNet(2, 3, 4).eval()
        emd = {**definition(CONTRACT, {"width": 4}), "accuracy": "9.5000e-01", "mIoU": 0.5}
        self.files = package_files("points", emd, write_weights(self.net), contract=CONTRACT)

    @property
    def emd(self):
        return json.loads(self.files["points.emd"])

    def change(self, **keys) -> Package:
        emd = {**self.emd, **keys}
        emd = {key: value for key, value in emd.items() if value is not ...}
        self.files["points.emd"] = json.dumps(emd).encode()
        return self

    def folder(self) -> Path:
        write_package(self.root / "points", self.files)
        return self.root / "points"

    def dlpk(self, **more: bytes) -> Path:
        path = self.root / "points.dlpk"
        path.write_bytes(zip_files({**self.files, **more}))
        return path


def raw_zip(path: Path, members: dict) -> Path:
    """A zip with names and attributes that no honest writer gives."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members.items():
            archive.writestr(info, content)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture(autouse=True)
def _registered():
    MODELS._loaded["PointClassifier"] = PointClassifier
    MODELS._own["PointClassifier"] = f"{__name__}:PointClassifier"
    forget_models()
    yield
    MODELS._loaded.pop("PointClassifier", None)
    MODELS._own.pop("PointClassifier", None)
    forget_models()


@pytest.fixture
def package(tmp_path) -> Package:
    return Package(tmp_path)


@pytest.fixture
def contract() -> ModelContract:
    return CONTRACT


@pytest.fixture
def model_class():
    return PointClassifier


@pytest.fixture
def write_zip():
    return raw_zip
