"""Packages of every schema so far open for ever and answer as they did when they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geodl.base.errors import BundleError
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.bundle.schema import SCHEMA_VERSION
from geodl.core.contract import ChipCut
from geodl.testing.tiny import register_tiny_models

GOLDEN = Path(__file__).parents[2] / "golden"
PACKAGES = sorted(GOLDEN.glob("*.dlpk"))


def test_every_schema_has_packages():
    schemas = {path.name.partition("_")[0] for path in PACKAGES}
    assert schemas == {f"schema{k}" for k in range(1, SCHEMA_VERSION + 1)}
    assert all(path.stat().st_size < 150_000 for path in PACKAGES)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_an_old_package_answers_as_it_did(path, tmp_path):
    register_tiny_models()
    expected = json.loads(path.with_suffix(".json").read_text())
    bundle = read_bundle(path)
    assert not bundle.foreign
    assert bundle.contract.classes.names == expected["classes"]
    model = load_model(resolve_model(path, tmp_path))
    count = 2 * model.contract.inputs * 32 * 32
    x = (torch.arange(count) * 7919 % 1009 / 1009).reshape(2, -1, 32, 32)
    with torch.inference_mode():
        answer = model.net(x)
    assert list(answer.shape) == expected["shape"]
    assert answer.flatten()[:12].tolist() == pytest.approx(expected["first"], abs=1e-4, rel=1e-4)
    assert float(answer.mean()) == pytest.approx(expected["mean"], abs=1e-4, rel=1e-4)


def test_how_chips_are_cut_is_remembered():
    cut = read_bundle(GOLDEN / "schema1_labels.dlpk").contract.chip
    assert cut == ChipCut(size_yx=(20, 24), fixed=False, blacken=True)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_a_package_of_a_newer_schema_says_so(path, tmp_path):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    (emd,) = tmp_path.glob("*.emd")
    content = json.loads(emd.read_text())
    content["Geodl"]["schema"] = SCHEMA_VERSION + 1
    emd.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=rf"schema {SCHEMA_VERSION + 1}; this one reads"):
        read_bundle(tmp_path)
