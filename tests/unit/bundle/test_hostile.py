"""Packages made to harm: each is refused by name, and nothing of it runs or is written."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodl.base.errors import BundleError, GeodlError
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.bundle.archive import ZipFiles
from geodl.bundle.cache import forget_models

TOUCHED = "touched-by-a-pickle"


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place / TOUCHED), "w"))


def with_weights(package, content: bytes, name="points.pth", sha=None):
    import hashlib

    emd = package.emd
    own = {**emd["Geodl"], "weights_sha256": {name: sha or hashlib.sha256(content).hexdigest()}}
    package.files = {**package.files, name: content}
    package.files["points.emd"] = package.files.pop("points.emd")
    return package.change(ModelFile=name, Geodl=own)


def pickle_bomb(package, tmp_path):
    return with_weights(package, pickle.dumps({"backbone.0.weight": Bomb(tmp_path)})).folder()


def torch_bomb(package, tmp_path):
    buffer = io.BytesIO()
    torch.save({"backbone.0.weight": torch.zeros(1), "x": Bomb(tmp_path)}, buffer)
    return with_weights(package, buffer.getvalue()).folder()


def whole_network(package, tmp_path):
    buffer = io.BytesIO()
    torch.save(package.net, buffer)
    return with_weights(package, buffer.getvalue()).folder()


def endless_tensor(package, tmp_path):
    buffer = io.BytesIO()
    torch.save({"backbone.0.weight": torch.zeros(1).expand(10**13)}, buffer)
    return with_weights(package, buffer.getvalue()).folder()


def huge_header(package, tmp_path):
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    ).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(16)
    return with_weights(package, content, "points.safetensors").folder()


def endless_header(package, tmp_path):
    content = struct.pack("<Q", 2**62) + b"{}"
    return with_weights(package, content, "points.safetensors").folder()


def nan_weights(package, tmp_path):
    from safetensors.torch import save

    state = package.net.state_dict()
    state["head.weight"] = torch.full_like(state["head.weight"], float("nan"))
    return with_weights(package, save(state), "points.safetensors").folder()


def other_shapes(package, tmp_path):
    from safetensors.torch import save

    state = {**package.net.state_dict(), "head.weight": torch.zeros(3, 4000, 1, 1)}
    return with_weights(package, save(state), "points.safetensors").folder()


def wrong_hash(package, tmp_path):
    content = package.files["points.safetensors"]
    return with_weights(package, content, "points.safetensors", sha="0" * 64).folder()


def no_hash(package, tmp_path):
    return package.change(Geodl={**package.emd["Geodl"], "weights_sha256": {}}).folder()


def zip_slip(package, tmp_path):
    return package.dlpk(**{"../../slipped.txt": b"out"})


def absolute_name(package, tmp_path):
    return package.dlpk(**{f"{tmp_path}/slipped.txt": b"out"})


def zip_bomb(package, tmp_path):
    path = package.dlpk()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.bin", bytes(2**26))
    return path


def lying_size(package, tmp_path):
    """The directory says fewer bytes than the weights unpack to."""
    name = "points.safetensors"
    files = dict(package.files)
    path = package.root / "points.dlpk"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()) + 1)
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(bytes(data))
    return path


def truncated_zip(package, tmp_path):
    path = package.dlpk()
    path.write_bytes(path.read_bytes()[:-200])
    return path


def linked_member(package, tmp_path):
    path = package.dlpk()
    info = zipfile.ZipInfo("secret.txt")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def linked_weights(package, tmp_path):
    folder = package.folder()
    outside = tmp_path / "outside.safetensors"
    (folder / "points.safetensors").rename(outside)
    (folder / "points.safetensors").symlink_to(outside)
    return folder


def weights_elsewhere(package, tmp_path):
    (tmp_path / "outside.safetensors").write_bytes(package.files["points.safetensors"])
    return package.change(ModelFile="../outside.safetensors").folder()


def deep_json(package, tmp_path):
    package.files["points.emd"] = b'{"a":' * 5000 + b"1" + b"}" * 5000
    return package.folder()


def endless_number(package, tmp_path):
    package.files["points.emd"] = package.files["points.emd"].replace(
        b'"ImageHeight": 64', b'"ImageHeight": 1e999'
    )
    return package.folder()


def many_digits(package, tmp_path):
    package.files["points.emd"] = package.files["points.emd"].replace(
        b'"ImageHeight": 64', b'"ImageHeight": ' + b"9" * 10_000
    )
    return package.folder()


def newer_schema(package, tmp_path):
    return package.change(Geodl={**package.emd["Geodl"], "schema": 99}).folder()


def giant_network(package, tmp_path):
    return package.change(ModelParameters={"width": 10**9}).folder()


HOSTILE = {
    pickle_bomb: "no plain tensors",
    torch_bomb: "no plain tensors",
    whole_network: "no plain tensors",
    endless_tensor: "cannot hold",
    huge_header: "damaged",
    endless_header: "damaged",
    nan_weights: r"'head\.weight'.*not finite",
    other_shapes: r"'head\.weight' have the shape",
    wrong_hash: "sha256",
    no_hash: "no sha256",
    zip_slip: "not inside the package",
    absolute_name: "not inside the package",
    zip_bomb: "would unpack to",
    lying_size: r"damaged|not as long",
    truncated_zip: "no readable DLPK",
    linked_member: "is a link",
    linked_weights: "is a link",
    weights_elsewhere: "not inside the package",
    deep_json: "not usable JSON",
    endless_number: "not finite",
    many_digits: "not usable JSON",
    newer_schema: "newer geodl.*update geodl",
    giant_network: "another network",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_package_is_refused_by_name(make, package, tmp_path):
    forget_models()
    path = make(package, tmp_path)
    with pytest.raises(BundleError, match=HOSTILE[make]) as caught:
        load_model(resolve_model(path, tmp_path / "x"))
    assert "points" in str(caught.value)
    assert not list(tmp_path.rglob(TOUCHED))
    assert not [*tmp_path.rglob("slipped.txt"), *tmp_path.parent.glob("slipped.txt")]


def test_packaged_python_is_never_run(package, tmp_path):
    code = f"open({str(tmp_path / TOUCHED)!r}, 'w')\n".encode()
    package.files = {"ArcGISImageClassifier.py": code, "__init__.py": code, **package.files}
    package.change(InferenceFunction="ArcGISImageClassifier.py", ModelConfiguration="points")
    load_model(resolve_model(package.folder(), tmp_path))
    load_model(resolve_model(package.dlpk(), tmp_path))
    assert not list(tmp_path.rglob(TOUCHED))


def test_every_part_is_compared_with_its_sha256(package, contract):
    from geodl.bundle.schema import definition
    from geodl.bundle.weights import write_weights
    from geodl.bundle.write import package_files

    extra = {"notes.md": b"as it was", "pictures/a.png": b"png"}
    package.files = package_files(
        "points", definition(contract, {"width": 4}), write_weights(package.net),
        contract=contract, extra=extra,
    )  # fmt: skip
    folder = package.folder()
    assert read_bundle(folder).verify_parts() == [
        "points.safetensors",
        "notes.md",
        "pictures/a.png",
    ]
    (folder / "notes.md").write_text("as it is")
    with pytest.raises(BundleError, match=r"'notes\.md' is"):
        read_bundle(folder).verify_parts()
    (folder / "notes.md").unlink()
    with pytest.raises(BundleError, match=r"no file 'notes\.md'"):
        read_bundle(folder).verify_parts()


@given(data=st.data())
def test_a_damaged_dlpk_is_read_or_refused(package, data):
    """Bytes overwritten, cut out or put in anywhere: never another error than ours."""
    sound = package.dlpk().read_bytes()
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(max_size=8))
        content[at : at + data.draw(st.integers(0, 8))] = new
    path = package.root / "fuzzed.dlpk"
    path.write_bytes(bytes(content))
    with contextlib.suppress(GeodlError):
        read_bundle(path).trained_weights()


@given(data=st.data())
def test_a_dlpk_with_right_checksums_over_wrong_content_is_read_or_refused(package, data):
    """The zip is sound; what is in it is not."""
    files = {name: bytearray(content) for name, content in package.files.items()}
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    files[name][at : at + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=12))
    path = package.root / "fuzzed.dlpk"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, bytes(content))
    with contextlib.suppress(GeodlError):
        read_bundle(path, verify=False)
        from geodl.bundle.weights import read_weights

        read_weights(bytes(files["points.safetensors"]), "points.safetensors", "fuzzed")


@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06"]))
def test_any_bytes_are_no_package(tmp_path, content, head):
    path = tmp_path / "any.dlpk"
    path.write_bytes(head + content)
    with pytest.raises(BundleError):
        ZipFiles(path)


@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_no_definition(tmp_path, text):
    path = tmp_path / "any.emd"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BundleError):
        read_bundle(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_weights(content):
    from geodl.bundle.weights import read_weights

    for name in ("a.safetensors", "a.pth"):
        with contextlib.suppress(BundleError):
            assert isinstance(read_weights(content, name, "x"), dict)


def test_the_checks_leave_sound_packages_alone(package, tmp_path):
    x = torch.from_numpy(np.ones((1, 2, 8, 8), np.float32))
    model = load_model(resolve_model(package.dlpk(), tmp_path))
    with torch.inference_mode():
        np.testing.assert_allclose(model.net(x).numpy(), package.net(x).numpy(), atol=1e-6)
    assert zlib.crc32(package.dlpk().read_bytes()) == zlib.crc32(package.dlpk().read_bytes())
