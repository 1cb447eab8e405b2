"""predict_video: numbers kept over frames, products, refusals."""

import csv
import os
from pathlib import Path

import motmetrics
import numpy as np
import pytest
import rasterio

from geodl.base.errors import (
    ModelDataError,
    NotSupportedError,
    OptionError,
    SourceError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.bundle import load_model, resolve_model
from geodl.io.video import VideoReader, open_writer
from geodl.models.detector import DetectorModel
from geodl.models.image_detection import ImageDetector
from geodl.models.single_shot_detector import SingleShotDetector
from geodl.models.video import VideoRun, check_rgb
from geodl.ops.boxes import iou_matrix
from geodl.ops.tracks import TrackerOptions
from geodl.testing.tiny import tiny_model

WIDTH, HEIGHT, FRAMES = 160, 120, 60


def patches(folder, classes):
    """A network that finds every bright patch."""
    package = tiny_model(folder / "model", "objects", tile_px=96, classes=classes)
    model = load_model(resolve_model(str(package), str(folder)), "cpu")
    return ImageDetector(
        net=model.net, task=model.task, contract=model.contract, threshold=0.5, nms_overlap=0.3
    )


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    return patches(tmp_path_factory.mktemp("bright"), {1: "bright"})


def ground(path=None):
    """Dark ground, generated or of a real raster, and where bright objects stand on it."""
    if path is None:
        picture = np.random.default_rng(0).integers(10, 60, (300, 420, 3)).astype(np.uint8)
    else:
        with rasterio.open(path) as file:
            size = file.read([1, 2, 3], window=((200, 500), (200, 620))).transpose(1, 2, 0)
        picture = (size // 5 + 10).astype(np.uint8)
    boxes = []
    for row in range(30, 280, 62):
        for col in range(25, 400, 71):
            width = 12 + (row * 7 + col) % 9
            height = 14 + (row + col) % 3
            picture[row : row + height, col : col + width] = 235
            boxes.append((col, row, col + width, row + height))
    return picture, np.array(boxes, float)


def pan(path, picture, boxes, hidden=range(0)):
    """A film of a camera that goes over the ground; true boxes with their numbers by frame."""
    truth = []
    with open_writer(path, WIDTH, HEIGHT, 10.0) as writer:
        for t in range(FRAMES):
            left, top = 20 + 4 * t, round(80 + 30 * np.sin(t / 20))
            frame = picture[top : top + HEIGHT, left : left + WIDTH, ::-1].copy()
            if t in hidden:
                frame[:] = 30
            writer.write(frame)
            moved = boxes - [left, top] * 2
            seen = whole(moved) & (t not in hidden)
            truth.append((np.flatnonzero(seen), moved[seen]))
    return truth


def whole(boxes):
    """Those that no edge of the frame cuts: only they are judged."""
    inside = (boxes[:, :2] >= 2) & (boxes[:, 2:] <= np.array([WIDTH, HEIGHT]) - 2)
    return inside.all(axis=1)


def read_cells(path):
    """(numbers, scores, boxes x0, y0, x1, y1) by frame, from the pixels' numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    frames = []
    for cell in (row[-1] for row in rows[1:]):
        parts = [part.split() for part in cell.strip().split(";") if part]
        values = np.array(parts, float).reshape(-1, 5)
        places = values[:, 2:4].astype(int)
        corners = np.stack([places[:, 0] % WIDTH, places[:, 0] // WIDTH + 1,
                            places[:, 1] % WIDTH, places[:, 1] // WIDTH + 1], axis=1)  # fmt: skip
        frames.append((values[:, 0].astype(int), values[:, 1], corners.astype(float)))
    return rows[0], frames


def figures(truth, found):
    """MOTA and switches of identity, by motmetrics."""
    counts = motmetrics.MOTAccumulator(auto_id=True)
    for (numbers, boxes), (tracks, _, places) in zip(truth, found, strict=True):
        judged = whole(places)
        tracks, places = tracks[judged], places[judged]
        overlap = iou_matrix(boxes, places)
        counts.update(numbers, tracks, np.where(overlap >= 0.5, 1 - overlap, np.nan))
    names = ["mota", "num_switches", "num_unique_objects", "num_false_positives"]
    return motmetrics.metrics.create().compute(counts, metrics=names).iloc[0]


def followed(bright, source, truth, tmp_path, **options):
    metadata = tmp_path / "film.csv"
    VideoRun(
        detector=bright, source=source, metadata=metadata,
        tracker=TrackerOptions(**{"detect_frames": 2, **options}),
    ).run()  # fmt: skip
    header, found = read_cells(metadata)
    assert header == ["vmtilocaldataset"]
    assert len(found) == FRAMES
    return figures(truth, found)


def test_objects_keep_their_numbers_while_the_camera_pans(bright, tmp_path):
    truth = pan(tmp_path / "film.mp4", *ground())
    score = followed(bright, tmp_path / "film.mp4", truth, tmp_path)
    assert score.num_switches == 0
    assert score.mota > 0.9
    assert score.num_unique_objects > 10


def test_objects_keep_their_numbers_when_hidden_for_a_while(bright, tmp_path):
    truth = pan(tmp_path / "film.mp4", *ground(), hidden=range(25, 30))
    kept = followed(bright, tmp_path / "film.mp4", truth, tmp_path, vanish_frames=10)
    assert kept.num_switches == 0
    (tmp_path / "film.csv").unlink()
    lost = followed(bright, tmp_path / "film.mp4", truth, tmp_path, vanish_frames=3)
    assert lost.num_switches > 0


@pytest.mark.real
def test_objects_keep_their_numbers_over_a_real_raster(bright, tmp_path):
    folder = os.environ.get("GEODL_SAMPLE_DATA")
    if not folder:
        pytest.skip("GEODL_SAMPLE_DATA is not set")
    raster = next(p for p in sorted(Path(folder, "drone_ortho").glob("*.tif")))
    truth = pan(tmp_path / "film.mp4", *ground(raster))
    score = followed(bright, tmp_path / "film.mp4", truth, tmp_path)
    assert score.num_switches == 0
    assert score.mota > 0.9


def test_without_tracking_numbers_are_those_of_classes(tmp_path):
    truth = pan(tmp_path / "film.mp4", *ground())
    detector = patches(tmp_path, {3: "odd", 7: "even"})
    VideoRun(detector=detector, source=tmp_path / "film.mp4", metadata=tmp_path / "film.csv").run()
    _, found = read_cells(tmp_path / "film.csv")
    assert {n for numbers, _, _ in found for n in numbers.tolist()} == {1, 2}
    for (_, _, places), (_, boxes) in zip(found, truth, strict=True):
        assert (iou_matrix(boxes, places).max(axis=1) > 0.5).all()
    assert all(50 <= s <= 100 for _, scores, _ in found for s in scores.tolist())


def test_drawn_and_multiplexed_videos(bright, tmp_path):
    pan(tmp_path / "film.mp4", *ground())
    VideoRun(
        detector=bright, source=tmp_path / "film.mp4", metadata=tmp_path / "film.csv",
        size_yx=(96, 96), tracker=TrackerOptions(detect_frames=1),
        drawn=tmp_path / "drawn.mp4", multiplexed=tmp_path / "both.MOV",
    ).run()  # fmt: skip
    with VideoReader(tmp_path / "film.mp4") as plain, VideoReader(tmp_path / "drawn.mp4") as drawn:
        pairs = list(zip(plain, drawn, strict=True))
    assert len(pairs) == FRAMES
    changed = [np.abs(a.astype(int) - b).max() for a, b in pairs]
    assert min(changed) > 80
    with VideoReader(tmp_path / "both.MOV") as reader:
        assert sum(1 for _ in reader) == FRAMES


@pytest.fixture(scope="module")
def detector(detector_package) -> DetectorModel:
    return SingleShotDetector.from_model(detector_package)


def test_the_method_runs_with_all_its_options_and_names_its_outputs(detector, tmp_path):
    pan(tmp_path / "film.mp4", *ground())
    (tmp_path / "film.csv").write_text("Sensor Latitude\n" + "45.5\n" * FRAMES)
    detector.predict_video(
        tmp_path / "film.mp4", tmp_path / "film.csv", threshold=0.01, nms_overlap=0.5, track=True,
        visualize=True, multiplex=True, resize=True,
        tracker_options={"detect_frames": 1, "assignment_iou_thrd": 0.2, "vanish_frames": 2},
        visual_options={"color": [0, 255, 0], "show_scores": False, "thickness": 1, "fontface": 2},
    )  # fmt: skip
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["film.csv", "film.mp4", "film_multiplex.MOV", "film_prediction.mp4"]
    header, found = read_cells(tmp_path / "film.csv")
    assert header == ["Sensor Latitude", "vmtilocaldataset"]
    assert len(found) == FRAMES
    assert any(len(numbers) for numbers, _, _ in found)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"tracker_options": {"vanish": 3}}, UnknownOptionError, "vanish_frames"),
        ({"tracker_options": {"vanish_frames": 0}}, OptionError, "vanish_frames"),
        ({"visual_options": {"colour": 3}}, UnknownOptionError, "color"),
        ({"visual_options": {"color": (1, 2)}}, OptionError, "blue"),
        ({"visual_options": {"color": (1, 2, 256)}}, OptionError, "255"),
        ({"visual_options": {"fontface": 9}}, OptionError, "fontface"),
        ({"visual_options": {"thickness": 0}}, OptionError, "thickness"),
        ({"threshold": 2}, OptionError, "threshold"),
        ({"track": "perhaps"}, OptionError, "track"),
        ({"metadata_file": "film.txt"}, OptionError, "csv"),
        ({"output_file_path": "film.gif"}, NotSupportedError, "mp4"),
        ({"multiplex_file_path": "film.avi"}, NotSupportedError, "mov"),
        ({"output_file_path": "film.mp4"}, OptionError, "input"),
        ({}, SourceNotFoundError, r"film\.mp4"),
    ],
)
def test_wrong_arguments_are_refused(detector, tmp_path, monkeypatch, options, error, word):
    monkeypatch.chdir(tmp_path)
    given = {"input_video_path": "film.mp4", "metadata_file": "film.csv", **options}
    with pytest.raises(error, match=word):
        detector.predict_video(**given)
    assert not list(tmp_path.iterdir())


def test_a_broken_video_is_named_and_leaves_nothing_behind(detector, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no video at all" * 99)
    with pytest.raises(SourceError, match=r"film\.mp4"):
        detector.predict_video(tmp_path / "film.mp4", tmp_path / "film.csv", visualize=True)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_models_of_other_bands_are_refused(tmp_path):
    package = tiny_model(tmp_path / "model", "objects", bands=4)
    model = load_model(resolve_model(str(package), str(tmp_path)), "cpu")
    with pytest.raises(ModelDataError, match="extract_bands"):
        check_rgb(model.contract)
