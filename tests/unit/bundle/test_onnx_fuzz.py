"""ONNX files damaged in any way are read or refused by name; run long, they end no process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodl.base.errors import GeodlError
from geodl.bundle import read_bundle
from geodl.bundle.onnx_definition import OWN_KEY
from geodl.testing.onnx_files import band_segmentor, spot_detector

GOLDEN = Path(__file__).parents[2] / "golden" / "schema1_network.onnx"


@given(data=st.data())
def test_a_damaged_onnx_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes overwritten, cut out or put in anywhere: never another error than ours."""
    detector = data.draw(st.booleans())
    make = spot_detector if detector else band_segmentor
    path = tmp_path / "fuzzed.onnx"
    content = bytearray(make(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(bytes(content))
    with contextlib.suppress(GeodlError):
        read_bundle(path)


_TEXTS = st.text(max_size=20) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value))
_KEYS = (
    "model_type", "class_names", "names", "task", "resolution", "tile_size", "tiles_size",
    "tiles_overlap", "seg_thresh", "det_conf", "det_iou_thresh", "det_type",
    "standardization_mean", "standardization_std", "geodl",
)  # fmt: skip
_KINDS = st.sampled_from(["Segmentor", "Detector", "Classifier", "segmentor"])


@given(
    words=st.dictionaries(st.sampled_from(_KEYS), _TEXTS, max_size=5),
    kind=st.none() | _KINDS,
    detector=st.booleans(),
)
def test_any_metadata_are_read_or_refused(
    tmp_path: Path, words: dict[str, str], kind: str | None, detector: bool
) -> None:
    given_words: dict[str, Any] = {**words, **({"model_type": kind} if kind else {}), "note": ""}
    make = spot_detector if detector else band_segmentor
    with contextlib.suppress(GeodlError):
        read_bundle(make(tmp_path / "fuzzed.onnx", **given_words))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@given(data=st.data(), value=_JSON, beside=st.booleans())
def test_any_value_in_a_definition_of_a_network_is_read_or_refused(
    tmp_path: Path, data: st.DataObject, value: Any, beside: bool
) -> None:
    """In the metadata of the file, and in a definition beside it."""
    (own,) = [e.value for e in onnx.load(str(GOLDEN)).metadata_props if e.key == OWN_KEY]
    emd = json.loads(own)
    place = data.draw(st.sampled_from([emd, emd["Geodl"], emd["NormalizationStats"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    path = tmp_path / "net.onnx"
    with contextlib.suppress(GeodlError):
        if beside:
            emd["ModelFile"] = "net.onnx"
            path = band_segmentor(path).with_name("net.emd")
            path.write_text(json.dumps(emd))
        else:
            band_segmentor(path, geodl=emd)
        read_bundle(path)


_SOAK = """
import contextlib, random, sys, torch
from pathlib import Path
from geodl.base.errors import GeodlError
from geodl.bundle import load_model, resolve_model
from geodl.testing.onnx_files import band_segmentor, spot_detector
folder, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
path = folder / "fuzzed.onnx"
sound = [band_segmentor(path).read_bytes(), spot_detector(path).read_bytes(),
         band_segmentor(path, tile_px="s", ending="").read_bytes()]
ran = 0
for number in range(rounds):
    content = bytearray(draw.choice(sound))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content))
        content[at : at + draw.randint(0, 6)] = draw.randbytes(draw.randint(0, 6))
    path.write_bytes(bytes(content))
    (folder / "last.onnx").write_bytes(bytes(content))
    with contextlib.suppress(GeodlError):
        model = load_model(resolve_model(path, folder))
        found = model.net(torch.rand(1, 3, 64, 64))
        ran += 1
print(ran)
"""


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_never_bring_the_process_down(tmp_path: Path, seed: int) -> None:
    """Also run them: in a process of its own, for onnxruntime is not ours to mend."""
    rounds = os.environ.get("GEODL_SOAK_ROUNDS", "5000")
    done = subprocess.run(
        [sys.executable, "-c", _SOAK, str(tmp_path), str(seed), rounds],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0
