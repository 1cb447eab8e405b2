"""Packages of every schema so far open for ever and answer as they did when they were written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import onnx
import pytest
import torch

from geodl.base.errors import BundleError
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.bundle.onnx_definition import OWN_KEY
from geodl.bundle.schema import SCHEMA_VERSION
from geodl.core.contract import ChipCut
from geodl.testing.elsewhere import model_answers
from geodl.testing.tiny import register_tiny_models
from geodl.testing.tiny_boxes import register_tiny_boxes

GOLDEN = Path(__file__).parents[2] / "golden"
PACKAGES = sorted([*GOLDEN.glob("*.dlpk"), *GOLDEN.glob("*.onnx")])
# Kinds of models that a schema has packages of, since they are read in ways of their own.
FAMILIES = {
    1: {"pixels", "objects", "labels", "instances", "change", "points", "boxes3d", "network"},
}


def test_every_schema_has_packages():
    assert set(FAMILIES) == set(range(1, SCHEMA_VERSION + 1))
    expected = {f"schema{k}_{family}" for k, every in FAMILIES.items() for family in every}
    assert {path.stem for path in PACKAGES} == expected
    assert all(path.stat().st_size < 150_000 for path in PACKAGES)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_an_old_package_answers_as_it_did(path, tmp_path):
    register_tiny_models()
    register_tiny_boxes()
    expected = json.loads(path.with_suffix(".json").read_text())
    bundle = read_bundle(path)
    assert not bundle.foreign
    assert bundle.contract.classes.names == expected["classes"]
    model = load_model(resolve_model(path, tmp_path))
    points = bundle.contract.points is not None
    found = model_answers(model, [block() if points else sample(model.contract.inputs)])
    # The first packages tell of the network's first tensor only.
    parts = expected.get("parts", [expected])
    assert "parts" not in expected or len(parts) == len(found)
    for part, answer in zip(parts, found, strict="parts" in expected):
        assert list(answer.shape) == part["shape"]
        first = answer.flatten()[:12].tolist()
        assert first == pytest.approx(part["first"], abs=1e-4, rel=1e-4)
        assert float(answer.double().mean()) == pytest.approx(part["mean"], abs=1e-4, rel=1e-4)


def sample(bands):
    """float32 (2, bands, 32, 32) in 0..1, as make_packages.py gives it."""
    return (torch.arange(2 * bands * 1024) * 7919 % 1009 / 1009).reshape(2, bands, 32, 32)


def block():
    """float32 (400, 3): points, as make_packages.py gives them."""
    x = torch.arange(400) * 7919 % 1009 / 504.5 - 1
    y = torch.arange(400) * 104729 % 997 / 498.5 - 1
    return torch.stack([x, y, (x * 3).sin() * 0.5 + (y > 0.3) * 3.0], dim=1)


def test_how_chips_are_cut_is_remembered():
    cut = read_bundle(GOLDEN / "schema1_labels.dlpk").contract.chip
    assert cut == ChipCut(size_yx=(20, 24), fixed=False, blacken=True)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_a_package_of_a_newer_schema_says_so(path, tmp_path):
    newer = tmp_path / path.name
    content = path.read_bytes()
    if path.suffix == ".onnx":
        newer.write_bytes(_of_newer_network(content))
    else:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(newer, "w") as new:
            for name in old.namelist():
                part = old.read(name)
                new.writestr(name, _newer(part) if name.endswith(".emd") else part)
    with pytest.raises(BundleError, match=rf"schema {SCHEMA_VERSION + 1}; this one reads"):
        read_bundle(newer)


def _newer(definition):
    content = json.loads(definition)
    content["Geodl"]["schema"] = SCHEMA_VERSION + 1
    return json.dumps(content)


def _of_newer_network(content):
    model = onnx.load_from_string(content)
    (own,) = [entry for entry in model.metadata_props if entry.key == OWN_KEY]
    own.value = _newer(own.value)
    return model.SerializeToString()
