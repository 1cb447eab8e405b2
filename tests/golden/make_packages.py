"""Write the packages of the present schema; run when a schema, or a kind of model, is new.

python tests/golden/make_packages.py tests/golden

What is there already is never written again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load

from geodl.base.models import MODELS
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.bundle.schema import SCHEMA_VERSION, definition
from geodl.bundle.weights import write_weights
from geodl.bundle.write import package_files
from geodl.core.contract import ChipCut, Normalization
from geodl.core.points import PointInput
from geodl.testing.elsewhere import model_answers
from geodl.testing.onnx_files import band_segmentor
from geodl.testing.tiny import random_model, tiny_change_model, tiny_model
from geodl.testing.tiny_boxes import register_tiny_boxes, tiny_boxes

SIDE = 32


def sample(bands: int) -> torch.Tensor:
    """float32 (2, bands, SIDE, SIDE) in 0..1 that needs no random generator."""
    count = 2 * bands * SIDE * SIDE
    return (torch.arange(count) * 7919 % 1009 / 1009).reshape(2, bands, SIDE, SIDE)


def coarse(package: Path) -> None:
    """Weights of few values, which a zip packs to a tenth."""
    bundle = read_bundle(package)
    state = load((package / str(bundle.weights_name)).read_bytes())
    rounded = {
        key: value
        if "running" in key or not value.is_floating_point()
        else (value * 16).round() / 16
        for key, value in state.items()
    }
    net, _, _ = MODELS[bundle.contract.model_name].build(
        classes=bundle.contract.classes, bands=bundle.contract.inputs, tile_px=SIDE,
        parameters=bundle.parameters, pretrained=False, batch_size=None,
    )  # fmt: skip
    net.load_state_dict(rounded)
    emd = definition(bundle.contract, bundle.parameters)
    files = package_files(package.name, emd, write_weights(net), contract=bundle.contract)
    for name, content in files.items():
        (package / name).write_bytes(content)


def block() -> torch.Tensor:
    """float32 (400, 3): points in -1..1 that need no random generator."""
    x = torch.arange(400) * 7919 % 1009 / 504.5 - 1
    y = torch.arange(400) * 104729 % 997 / 498.5 - 1
    return torch.stack([x, y, (x * 3).sin() * 0.5 + (y > 0.3) * 3.0], dim=1)


def write_alone(place: Path, target: Path) -> None:
    """An ONNX file, which is a package by itself."""
    path = target / f"schema{SCHEMA_VERSION}_network.onnx"
    if path.exists():
        return
    tiny = read_bundle(tiny_model(place / "network", "pixels", tile_px=SIDE))
    emd = {key: value for key, value in tiny.emd.items() if key != "ModelFile"}
    emd["ModelName"] = "UnetClassifier"
    band_segmentor(path, tile_px=SIDE, geodl=emd)
    tell(path, place, [sample(3)])


def tell(path: Path, place: Path, inputs: list[torch.Tensor]) -> None:
    """Write what a package answers beside it."""
    model = load_model(resolve_model(path, place))
    parts = [
        {
            "shape": list(part.shape),
            "first": part.flatten()[:12].tolist(),
            "mean": float(part.double().mean()),
        }
        for part in model_answers(model, inputs)
    ]
    facts = {"classes": model.contract.classes.names, "parts": parts}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


def write(folder: Path, target: Path) -> None:
    path = target / f"schema{SCHEMA_VERSION}_{folder.name}.dlpk"
    if path.exists():
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, part.name)
    contract = read_bundle(path).contract
    points = contract.points is not None
    tell(path, folder, [block()] if points else [sample(contract.inputs)])


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(tiny_model(place / "pixels", "pixels", tile_px=SIDE, dtype="uint16"), target)
        write(tiny_model(place / "objects", "objects", tile_px=SIDE), target)
        labels = random_model(
            place / "labels", "FeatureClassifier", "tiles",
            {"backbone": "timm:test_efficientnet", "multilabel": True}, tile_px=SIDE,
            variable_tile=False, chip=ChipCut(size_yx=(20, 24), fixed=False, blacken=True),
        )  # fmt: skip
        coarse(labels)
        write(labels, target)
        write(tiny_model(place / "instances", "instances", tile_px=SIDE), target)
        write(tiny_change_model(place / "change", tile_px=SIDE), target)
        register_tiny_boxes()
        write(tiny_boxes(place / "boxes3d", block_size=4.0), target)
        points = random_model(
            place / "points", "RandLANet", "points",
            {
                "encoder_params": {
                    "out_channels": [4, 8], "sub_sampling_ratio": [4, 4], "k_n": 6,
                },
                "codes": [2, 6], "focal_loss": False, "class_weights": None, "spacing": 1.0,
            },
            tile_px=1, extract_bands=(), source_bands=0, dtype="float32",
            normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
            points=PointInput(block_size=20.0, max_points=512, scale=10.0, codes=(2, 6)),
            classes={2: "Ground", 6: "Building"},
        )  # fmt: skip
        write(points, target)
        write_alone(place, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
