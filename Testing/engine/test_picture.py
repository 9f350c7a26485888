"""The picture of a segmentation: the patient's right on the left, every label in its colour, where two maps differ."""

import numpy as np
import pytest
from PIL import Image
from segmamba.cases.case import Case
from segmamba.evaluation.picture import COLOURS, DIFFERENCES, label_colours, save_picture

SHAPE = (30, 40, 24)


@pytest.fixture
def case():
    """A grey box as a head on an LPS grid, brighter in its left half, X running to the left."""
    image = np.zeros(SHAPE, np.float32)
    image[3:27, 3:37, 2:22] = 60
    image[15:27, 3:37, 2:22] = 80
    return Case(
        id="box", images={"t1c": image, "t2f": image}, affine=np.diag([-1.0, -1.0, 1.0, 1.0]), sources={}, notes=()
    )


def blob(x, value=1):
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[x : x + 6, 12:24, 8:16] = value
    return label_map


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(float) / 255


def near(picture, colour, limit=0.12):
    """Columns and rows (fractions of the picture) of the pixels of a colour, legend left out."""
    body = picture[: int(0.93 * len(picture))]
    rows, columns = np.nonzero(np.abs(body - colour).max(-1) < limit)
    return columns / picture.shape[1], rows / len(picture)


def test_a_label_is_drawn_in_its_colour_in_the_column_of_its_map(case, tmp_path):
    save_picture(case, {"truth": blob(8)}, tmp_path / "a.png")
    columns, _ = near(pixels(tmp_path / "a.png"), COLOURS["NCR"])
    assert len(columns) > 100
    assert columns.min() > 2 / 3  # the third of three columns


def test_the_patients_left_is_on_the_right(case, tmp_path):
    places = []
    for x in (4, 20):  # low X is the patient's right on this grid
        save_picture(case, {"truth": blob(x)}, tmp_path / "a.png")
        columns, rows = near(pixels(tmp_path / "a.png"), COLOURS["NCR"])
        places.append(np.median(columns[rows < 1 / 3]))
    assert places[0] < places[1]


def test_the_difference_of_two_maps_is_shown_in_three_colours(case, tmp_path):
    truth, prediction = blob(8), blob(11)
    prediction[11:14, 12:16][prediction[11:14, 12:16] == 1] = 2
    save_picture(case, {"truth": truth, "prediction": prediction}, tmp_path / "a.png")
    grey = 60 / 80
    for colour in DIFFERENCES.values():
        blends = [0.75 * np.asarray(colour) + 0.25 * shade for shade in (grey, 1.0)]
        columns = np.concatenate([near(pixels(tmp_path / "a.png"), blend, 0.05)[0] for blend in blends])
        assert np.median(columns) > 0.8, colour  # the last of five columns


def test_equal_maps_have_no_difference(case, tmp_path):
    save_picture(case, {"truth": blob(8), "prediction": blob(8)}, tmp_path / "a.png")
    body = pixels(tmp_path / "a.png")[:, int(0.81 * 1100) :]
    last = body[int(0.1 * len(body)) : int(0.9 * len(body))]
    assert np.ptp(last, axis=-1).max() < 0.1  # nothing but grey


def test_without_truth_the_slices_lie_where_the_prediction_is(case, tmp_path):
    save_picture(case, {"truth": blob(8, 0), "prediction": blob(20)}, tmp_path / "a.png")
    assert len(near(pixels(tmp_path / "a.png"), COLOURS["NCR"])[0]) > 100


def test_labels_of_another_task_and_odd_names_are_drawn(case, tmp_path):
    labels = {"$\\frac{": 1, "ET": 2, "liver": 3}
    assert label_colours(labels)["ET"] == COLOURS["ET"]
    assert len(set(label_colours(labels).values())) == 3
    save_picture(case, {"_$\\sqrt{": blob(8, 3)}, tmp_path / "a.png", "$\\frac{", labels)
    assert len(near(pixels(tmp_path / "a.png"), label_colours(labels)["liver"])[0]) > 100


def test_a_picture_without_any_label_is_drawn(case, tmp_path):
    save_picture(case, {"truth": blob(8, 0), "prediction": blob(8, 0)}, tmp_path / "a.png")
    assert len(near(pixels(tmp_path / "a.png"), COLOURS["NCR"])[0]) == 0
