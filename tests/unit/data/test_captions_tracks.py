"""Images with captions, and objects in videos."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from geodl.base.errors import DataError, DataWarning, FormatError, OptionError
from geodl.data.prepare import prepare_data
from geodl.testing.datasets import write_chip, write_chips, write_root_files


def write_annotations(root, sentences):
    entries = [
        {"filename": f"{name:09d}.tif", "sentences": [{"raw": text} for text in texts]}
        for name, texts in sentences.items()
    ]
    (root / "annotations.json").write_text(json.dumps({"images": entries}))


def caption_folder(root, images=5):
    write_chips(root / "images", images)
    write_annotations(root, {i: [f"a  field {i} .", f"field {i} again"] for i in range(images)})
    return root


CAPTIONS = {"dataset_type": "ImageCaptioning", "batch_size": 2}


def test_images_come_with_their_sentences(tmp_path):
    data = prepare_data(caption_folder(tmp_path), **CAPTIONS)
    assert (data.kind, len(data.train_ds), len(data.valid_ds)) == ("captions", 4, 1)
    for i in range(4):
        item = data.train_ds[i]
        number = int(item["name"])
        assert item["captions"] == (f"a field {number} .", f"field {number} again")
        assert item["caption"] in item["captions"]
        assert item["image"].shape == (3, 16, 16)
    drawn = {data.train_ds[(0, seed)]["caption"] for seed in range(20)}
    assert len(drawn) == 2
    assert data.valid_ds[0]["caption"] == data.valid_ds[0]["captions"][0]
    batch = next(iter(data.train_loader()))
    assert batch["image"].shape == (2, 3, 16, 16)
    assert len(batch["caption"]) == 2
    assert "captions" in repr(data)
    assert len(data.show_batch(1).axes) == 3


def test_captions_of_an_export_are_in_its_labels(tmp_path):
    write_chips(tmp_path / "images", 3)
    (tmp_path / "labels").mkdir()
    for i in range(3):
        text = f"<annotation><object><name>two boats,\n {i} cars</name></object></annotation>"
        (tmp_path / "labels" / f"{i:09d}.xml").write_text(text)
    write_root_files(tmp_path, "MultiLabeled_Tiles", SingleLabelFieldFound="Caption")
    data = prepare_data(tmp_path, batch_size=2)
    assert data.dataset_type == "ImageCaptioning"
    item = data.train_ds[0]
    assert item["captions"] == (f"two boats, {int(item['name'])} cars",)
    (tmp_path / "labels" / "000000001.xml").write_text("<annotation/>")
    with pytest.raises(FormatError, match=r"000000001\.xml"):
        prepare_data(tmp_path)


def test_images_may_differ_in_size(tmp_path):
    root = caption_folder(tmp_path)
    write_chip(root / "images" / "000000002.tif", np.ones((3, 20, 9), np.uint8))
    data = prepare_data(root, **CAPTIONS)
    items = [data.train_ds[i] for i in range(4)] + [data.valid_ds[0]]
    assert {item["image"].shape for item in items} == {(3, 16, 16)}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"filename": "none.tif", "sentences": [{"raw": "x"}]}, "none.tif"),
        ({"filename": "000000001.tif", "sentences": []}, "'sentences'"),
        ({"filename": "000000001.tif", "sentences": [{"raw": " "}]}, "'raw'"),
        ({"filename": "000000001.tif"}, "'sentences'"),
    ],
)
def test_faults_of_annotations_are_named(tmp_path, entry, words):
    root = caption_folder(tmp_path)
    (root / "annotations.json").write_text(json.dumps({"images": [entry]}))
    with pytest.raises(FormatError, match=rf"annotations\.json: images.0.*{words}"):
        prepare_data(root, **CAPTIONS)


def test_images_without_a_caption_are_left_out_and_folders_without_any_refused(tmp_path):
    root = caption_folder(tmp_path)
    write_annotations(root, {0: ["x"], 3: ["y"], 4: ["z"]})
    with pytest.warns(DataWarning, match="2 of 5 images"):
        data = prepare_data(root, **CAPTIONS)
    assert len(data.train_ds) + len(data.valid_ds) == 3
    (root / "annotations.json").unlink()
    with pytest.raises(FormatError, match="neither"):
        prepare_data(root, **CAPTIONS)


# -- tracks -----------------------------------------------------------------------------------

TRACKS = {"dataset_type": "ObjectTracking", "batch_size": 2}


def frame_and_mask(number, step, side=60):
    """A square of 40 px that moves one pixel per frame, and a small one of no use."""
    image = np.full((3, side, side), 30, np.uint8)
    mask = np.zeros((side, side), np.uint8)
    image[:, 5 + step : 45 + step, 10:50] = 100 + number
    mask[5 + step : 45 + step, 10:50] = number
    mask[0:3, 0:3] = number + 1
    return image, mask


def youtube_folder(root, videos=3, frames=4):
    listed = {}
    for video in range(videos):
        for step in range(frames):
            image, mask = frame_and_mask(1, step)
            write_chip(root / "JPEGImages" / f"v{video}" / f"{5 * step:05d}.tif", image)
            write_chip(root / "Annotations" / f"v{video}" / f"{5 * step:05d}.tif", mask[None])
        names = [f"{5 * step:05d}" for step in range(frames)]
        objects = {str(number): {"category": "car", "frames": names} for number in (1, 2)}
        listed[f"v{video}"] = {"objects": objects}
    (root / "meta.json").write_text(json.dumps({"videos": listed}))
    return root


def exported_folder(root, frames=3):
    for sequence in ("a", "b"):
        for step in range(frames):
            image, mask = frame_and_mask(4, step)
            number = step + (0 if sequence == "a" else 100)
            write_chip(root / "images" / f"{number}.tif", image)
            write_chip(root / "labels" / sequence / f"{number}.tif", mask[None])
    return root


def test_an_object_comes_in_two_frames_of_its_video(tmp_path):
    data = prepare_data(youtube_folder(tmp_path), **TRACKS)
    assert (data.kind, data.sequences, data.tracks, data.split) == ("tracks", 3, 3, "sequence")
    assert (len(data.train_ds), len(data.valid_ds)) == (8, 4)
    for i in range(8):
        item = data.train_ds[(i, i)]
        video, number, _ = item["name"].split("/")
        assert item["name_b"].startswith(f"{video}/{number}/")
        assert item["name_b"] != item["name"]
        for suffix in ("", "_b"):
            step = int(item[f"name{suffix}"].split("/")[2]) // 5
            assert item[f"box{suffix}"].tolist() == [10, 5 + step, 50, 45 + step]
            assert int(item[f"target{suffix}"].sum()) == 1600
            raw = data.normalization.invert(item[f"image{suffix}"].numpy())
            assert np.rint(raw[0][item[f"target{suffix}"].numpy() == 1]).tolist() == [101] * 1600
    videos = [
        {items[i]["name"].split("/")[0] for i in range(len(items))}
        for items in (data.train_ds, data.valid_ds)
    ]
    assert videos[0].isdisjoint(videos[1])
    assert "3 objects in 3 sequences" in repr(data)
    assert len(data.show_batch(2).axes) == 4


def test_the_second_frame_is_drawn_in_training_and_the_next_in_validation(tmp_path):
    data = prepare_data(youtube_folder(tmp_path), **TRACKS)
    partners = {data.train_ds[(0, seed)]["name_b"] for seed in range(30)}
    assert len(partners) == 3
    assert data.train_ds[(0, 4)]["name_b"] == data.train_ds[(0, 4)]["name_b"]
    pairs = [(data.valid_ds[i]["name"][-5:], data.valid_ds[i]["name_b"][-5:]) for i in range(4)]
    assert pairs == [("00000", "00005"), ("00005", "00010"), ("00010", "00015"), ("00015", "00010")]
    batch = next(iter(data.train_loader()))
    assert batch["image"].shape == (2, 3, 60, 60)
    assert batch["box_b"].shape == (2, 4)


def test_exported_sequences_are_read(tmp_path):
    root = exported_folder(tmp_path)
    write_root_files(root, "RCNN_Masks", size=(60, 60))
    data = prepare_data(root, **TRACKS)
    assert (len(data.train_ds), len(data.valid_ds)) == (3, 3)
    torch.testing.assert_close(data.train_ds[0]["box"], torch.tensor([10.0, 5, 50, 45]))
    with pytest.raises(OptionError, match="no transforms"):
        prepare_data(root, transforms=len, **TRACKS)


def test_faults_of_videos_are_named(tmp_path):
    root = youtube_folder(tmp_path / "a", videos=2)
    (root / "JPEGImages" / "v1" / "00005.tif").unlink()
    with pytest.raises(FormatError, match=r"v1.00005\.tif has no image"):
        prepare_data(root, **TRACKS)
    (root / "Annotations" / "v1" / "00005.tif").unlink()
    with pytest.raises(FormatError, match="frame '00005'"):
        prepare_data(root, **TRACKS)
    meta = json.loads((root / "meta.json").read_text())
    del meta["videos"]["v1"]
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(FormatError, match="1 sequences"):
        prepare_data(root, **TRACKS)
    root = youtube_folder(tmp_path / "b", videos=2)
    meta = json.loads((root / "meta.json").read_text())
    del meta["videos"]["v0"]["objects"]["2"]
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(FormatError, match="object 2, which"):
        prepare_data(root, **TRACKS)
    (root / "meta.json").unlink()
    with pytest.raises(FormatError, match=r"meta\.json is missing"):
        prepare_data(root, **TRACKS)


def test_faults_of_exported_sequences_are_named(tmp_path):
    root = exported_folder(tmp_path / "a")
    (root / "labels" / "b" / "100.tif").rename(root / "labels" / "b" / "x.tif")
    with pytest.raises(FormatError, match=r"x\.tif: .* whole numbers"):
        prepare_data(root, **TRACKS)
    root = exported_folder(tmp_path / "b")
    write_chip(root / "labels" / "a" / "1.tif", np.full((1, 50, 60), 4, np.uint8))
    data = prepare_data(root, val_split_pct=0.5, **TRACKS)
    held = data.train_ds if data.train_ds.names[0].startswith("a") else data.valid_ds
    with pytest.raises(FormatError, match="60 x 50 pixels"):
        held[1]
    for path in (root / "labels").rglob("*.tif"):
        write_chip(path, np.zeros((1, 60, 60), np.uint8))
    with pytest.raises(DataError, match="1000 pixels"):
        prepare_data(root, **TRACKS)
