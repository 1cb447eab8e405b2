"""Write the packages of the present schema; run once, when a schema is new.

python tests/golden/make_packages.py tests/golden
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
from geodl.core.contract import ChipCut
from geodl.testing.tiny import random_model, tiny_model

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


def write(folder: Path, target: Path) -> None:
    path = target / f"schema{SCHEMA_VERSION}_{folder.name}.dlpk"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, part.name)
    model = load_model(resolve_model(path, folder))
    with torch.inference_mode():
        answer = model.net(sample(model.contract.inputs))
    rows = {"shape": list(answer.shape), "first": answer.flatten()[:12].tolist()}
    facts = {"classes": model.contract.classes.names, "mean": float(answer.mean()), **rows}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
