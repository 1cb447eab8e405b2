import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodl.base.errors import BundleError
from geodl.bundle import read_bundle
from geodl.bundle.instantiate import instantiate
from geodl.bundle.schema import SCHEMA_VERSION


def test_what_is_written_is_read_from_emd_folder_and_dlpk(package, contract):
    folder = package.folder()
    seen = [read_bundle(p) for p in (folder, folder / "points.emd", package.dlpk(), str(folder))]
    for bundle in seen:
        assert bundle.contract == contract
        assert bundle.parameters == {"width": 4}
        assert bundle.metrics == {"accuracy": "9.5000e-01", "mIoU": 0.5}
        assert not bundle.foreign
        assert bundle.emd["ModelFile"] == "points.safetensors"
    assert len({bundle.sha256 for bundle in seen}) == 1


def test_the_definition_holds_the_documented_keys(package):
    emd = package.emd
    assert emd["ModelType"] == "ImageClassification"
    assert emd["ModelFormat"] == "NCHW"
    assert emd["ExtractBands"] == [2, 0]
    assert emd["ImageHeight"] == emd["ImageWidth"] == 64
    assert [c["Value"] for c in emd["Classes"]] == [3, 7]
    assert emd["MinCellSize"]["x"] == 0.5
    assert emd["MaxCellSize"]["y"] == 2.0
    assert emd["IsMultispectral"]
    assert not emd["IsImageNetNormalization"]
    assert emd["Bands"] == ["red", "green", "nir", "alt"]
    assert "Framework" not in emd
    assert "ModelConfiguration" not in emd
    stats = emd["NormalizationStats"]
    assert len(stats) == 8
    assert {len(values) for values in stats.values()} == {4}
    assert stats["band_mean_values"][2] == pytest.approx(-5 + 0.3 * 4005)
    assert stats["band_std_values"][0] == pytest.approx(0.2 * 255)
    sha = hashlib.sha256(package.files["points.safetensors"]).hexdigest()
    assert emd["Geodl"]["weights_sha256"] == {"points.safetensors": sha}


def test_the_identity_follows_what_changes_answers_only(package):
    first = read_bundle(package.folder()).sha256
    package.change(accuracy="1.0", LearningRate="1e-3", Description="x").folder()
    assert read_bundle(package.root / "points").sha256 == first
    original = dict(package.files)
    own = package.emd["Geodl"]
    seen = {first}
    for change in (
        {"ModelParameters": {"width": 5}},
        {"ImageSpaceUsed": "MAP_SPACE"},
        {"Bands": ["red", "green", "nir", "swir"]},
        # Facts of geodl's own: which rasters fit, and at what cell size they are seen.
        {"Geodl": {**own, "dtype": "float32"}},
        {"Geodl": {**own, "source_bands": 5}},
        {"Geodl": {**own, "pixel_scale": 2.0}},
    ):
        package.files = dict(original)
        found = read_bundle(package.change(**change).folder()).sha256
        assert found not in seen, change
        seen.add(found)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ImageHeight": 0}, "ImageHeight is 0"),
        ({"ImageHeight": 65537}, "65537"),
        ({"ImageHeight": 64.5}, "ImageHeight is 64.5"),
        ({"ImageHeight": "64"}, "ImageHeight is '64'"),
        ({"ImageHeight": True}, "ImageHeight is True"),
        ({"ImageHeight": ...}, "ImageHeight is None"),
        ({"ImageWidth": 32}, "tiles are square"),
        ({"ModelName": "UnetClasifier"}, "ModelName is 'UnetClasifier'.*'UnetClassifier'"),
        ({"ModelName": ...}, "ModelName"),
        ({"ModelType": "Magic"}, "ModelType is 'Magic'"),
        ({"Classes": []}, "Classes"),
        ({"Classes": [1]}, "Classes"),
        ({"Classes": [{"Value": 1}, {"Value": 1}]}, "Classes cannot be used"),
        ({"Classes": [{"Value": 1.5}]}, "Classes cannot be used"),
        ({"Classes": {"Value": 1}}, "Classes is no list"),
        ({"ExtractBands": []}, "ExtractBands"),
        ({"ExtractBands": [-1]}, "ExtractBands holds -1"),
        ({"ExtractBands": [1, 1]}, "twice"),
        ({"ExtractBands": ["swir"]}, "'swir'"),
        ({"ExtractBands": [0, 3, 10**9]}, "1000000000"),
        ({"NormalizationStats": {"band_min_values": [0]}}, "band_min_values has None for band 2"),
        ({"NormalizationStats": [1]}, "NormalizationStats is no JSON object"),
        ({"MinCellSize": {"x": -1}}, "MinCellSize"),
        ({"MaxCellSize": "big"}, "MaxCellSize"),
        ({"ImageSpaceUsed": "OUTER"}, "ImageSpaceUsed"),
        ({"ModelParameters": [1]}, "ModelParameters"),
        ({"ModelFile": ...}, "ModelFile"),
        ({"ModelFile": "../other.safetensors"}, "ModelFile"),
        ({"ModelFile": "/etc/passwd"}, "ModelFile"),
        ({"ModelFile": "points.emd"}, "no sha256"),
        ({"Geodl": "yes"}, "Geodl"),
        ({"Geodl": {}}, "schema"),
        ({"Geodl": {"schema": SCHEMA_VERSION + 1}}, "newer geodl"),
        ({"Geodl": {"schema": 1, "weights_sha256": {}}}, "no sha256"),
        ({"Bands": "red"}, "Bands"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_its_file(package, keys, text):
    folder = package.change(**keys).folder()
    with pytest.raises(BundleError, match=f"(?s)points.emd.*{text}"):
        read_bundle(folder)


def test_the_definition_of_training_data_is_no_model(package):
    folder = package.change(ModelType=None, MetaDataMode="Classified_Tiles").folder()
    with pytest.raises(BundleError, match=r"training data, not a model; .* prepare_data"):
        read_bundle(folder)


def test_a_band_that_does_not_exist_in_the_source_is_refused(package):
    own = {**package.emd["Geodl"], "source_bands": 2}
    with pytest.raises(BundleError, match="source_bands is 2"):
        read_bundle(package.change(Geodl=own).folder())


def test_a_maximum_below_the_minimum_is_refused(package):
    stats = package.emd["NormalizationStats"]
    stats["band_max_values"][2] = -6
    with pytest.raises(BundleError, match="NormalizationStats cannot be used"):
        read_bundle(package.change(NormalizationStats=stats).folder())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b'{"ImageHeight": NaN}',
        b'{"ImageHeight": 1e999}',
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 80 + b"]" * 80 + b"}",
    ],
    ids=["empty", "text", "list", "bytes", "nan", "infinite", "endless", "deep"],
)
def test_a_definition_that_is_no_sound_json_is_refused(package, content):
    package.files["points.emd"] = content
    for path in (package.folder(), package.dlpk()):
        with pytest.raises(BundleError, match=r"points\.emd"):
            read_bundle(path)


def test_a_byte_order_mark_is_borne(package, contract):
    package.files["points.emd"] = b"\xef\xbb\xbf" + package.files["points.emd"]
    assert read_bundle(package.folder()).contract == contract


def test_changed_weights_are_found(package):
    folder = package.folder()
    content = bytearray((folder / "points.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "points.safetensors").write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"sha256 of 'points\.safetensors'"):
        read_bundle(folder)
    bundle = read_bundle(folder, verify=False)
    with pytest.raises(BundleError, match="sha256"):
        bundle.trained_weights()


def arcgis_emd(**keys):
    return {
        "Framework": "arcgis.learn.models._inferencing",
        "ModelConfiguration": "_unet",
        "ModelType": "ImageClassification",
        "ModelName": "UnetClassifier",
        "ModelFile": ".\\lakes.pth",
        "ImageHeight": 256,
        "ImageWidth": 256,
        "ExtractBands": [0, 1, 2],
        "Classes": [{"Value": 1, "Name": "Water", "Color": [0, 92, 230]}],
        "MinCellSize": None,
        "MaxCellSize": None,
        "ModelParameters": {"backbone": "resnet34", "backend": "pytorch"},
        **keys,
    }


def test_a_package_of_arcgis_is_read_but_its_weights_are_refused(tmp_path):
    (tmp_path / "lakes.pth").write_bytes(b"pickle")
    (tmp_path / "lakes.emd").write_text(json.dumps(arcgis_emd()))
    bundle = read_bundle(tmp_path)
    assert bundle.foreign
    assert bundle.contract.classes.names == ["Water"]
    assert bundle.contract.tile_px == 256
    assert bundle.contract.normalization.bands == 3
    for use in (bundle.trained_weights, bundle.verify, lambda: bundle.require_class("Any")):
        with pytest.raises(BundleError, match=r"not made by geodl.*Train UnetClassifier"):
            use()


def test_a_foreign_package_with_bands_by_name_is_read(tmp_path):
    emd = arcgis_emd(
        Bands=["Red", "NIR"], ExtractBands=["nir", "red"], ModelName=..., IsMultispectral=True
    )
    emd.pop("ModelName")
    (tmp_path / "x.emd").write_text(json.dumps(emd))
    contract = read_bundle(tmp_path / "x.emd").contract
    assert contract.extract_bands == (1, 0)
    assert contract.source_bands == 2


def test_another_class_is_named(package):
    bundle = read_bundle(package.folder())
    bundle.require_class("PointClassifier")
    with pytest.raises(BundleError, match=r"PointClassifier\.from_model"):
        bundle.require_class("UnetClassifier")


def test_further_files_can_be_read(package):
    package.files = {"notes/a.txt": b"hello", **package.files}
    assert read_bundle(package.dlpk()).read_file("notes/a.txt") == b"hello"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(data=st.data(), value=VALUES)
def test_any_value_of_any_key_is_read_or_refused(package, data, value):
    sound = package.files["points.emd"]
    emd = package.emd
    key = data.draw(st.sampled_from(sorted(emd)))
    if isinstance(emd[key], dict) and emd[key] and data.draw(st.booleans()):
        emd[key][data.draw(st.sampled_from(sorted(emd[key])))] = value
    else:
        emd[key] = value
    folder = package.change(**emd).folder()
    package.files["points.emd"] = sound
    with contextlib.suppress(BundleError):
        instantiate(read_bundle(folder))


def test_the_scale_of_the_pixels_travels_with_the_model(package):
    assert read_bundle(package.folder()).contract.pixel_scale == 1.0
    package.change(Geodl={**package.emd["Geodl"], "pixel_scale": 0.5})
    assert read_bundle(package.folder()).contract.pixel_scale == 0.5
    package.change(Geodl={**package.emd["Geodl"], "pixel_scale": 0})
    with pytest.raises(BundleError, match="pixel_scale"):
        read_bundle(package.folder())
