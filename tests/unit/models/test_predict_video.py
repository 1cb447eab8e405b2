"""predict_video: numbers kept over frames, products, refusals."""

import csv
import weakref

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
from geodl.io.klv import LOCAL_SET_KEY
from geodl.io.video import VideoReader, open_writer
from geodl.models.detector import DetectorModel
from geodl.models.image_detection import ImageDetector
from geodl.models.single_shot_detector import SingleShotDetector
from geodl.models.video import VideoRun, check_rgb, visual_options
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


def real_raster(request):
    folder = request.getfixturevalue("sample_data")
    return next(iter(sorted((folder / "drone_ortho").glob("*.tif"))))


def pan(path, picture, boxes, hidden=range(0), frames=FRAMES, step_px=4):
    """A film of a camera that goes over the ground; true boxes with their numbers by frame."""
    truth = []
    with open_writer(path, WIDTH, HEIGHT, 10.0) as writer:
        for t in range(frames):
            left, top = 20 + step_px * t, round(80 + 30 * np.sin(t / 20))
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


def tracked(bright, source, tmp_path, **options):
    """What the csv file says of each frame."""
    metadata = tmp_path / "film.csv"
    VideoRun(
        detector=bright, source=source, metadata=metadata, tracker=TrackerOptions(**options)
    ).run()
    header, found = read_cells(metadata)
    assert header == ["vmtilocaldataset"]
    return found


def followed(bright, source, truth, tmp_path, **options):
    return figures(truth, tracked(bright, source, tmp_path, **{"detect_frames": 2, **options}))


def known(truth, frames):
    """The truth without the first frames of each object, in which it is too new to be reported."""
    kept, seen = [], {}
    for numbers, boxes in truth:
        for number in numbers.tolist():
            seen[number] = seen.get(number, 0) + 1
        old = np.array([seen[n] >= frames for n in numbers.tolist()], bool)
        kept.append((numbers[old], boxes[old]))
    return kept


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


@pytest.mark.parametrize("ground_of", ["generated", pytest.param("real", marks=pytest.mark.real)])
def test_the_default_options_follow_all_objects_once_they_are_known(
    bright, tmp_path, request, ground_of
):
    scene = ground(real_raster(request)) if ground_of == "real" else ground()
    truth = pan(tmp_path / "film.mp4", *scene, frames=110, step_px=2)
    found = tracked(bright, tmp_path / "film.mp4", tmp_path)
    every = figures(truth, found)
    assert every.num_switches == every.num_false_positives == 0
    assert every.num_unique_objects > 10
    # Waiting for ten frames in a row costs a part of each object's time in the picture.
    assert every.mota > 0.75
    # A track already begins while an edge of the frame still cuts its object.
    late = known(truth, TrackerOptions().detect_frames)
    assert sum(len(numbers) for numbers, _ in late) > 200
    assert figures(late, reported(found, truth, late)).mota > 0.97


def reported(found, truth, late):
    """What was found, without the boxes of objects that ``late`` leaves out."""
    kept = []
    for (tracks, scores, places), (_, boxes), (_, old) in zip(found, truth, late, strict=True):
        new = np.array([box for box in boxes.tolist() if box not in old.tolist()]).reshape(-1, 4)
        wanted = (iou_matrix(places, new) < 0.5).all(axis=1)
        kept.append((tracks[wanted], scores[wanted], places[wanted]))
    return kept


@pytest.mark.real
def test_objects_keep_their_numbers_over_a_real_raster(bright, tmp_path, request):
    truth = pan(tmp_path / "film.mp4", *ground(real_raster(request)))
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


def test_each_tracker_option_is_followed(bright, tmp_path):
    truth = pan(tmp_path / "film.mp4", *ground(), frames=24)

    def run(**options):
        (tmp_path / "film.csv").unlink(missing_ok=True)
        return tracked(bright, tmp_path / "film.mp4", tmp_path, **options)

    begins = {n: next(t for t, part in enumerate(run(detect_frames=n)) if len(part[0]))
              for n in (1, 5)}  # fmt: skip
    assert begins == {1: 0, 5: 4}
    # The speed of the first step is unknown, and an object of 13 px moves by 4.
    kept, lost = (run(detect_frames=1, assignment_iou_thrd=least) for least in (0.3, 0.95))
    assert figures(truth, kept).num_switches == 0
    assert figures(truth, lost).num_switches > 5


def test_whole_frames_are_resized_and_boxes_come_back_in_the_frames_pixels(tmp_path):
    """Half the resolution in both directions: the same objects, to a pixel or two."""
    truth = pan(tmp_path / "film.mp4", *ground(), frames=6)
    detector = patches(tmp_path, {1: "bright"})
    VideoRun(
        detector=detector, source=tmp_path / "film.mp4", metadata=tmp_path / "film.csv",
        size_yx=(HEIGHT // 2, WIDTH // 2),
    ).run()  # fmt: skip
    _, found = read_cells(tmp_path / "film.csv")
    for (_, _, places), (_, boxes) in zip(found, truth, strict=True):
        best = places[iou_matrix(boxes, places).argmax(axis=1)]
        assert np.abs(best - boxes).max() <= 3
        assert (iou_matrix(boxes, places).max(axis=1) > 0.6).all()


def written(bright, tmp_path, name="drawn.avi", frames=3, **visual):
    """Frames of the film, and the same with what was drawn."""
    pan(tmp_path / "film.mp4", *ground(), frames=frames)
    (tmp_path / "film.csv").unlink(missing_ok=True)
    VideoRun(
        detector=bright, source=tmp_path / "film.mp4", metadata=tmp_path / "film.csv",
        tracker=TrackerOptions(detect_frames=1), drawn=tmp_path / name,
        visual=visual_options(visual),
    ).run()  # fmt: skip
    with VideoReader(tmp_path / "film.mp4") as plain, VideoReader(tmp_path / name) as drawn:
        return [(a.astype(int), b.astype(int)) for a, b in zip(plain, drawn, strict=True)]


def test_each_visual_option_is_followed(bright, tmp_path):
    plain = {"show_scores": False, "show_labels": False, "thickness": 1, "color": (0, 255, 0)}
    change = {}
    for name, more in {
        "plain": {}, "thick": {"thickness": 4}, "labels": {"show_labels": True},
        "scores": {"show_scores": True}, "both": {"show_labels": True, "show_scores": True},
        "font": {"show_labels": True, "fontface": 2}, "red": {"color": [0, 0, 255]},
    }.items():  # fmt: skip
        frame, drawn = written(bright, tmp_path, frames=1, **{**plain, **more})[0]
        change[name] = drawn - frame
    count = {name: int((np.abs(part).max(axis=2) > 60).sum()) for name, part in change.items()}
    assert 0 < count["plain"] < count["thick"]
    assert count["plain"] < min(count["labels"], count["scores"])
    assert max(count["labels"], count["scores"]) < count["both"]
    assert np.abs(change["font"] - change["labels"]).max() > 60
    # Blue, green, red of the pixels that changed most.
    for name, band in (("plain", 1), ("red", 2)):
        rises = change[name].reshape(-1, 3)
        assert rises[rises[:, band] > 100].mean(axis=0).argmax() == band


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
    assert (tmp_path / "both.MOV").read_bytes().count(LOCAL_SET_KEY) == FRAMES


def test_memory_does_not_grow_with_the_video(bright, tmp_path, monkeypatch, capsys):
    """However long it is, a few frames are in memory at once; a bar tells how far it is."""
    pan(tmp_path / "film.mp4", *ground(), frames=40)
    alive, most = weakref.WeakSet(), []
    read = VideoReader.__iter__

    class Frame(np.ndarray):
        """One that can be counted."""

    def counted(self):
        for picture in read(self):
            frame = picture.view(Frame)
            alive.add(_Key(frame))
            yield frame
            most.append(len(alive))

    class _Key:
        def __init__(self, frame):
            frame.key = self

    monkeypatch.setattr(VideoReader, "__iter__", counted)
    VideoRun(
        detector=bright, source=tmp_path / "film.mp4", metadata=tmp_path / "film.csv",
        tracker=TrackerOptions(), drawn=tmp_path / "drawn.mp4", multiplexed=tmp_path / "both.MOV",
    ).run()  # fmt: skip
    assert len(most) == 40
    assert max(most) <= 3
    assert "film.mp4: 40 of 40" in capsys.readouterr().err


@pytest.fixture(scope="module")
def detector(detector_package) -> DetectorModel:
    return SingleShotDetector.from_model(detector_package)


def test_the_method_runs_with_all_its_options_and_names_its_outputs(detector, tmp_path):
    pan(tmp_path / "film.mp4", *ground(), frames=8)
    (tmp_path / "film.csv").write_text("Sensor Latitude\n" + "45.5\n" * 8)
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
    assert len(found) == 8
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
        ({"metadata_file": None}, OptionError, "metadata_file=None is no path"),
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
