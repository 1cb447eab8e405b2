"""ONNX files made to harm, damaged or simply wrong: each is refused by name before it is run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from geodl.base.errors import BundleError, MissingPackageError, SourceNotFoundError
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.bundle.cache import forget_models
from geodl.infer.memory import network_bytes
from geodl.nets.threads import torch_threads
from geodl.testing.onnx_files import band_segmentor, onnx_bytes


def model_in(path: Path) -> Any:
    return onnx.load(str(path), load_external_data=False)


def outside(path: Path, location: str, **entries: str) -> Path:
    """Move the weights of a sound file to another place."""
    model = model_in(path)
    tensor = next(t for t in model.graph.initializer if t.name == "weight")
    content = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    place = path.parent / location
    with contextlib.suppress(OSError):
        place.write_bytes(content)
    return path


def changed(path: Path, change: Any) -> Path:
    model = model_in(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def weight(model: Any) -> Any:
    return next(t for t in model.graph.initializer if t.name == "weight")


def weights_elsewhere(path: Path) -> Path:
    return outside(path, "../elsewhere.bin")


def weights_at_root(path: Path) -> Path:
    return outside(path, "/etc/hostname")


def weights_by_link(path: Path) -> Path:
    outside(path, "w.bin")
    (path.parent / "w.bin").rename(path.parent.parent / "far.bin")
    (path.parent / "w.bin").symlink_to(path.parent.parent / "far.bin")
    return path


def weights_in_a_linked_folder(path: Path) -> Path:
    (path.parent.parent / "far").mkdir()
    (path.parent / "near").symlink_to(path.parent.parent / "far")
    return outside(path, "near/w.bin")


def weights_missing(path: Path) -> Path:
    outside(path, "w.bin")
    (path.parent / "w.bin").unlink()
    return path


def weights_beyond_their_file(path: Path) -> Path:
    return outside(path, "w.bin", offset="4", length="36")


def weights_at_no_place(path: Path) -> Path:
    return outside(path, "w.bin", offset="-4")


def huge_tensor(path: Path) -> Path:
    return changed(path, lambda model: weight(model).dims.__setitem__(0, 10**12))


def overflowing_tensor(path: Path) -> Path:
    def change(model: Any) -> None:
        del weight(model).dims[:]
        weight(model).dims.extend([2**32, 2**32])

    return changed(path, change)


def negative_tensor(path: Path) -> Path:
    return changed(path, lambda model: weight(model).dims.__setitem__(0, -3))


def nan_weights(path: Path) -> Path:
    def change(model: Any) -> None:
        weight(model).raw_data = np.full(9, np.nan, np.float32).tobytes()

    return changed(path, change)


def unknown_kind(path: Path) -> Path:
    return changed(path, lambda model: setattr(weight(model), "data_type", 77))


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def other_file(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04" + bytes(400))
    return path


def custom_operator(path: Path) -> Path:
    def change(model: Any) -> None:
        model.graph.node[0].domain = "my.library"
        model.opset_import.append(helper.make_opsetid("my.library", 1))

    return changed(path, change)


def custom_operator_in_a_branch(path: Path) -> Path:
    def change(model: Any) -> None:
        node = helper.make_node("Run", [], ["out"], domain="my.library")
        branch = helper.make_graph([node], "b", [], [])
        model.graph.node.append(
            helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
        )

    return changed(path, change)


def compiled_elsewhere(path: Path) -> Path:
    def change(model: Any) -> None:
        model.graph.node.append(
            helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0)
        )

    return changed(path, change)


def endless_answer(path: Path) -> Path:
    """A few bytes that ask for 4 TB as soon as the network is opened."""
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    path.write_bytes(
        onnx_bytes(
            nodes, shape=[1, 3, 64, 64], outputs={"y": [1, 3, 64, 64]},
            constants={"many": np.array([10**12], np.int64)}, metadata={"model_type": "Segmentor"},
        )
    )  # fmt: skip
    return path


def endless_tile(path: Path) -> Path:
    return band_segmentor(path, tile_px=10**9)


def deep_metadata(path: Path) -> Path:
    return band_segmentor(path, model_type="Segmentor", class_names="[" * 5000 + "]" * 5000)


def code_in_metadata(path: Path) -> Path:
    text = "__import__('os').system('touch harm')"
    return band_segmentor(path, model_type="Segmentor", class_names=text)


def own_definition_of_a_newer_geodl(path: Path) -> Path:
    emd = {"ModelName": "UnetClassifier", "Geodl": {"schema": 99}}
    return band_segmentor(path, geodl=emd)


def own_definition_of_no_class(path: Path) -> Path:
    emd = {"ModelName": "Nonesuch", "Geodl": {"schema": 1}}
    return band_segmentor(path, geodl=emd)


def own_definition_is_a_list(path: Path) -> Path:
    return band_segmentor(path, geodl=[1])


HOSTILE = {
    weights_elsewhere: "not inside the package",
    weights_at_root: "not inside the package",
    weights_by_link: "is a link",
    weights_in_a_linked_folder: "is a link",
    weights_missing: r"no file 'w\.bin'",
    weights_beyond_their_file: r"beyond the 36 bytes of 'w\.bin'",
    weights_at_no_place: r"at no place in 'w\.bin'",
    huge_tensor: r"'weight' claims? the shape \(1000000000000, 3",
    overflowing_tensor: "'weight' claims the shape",
    negative_tensor: r"'weight' claims the shape \(-3",
    nan_weights: "'weight' hold numbers that are not finite",
    unknown_kind: "unknown kind",
    truncated: "no readable ONNX file|cannot be run",
    empty: "no readable ONNX file",
    other_file: "no readable ONNX file",
    custom_operator: "'Conv' of 'my.library', which needs a library",
    custom_operator_in_a_branch: "'Run' of 'my.library', which needs a library",
    compiled_elsewhere: "'EPContext' of 'com.microsoft', which needs a library or another file",
    endless_answer: "cannot be run",
    endless_tile: "ImageHeight is 1000000000",
    deep_metadata: "'class_names' is None",
    code_in_metadata: "'class_names' is None",
    own_definition_of_a_newer_geodl: "newer geodl.*update geodl",
    own_definition_of_no_class: "'Nonesuch', which geodl does not have",
    own_definition_is_a_list: "'geodl' is no model definition",
}


def opened_and_run(path: Path) -> None:
    model = load_model(resolve_model(path, path.parent))
    model.net(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_refused_by_name(make: Any, tmp_path: Path) -> None:
    forget_models()
    folder = tmp_path / "inner"
    folder.mkdir()
    path = make(band_segmentor(folder / "net.onnx"))
    with pytest.raises(BundleError, match=HOSTILE[make]) as caught:
        opened_and_run(path)
    assert "net.onnx" in str(caught.value)
    assert not list(tmp_path.rglob("harm"))
    assert not Path("harm").exists()


# ---- sound files that are not models, or say it wrongly


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"model_type": "Regressor"}, "'model_type' is 'regressor'; networks that are run are"),
        ({"model_type": 5}, "'model_type' is '5'"),
        ({"task": "pose"}, "'task' is 'pose'"),
        ({"model_type": "Segmentor", "class_names": {"0": "a", "2": "b"}}, "without a gap"),
        ({"model_type": "Segmentor", "class_names": {"0": "a", "1": "b"}}, "has 2 names; the out"),
        ({"model_type": "Segmentor", "class_names": {"0": "a", "1": 7, "2": "c"}}, "is no name"),
        ({"model_type": "Segmentor", "class_names": [{"0": "a"}, {"0": "b"}]}, "of 2 heads"),
        ({"model_type": "Segmentor", "class_names": ["a", "b", "b"]}, "Classes cannot be used"),
        ({"model_type": "Segmentor", "seg_thresh": 7}, "'seg_thresh' is 7; expected a number of 0"),
        ({"model_type": "Segmentor", "seg_thresh": "high"}, "'seg_thresh' is 'high'"),
        ({"model_type": "Segmentor", "tiles_overlap": 95}, "'tiles_overlap' is 95"),
        ({"model_type": "Segmentor", "resolution": -1}, "'resolution' is -1"),
        ({"model_type": "Segmentor", "standardization_mean": [1]}, "need 3 numbers each"),
        ({"model_type": "Segmentor", "standardization_std": [1, 0, 1]}, "standard deviation"),
        ({"model_type": "Segmentor", "standardization_std": ["a"]}, "expected a list of numbers"),
        ({"model_type": "Detector"}, "'det_type' is ''; read are yolo_v5"),
        ({"model_type": "Detector", "det_type": "YOLO_Ultralytics_obb"}, "read are"),
        ({"model_type": "Detector", "det_type": "YOLO_v6"}, "the output is 'scores'"),
        ({"model_type": "Classifier"}, "a Classifier gives"),
    ],
)
def test_wrong_metadata_are_said_with_their_key(
    tmp_path: Path, metadata: dict[str, Any], text: str
) -> None:
    path = band_segmentor(tmp_path / "net.onnx", **metadata)
    with pytest.raises(BundleError, match=text) as caught:
        read_bundle(path)
    assert "net.onnx" in str(caught.value)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    path = band_segmentor(tmp_path / "net.onnx")
    more = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    changed(path, lambda model: model.graph.input.append(more))
    with pytest.raises(BundleError, match=r"has 2 inputs \('x', 'y'\)"):
        read_bundle(path)


def test_an_input_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    node = helper.make_node("Relu", ["x"], ["y"])
    path.write_bytes(onnx_bytes([node], shape=[1, 7], outputs={"y": [1, 7]}))
    with pytest.raises(BundleError, match=r"'x' \(1, 7\) is no batch of images"):
        read_bundle(path)


def test_answers_of_another_shape_are_refused_when_it_runs(tmp_path: Path) -> None:
    path = band_segmentor(tmp_path / "net.onnx", tile_px="side")

    def smaller(model: Any) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))

    changed(path, smaller)
    model = load_model(resolve_model(path, tmp_path))
    with pytest.raises(BundleError, match=r"net\.onnx gives \(1, 3, 16, 16\) for \(1, 3, 32, 32\)"):
        model.task.scores(model.net, torch.zeros(1, 3, 32, 32))


def test_a_file_without_words_is_a_segmentor_of_numbered_classes(tmp_path: Path) -> None:
    bundle = read_bundle(band_segmentor(tmp_path / "net.onnx", note="nothing"))
    assert bundle.contract.classes.names == ["class_1", "class_2"]
    assert bundle.contract.model_name == "OnnxModel"
    assert bundle.contract.tile_px == 64
    assert bundle.contract.arguments == {"predict_background": True, "threshold": 0.5}


def test_a_folder_with_nothing_but_a_network_is_a_model(tmp_path: Path) -> None:
    path = band_segmentor(tmp_path / "net.onnx")
    assert read_bundle(tmp_path).sha256 == read_bundle(path).sha256
    band_segmentor(tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="holds no model definition"):
        read_bundle(tmp_path)


def test_a_tile_of_any_side_takes_the_size_that_is_stated(tmp_path: Path) -> None:
    words = {"model_type": "Segmentor", "tile_size": 96, "resolution": 50, "tiles_overlap": 25}
    contract = read_bundle(band_segmentor(tmp_path / "a.onnx", tile_px="s", **words)).contract
    assert (contract.tile_px, contract.variable_tile) == (96, True)
    assert contract.cell_size == (0.5, 0.5)
    assert contract.arguments["padding"] == 12
    contract = read_bundle(band_segmentor(tmp_path / "b.onnx", tile_px="s", note="")).contract
    assert contract.tile_px == 512


# ---- weights in other files


def test_weights_beside_the_file_are_read_and_are_part_of_what_it_is(tmp_path: Path) -> None:
    path = band_segmentor(tmp_path / "net.onnx")
    x = torch.rand(2, 3, 64, 64)
    whole = load_model(resolve_model(path, tmp_path))
    expected = whole.task.scores(whole.net, x)
    first = read_bundle(outside(path, "w.bin"))
    apart = load_model(resolve_model(path, tmp_path))
    assert torch.equal(apart.task.scores(apart.net, x), expected)
    assert first.verify_parts() == ["net.onnx", "w.bin"]
    (tmp_path / "w.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    assert read_bundle(path).sha256 != first.sha256
    ref = resolve_model(path, tmp_path)
    (tmp_path / "w.bin").write_bytes(np.ones(9, np.float32).tobytes())
    with pytest.raises(BundleError, match="another model than the run was planned with"):
        load_model(ref)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceNotFoundError, match="no model at"):
        read_bundle(tmp_path / "net.onnx")
    path = band_segmentor(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"'onnxruntime'.*geodl\[export\]"):
        load_model(resolve_model(path, tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"'onnx'.*geodl\[export\]"):
        read_bundle(path)


def test_as_many_threads_as_torch_has(tmp_path: Path) -> None:
    model = load_model(resolve_model(band_segmentor(tmp_path / "net.onnx"), tmp_path))
    for count in (1, 2, 1):
        with torch_threads(count):
            model.net(torch.zeros(1, 3, 64, 64))
        options = model.net.session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (count, 1)


def test_the_plan_knows_what_the_network_takes(tmp_path: Path) -> None:
    """Logits and scores of three channels are alive together, and the batch of tiles."""
    path = band_segmentor(tmp_path / "net.onnx", tile_px="side", batch="n")
    model = load_model(resolve_model(path, tmp_path))
    tile = 4 * 3 * 96 * 96
    assert network_bytes(model, 96, 2) == int(1.5 * (2 * 2 * tile + 2 * tile))
