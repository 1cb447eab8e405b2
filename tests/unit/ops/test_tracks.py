"""Numbers that objects keep from frame to frame."""

import numpy as np
import pytest

from geodl.base.errors import DataError, OptionError
from geodl.core.detections import Detections
from geodl.ops.tracks import BoxTracker, TrackerOptions


def frame(*objects):
    """(left, label) of objects 10 px wide."""
    left = np.array([left for left, _ in objects], float)
    zeros = np.zeros_like(left)
    boxes = np.stack([left, zeros, left + 10, zeros + 10], axis=1).reshape(-1, 4)
    labels = np.array([label for _, label in objects], np.int64)
    return Detections(boxes, np.full(len(left), 0.9, np.float32), labels)


def follow(options, frames):
    tracker = BoxTracker(TrackerOptions(**options))
    return [tracker.update(f)[1].tolist() for f in frames]


def test_a_track_begins_with_the_frame_that_completes_the_wanted_number():
    still = [frame((0, 1))] * 4
    assert follow({"detect_frames": 3}, still) == [[], [], [1], [1]]
    assert follow({"detect_frames": 1}, still) == [[1]] * 4


def test_a_gap_starts_the_count_of_a_new_object_again():
    frames = [frame((0, 1)), frame((0, 1)), frame(), frame((0, 1)), frame((0, 1)), frame((0, 1))]
    assert follow({"detect_frames": 3}, frames) == [[], [], [], [], [], [1]]


def test_an_object_keeps_its_number_while_hidden_for_less_than_the_limit():
    options = {"detect_frames": 1, "vanish_frames": 3}
    hidden = [frame((0, 1)), frame(), frame(), frame((0, 1))]
    assert follow(options, hidden)[-1] == [1]
    longer = [frame((0, 1)), frame(), frame(), frame(), frame((0, 1))]
    assert follow(options, longer)[-1] == [2]


def test_a_moving_object_is_met_where_it_went_behind_an_obstacle():
    path = [frame((4 * t, 1)) for t in range(6)] + [frame()] * 5
    path += [frame((4 * t, 1)) for t in range(11, 14)]
    assert follow({"detect_frames": 1}, path)[-1] == [1]


def test_objects_that_pass_each_other_keep_their_numbers():
    # Opposite ways, 3 px a frame; they lie on each other in the middle.
    frames = [frame((3 * t, 1), (60 - 3 * t, 1)) for t in range(21)]
    numbers = follow({"detect_frames": 1}, frames)
    assert numbers == [[1, 2]] * 21


def test_classes_do_not_continue_each_other_and_the_overlap_matters():
    swap = [frame((0, 1)), frame((0, 2))]
    assert follow({"detect_frames": 1}, swap) == [[1], [2]]
    jump = [frame((0, 1)), frame((5, 1))]
    assert follow({"detect_frames": 1, "assignment_iou_thrd": 0.33}, jump)[1] == [1]
    assert follow({"detect_frames": 1, "assignment_iou_thrd": 0.34}, jump)[1] == [2]


def test_the_assignment_is_the_best_of_all_not_of_the_first():
    # By itself the first would take the detection that the second alone can have.
    before, after = frame((0, 1), (5, 1)), frame((4, 1), (0.5, 1))
    assert follow({"detect_frames": 1}, [before, after])[1] == [2, 1]


@pytest.mark.parametrize(
    "options", [{"assignment_iou_thrd": 1.5}, {"vanish_frames": 0}, {"detect_frames": 2.5}]
)
def test_options_outside_their_domain_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        TrackerOptions(**options)


def test_boxes_that_are_not_finite_are_refused():
    broken = frame((np.nan, 1))
    with pytest.raises(DataError, match="finite"):
        BoxTracker().update(broken)
