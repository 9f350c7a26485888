"""Dates compared: thresholds, lesions that split, merge, go and come, and the whole way from files to the report."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import save_image
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.followup.by_hand import Line, read_by_hand, with_lines
from segmamba.followup.criteria import suggest
from segmamba.followup.dates import Timepoint, count_days
from segmamba.followup.follow import Settings, follow
from segmamba.followup.lesions import measure_mask
from segmamba.followup.match import fingerprint, match
from segmamba.followup.record import SCHEMA
from segmamba.followup.spread import spread
from segmamba.images.image_io import Image
from segmamba.preparation.register import Registration

MM = np.eye(4)


def category(name, values, **facts):
    facts = {"lesions": 1, "new_measurable": 0, "measurable_again": True, **facts}
    return suggest(name, list(range(0, 30 * len(values), 30)), values, **facts)


# --- thresholds


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("bidimensional", -50.0, "PR"),
        ("bidimensional", -49.9, "SD"),
        ("bidimensional", 25.0, "PD"),
        ("bidimensional", 24.9, "SD"),
        ("volumetric", -65.0, "PR"),
        ("volumetric", -64.9, "SD"),
        ("volumetric", 40.0, "PD"),
        ("volumetric", 39.9, "SD"),
    ],
)
@pytest.mark.parametrize("baseline", [1000.0, 3.0, 777.7])
def test_thresholds_are_inclusive(name, change, expected, baseline):
    found = category(name, [baseline, baseline * (100 + change) / 100])
    assert found.category == expected
    assert found.from_baseline == pytest.approx(change / 100)


def test_progression_is_against_the_nadir_and_response_against_the_baseline():
    found = category("bidimensional", [1000, 400, 500])
    assert (found.category, found.nadir_day) == ("PD", 30)
    assert (found.from_baseline, found.from_nadir) == pytest.approx((-0.5, 0.25))
    assert category("bidimensional", [1000, 400, 499]).category == "PR"
    assert "+25.0% against the nadir, 400 mm2 on day 30; PD from +25%" in found.rules[0].text


def test_complete_response_is_no_lesion_at_all():
    assert category("bidimensional", [1000, 0], lesions=0).category == "CR"
    assert category("bidimensional", [1000, 0], lesions=1).category == "PR"


def test_nothing_at_baseline_is_never_divided_by():
    found = category("bidimensional", [0, 300], measurable_again=False)
    assert (found.category, found.from_baseline, found.from_nadir) == ("no measurable disease", None, None)
    assert category("bidimensional", [0, 300], measurable_again=False, new_measurable=1).category == "PD"


def test_after_a_complete_response_what_is_measurable_again_is_progression():
    assert category("bidimensional", [1000, 0, 150], measurable_again=True).category == "PD"
    assert category("bidimensional", [1000, 0, 40], measurable_again=False).category == "PR"


def test_a_new_measurable_lesion_outweighs_a_response():
    assert category("bidimensional", [1000, 100], new_measurable=1).category == "PD"


@pytest.mark.parametrize(("change", "expected"), [(-25.0, "MR"), (-24.9, "SD"), (-50.0, "PR")])
def test_a_minor_response_is_for_what_does_not_enhance(change, expected):
    values = [1000, 1000 + 10 * change]
    assert category("bidimensional", values, minor=0.25).category == expected
    assert category("bidimensional", values).category == ("PR" if change == -50 else "SD")


def test_progression_soon_after_radiotherapy_is_preliminary():
    assert category("bidimensional", [100, 200], early="8.6 weeks").category == "preliminary PD"
    assert category("bidimensional", [100, 100], early="8.6 weeks").category == "SD"


def test_what_was_not_followed_is_not_assessed():
    assert category("bidimensional", [100, None]).category == "not assessed"
    assert category("bidimensional", [100, None, 80]).from_nadir == pytest.approx(-0.2)


# --- which lesion is which


def boxes(*places, shape=(60, 60, 12)):
    """Each place: first corner and size."""
    mask = np.zeros(shape, bool)
    for corner, size in places:
        mask[tuple(slice(c, c + s) for c, s in zip(corner, size))] = True
    return measure_mask(mask, MM, "ET")


def corners(measured):
    """First voxel of each lesion -> its number."""
    numbers = [lesion.number for lesion in measured.lesions]
    return {tuple(np.argwhere(measured.labelled == number)[0].tolist()): number for number in numbers}


def test_split_merged_gone_and_new():
    first = boxes(((5, 5, 3), (20, 8, 4)), ((5, 30, 3), (12, 12, 4)), ((21, 30, 3), (9, 9, 4)), ((45, 5, 3), (6, 6, 3)))
    large, left, right, small = (corners(first)[x, y, 3] for x, y in ((5, 5), (5, 30), (21, 30), (45, 5)))
    shift = np.eye(4)
    shift[:3, 3] = (30, -20, 7)  # the later date lies elsewhere in its scanner
    later = boxes(
        ((5, 5, 3), (7, 8, 4)),
        ((18, 5, 3), (7, 8, 4)),
        ((5, 30, 3), (25, 12, 4)),
        ((45, 45, 5), (11, 11, 3)),
    )
    moved = measure_mask(later.labelled > 0, np.linalg.inv(shift), "ET")
    found = match(first, moved, shift)
    corner = corners(moved)
    both = corner[(5, 30, 3)]
    assert set(found.parts[large]) == {corner[(5, 5, 3)], corner[(18, 5, 3)]}
    assert found.parts[left] == (both,) and found.parts[right] == () and found.merged == {right: both}
    assert found.parts[small] == () and small not in found.merged
    assert found.new == (corner[(45, 45, 5)],)
    assert found.lesions([left, right]) == [both]


def test_a_lesion_4_mm_away_is_the_same_and_one_6_mm_away_is_new():
    first = boxes(((10, 10, 3), (8, 8, 4)))
    near, far = boxes(((21, 10, 3), (8, 8, 4))), boxes(((23, 10, 3), (8, 8, 4)))
    assert match(first, near, MM).parts == {1: (1,)}
    assert match(first, far, MM).new == (1,)


def test_other_borders_of_a_box():
    """12 x 12 in 4 slices, diagonals of 11 sqrt(2); a voxel less in the slices leaves 10 x 10."""
    measured = boxes(((10, 10, 3), (12, 12, 4)))
    probability = np.where(measured.labelled > 0, 0.6, 0.0).astype(np.float32)
    probability[12:20, 12:20, 3:7] = 0.9
    probability[22, 10:22, 3:7] = 0.4
    probability[50, 50, 3] = 0.4  # meets no lesion
    found = spread(measured, [1], probability, MM)
    assert found["one voxel less"] == pytest.approx((2 * 9**2, 0.4))
    assert found["one voxel more"][1] == pytest.approx(4 * (144 + 48) / 1000)
    assert found["P >= 0.7"] == pytest.approx((2 * 7**2, 0.256))
    assert found["P >= 0.3"][1] == pytest.approx(4 * 12 * 13 / 1000)


# --- from files to the report


def drawn(shape, *places):
    label_map = np.zeros(shape, np.uint8)
    for corner, size in places:
        label_map[tuple(slice(c, c + s) for c, s in zip(corner, size))] = 3
    return label_map


@pytest.fixture(scope="module")
def patient(phantom_cases, tmp_path_factory):
    """Three dates of one head, at the second and third in another place: A shrinks, then grows; B goes; C comes.

    On voxels of 4 mm a box of n x n has two diagonals of 4 (n - 1) sqrt(2).
    """
    root = tmp_path_factory.mktemp("Doe^Jane-19501231")
    head = nib.load(phantom_cases / "phantom-0" / "phantom-0-t1c.nii.gz")
    array, affine = np.asarray(head.dataobj), head.affine
    x, y, z = (n // 2 for n in array.shape)
    a, b, c = (x - 12, y - 4, z), (x + 5, y - 4, z), (x + 2, y + 8, z)
    dates = {
        "one": [(a, (8, 8, 4)), (b, (5, 5, 3))],
        "two": [(a, (6, 6, 4))],
        "three": [(a, (7, 7, 4)), (c, (5, 5, 3))],
    }
    turn = np.eye(4)
    angle = np.radians(8)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (9, -6, 4)
    for name, places in dates.items():
        there = affine if name == "one" else turn @ affine
        (root / name).mkdir()
        save_image(array, there, root / name / "x-t1c.nii.gz", np.float32)
        save_image(drawn(array.shape, *places), there, root / name / "x-seg.nii.gz", np.uint8)
    return root


@pytest.fixture(scope="module")
def written(patient, tmp_path_factory):
    output = tmp_path_factory.mktemp("follow") / "out"
    places = [str(patient / "one"), str(patient / "two" / "x-seg.nii.gz"), str(patient / "three")]
    dates = ["2026-01-10", "2026-03-01", "2026-03-31"]
    more = ["--radiotherapy-end", "2026-01-20", "--output", str(output)]
    assert main(["follow", *places, "--dates", *dates, *more]) == 0
    return output


def test_three_dates_from_files_to_numbers(written):
    record = json.loads((written / "follow-up.json").read_text())
    assert [date["day"] for date in record["dates"]] == [0, 50, 80]
    one, two, three = record["dates"]
    assert record["targets"] == [1, 2]
    assert one["burdens"][0]["sum_of_products_mm2"] == pytest.approx(2 * 28**2 + 2 * 16**2)
    assert two["burdens"][0]["sum_of_products_mm2"] == pytest.approx(2 * 20**2)
    assert three["burdens"][0]["sum_of_products_mm2"] == pytest.approx(2 * 24**2)
    assert [d["volume_ml"] for d in record["dates"]] == pytest.approx(
        [n * 0.064 for n in (8 * 8 * 4 + 5 * 5 * 3, 6 * 6 * 4, 7 * 7 * 4 + 5 * 5 * 3)]
    )
    assert two["suggestions"]["bidimensional"]["category"] == "PR"
    assert two["suggestions"]["volumetric"]["category"] == "SD"
    assert two["parts"] == {"1": [1], "2": []} and two["new"] == []
    assert three["new"] == [2] and three["lesions"][1]["measurable"]
    assert three["suggestions"]["bidimensional"]["category"] == "preliminary PD"  # 10 weeks after radiotherapy
    assert three["suggestions"]["bidimensional"]["from_nadir"] == pytest.approx(0.44)
    assert two["registration"]["agreeing"] >= 2 and one["registration"] is None


def test_the_record_fits_its_schema(written):
    jsonschema = pytest.importorskip("jsonschema")
    record = json.loads((written / "follow-up.json").read_text())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(record, schema)
    record["patient"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema)


def test_the_table_has_a_row_a_lesion_and_date(written):
    rows = list(csv.DictReader((written / "follow-up.csv").open()))
    seen = [(row["day"], row["lesion"], row["baseline_lesion"], row["target"], row["remark"]) for row in rows]
    assert seen == [
        ("0", "1", "1", "yes", ""),
        ("0", "2", "2", "yes", ""),
        ("50", "1", "1", "yes", ""),
        ("50", "", "2", "yes", "disappeared"),
        ("80", "1", "1", "yes", ""),
        ("80", "2", "new", "no", ""),
        ("80", "", "2", "yes", "disappeared"),
    ]
    assert rows[0]["product_mm2"] == "1568.0"


def test_the_page_stands_alone_and_says_what_was_found(written):
    page = (written / "report.html").read_text()
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 2
    for text in ("measurements compatible with PR", "2080", "day 50", "Research use only", "Not confirmed in the text"):
        assert text in page, text


def test_the_paper_is_a_pdf_of_some_pages(written):
    data = (written / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert 2 <= len(re.findall(rb"/Type /Page\b", data)) <= 8


def test_nothing_that_is_written_names_the_patient_or_a_date(written):
    for path in written.rglob("*"):
        if path.suffix in (".json", ".csv", ".html"):
            text = re.sub(r"base64,[^\"]+", "", path.read_text())  # pictures spell anything
            assert not re.search(r"Doe|Jane|1950|2026-0", text), path.name
        elif path.is_file():
            assert b"Jane" not in path.read_bytes()


def test_a_registration_that_fails_is_said_and_the_date_still_measured(phantom_cases):
    head = nib.load(phantom_cases / "phantom-0" / "phantom-0-t1c.nii.gz")
    array, affine = np.asarray(head.dataobj, np.float32), head.affine
    x, y, z = (n // 2 for n in array.shape)
    label_map = drawn(array.shape, ((x, y, z), (8, 8, 4)))
    noise = np.random.default_rng(0).normal(100, 20, array.shape).astype(np.float32)
    result = follow(
        [
            Timepoint(0, label_map, affine, Image(array, affine)),
            Timepoint(30, label_map, affine, Image(noise, affine)),
        ],
        Settings(),
    )
    date = result.dates[1]
    assert date.problem and date.burdens[0].spd is None and date.measured.lesions[0].measurable
    assert date.suggestions["bidimensional"].category == "not assessed"
    assert date.suggestions["volumetric"].category == "SD"
    assert any("could not be registered" in warning and "not followed" in warning for warning in result.warnings)


# --- what is refused


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["2026-01-10", "2026-03-01"], [0, 50]),
        (["20251231", "20260101"], [0, 1]),
        (["10", "272"], [0, 262]),
    ],
)
def test_days_are_counted_from_the_first(dates, expected):
    assert count_days(dates) == expected


@pytest.mark.parametrize(
    "dates",
    [
        ["1.2.2026", "3.2.2026"],
        ["2026-01-10", "50"],
        ["2026-02-30", "2026-03-01"],
        ["0", "²"],
        ["0", "--5"],
        ["0", "9" * 5000],
    ],
)
def test_what_is_no_date_is_refused(dates):
    with pytest.raises(InputError, match="expected days like 2026-01-31"):
        count_days(dates)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{one}", "--dates", "0"], "expected two or more"),
        (["{one}", "{two}", "--dates", "0"], "1 given for 2 timepoints"),
        (["{one}", "{two}", "--dates", "50", "0"], "not in increasing order"),
        (["{one}", "{two}"], "give --dates"),
        (["{one}", "{two}", "--dates", "0", "1", "--targets", "0"], "expected 1 or more"),
        (["{one}", "{missing}", "--dates", "0", "1"], "no such folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(patient, tmp_path, capsys, arguments, text):
    names = {"one": patient / "one", "two": patient / "two", "missing": patient / "nowhere"}
    output = tmp_path / "out"
    assert main(["follow", *(part.format(**names) for part in arguments), "-o", str(output)]) == 1
    assert text in capsys.readouterr().err
    assert not output.exists()


def test_where_nothing_can_be_written_nothing_is_measured(patient, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    places = [str(patient / name) for name in ("one", "two")]
    for output in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("n" * 300), "a\0b"):
        assert main(["follow", *places, "--dates", "0", "50", "-o", str(output)]) == 1
        shown = capsys.readouterr().err
        assert "measuring" not in shown and shown.startswith("error: ")


def test_a_label_map_without_orientation_is_noted(tmp_path, capsys):
    image = nib.Nifti1Image(drawn((40, 40, 12), ((5, 5, 3), (12, 12, 4))), None)
    nib.save(image, tmp_path / "x-seg.nii.gz")
    assert main(["measure", str(tmp_path / "x-seg.nii.gz")]) == 0
    assert "says nothing about orientation" in capsys.readouterr().err


def test_measure_prints_what_it_writes(patient, tmp_path, capsys):
    table = tmp_path / "x.csv"
    assert main(["measure", str(patient / "one" / "x-seg.nii.gz"), "--csv", str(table)]) == 0
    assert "1568 mm2" in capsys.readouterr().out
    assert [row["product_mm2"] for row in csv.DictReader(table.open())] == ["1568.0", "512.0"]
    assert main(["measure", str(patient / "one" / "x-seg.nii.gz"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["lesions"][0]["line1_ras_mm"]) == 2


@pytest.mark.parametrize(
    ("name", "values", "volume"),
    [
        ("BraTS-GLI-00003-001-seg", (1, 2, 3), 3),  # as they were released, and as ours are named
        ("BraTS-GLI-02062-100-seg", (1, 3, 4), 3),  # 4 is a cavity here
        ("BraTS-PED-00001-000-seg", (1, 3, 4), 1),  # 1 is ET
        ("BraTS2021_00006_seg", (1, 2, 4), 4),
        ("BraTS2021_00006-seg", (1, 2, 3), 3),  # ours, of such a case
        ("UCSF-PDGM-0004-seg", (1, 2, 4), 4),
        ("case-seg", (1, 2, 3), 3),
        ("BraTS-PED-00001-000-seg", (1, 2, 3), None),  # 2023: 3 is ET; 2024: 1 is, and there is no oedema
        ("case-seg", (1, 2, 4), None),
        ("case_seg", (1, 2, 3), None),
    ],
)
def test_what_labels_mean_follows_from_names_and_values(tmp_path, capsys, name, values, volume):
    """The larger the value, the larger its box: which of them was measured, the volume tells."""
    label_map = np.zeros((40, 40, 40), np.uint8)
    for value in values:
        label_map[10 * (value - 1) : 10 * (value - 1) + 4 + value, :10, :10] = value
    path = tmp_path / f"{name}.nii.gz"
    save_image(label_map, MM, path, np.uint8)
    code = main(["measure", str(path), "--json"])
    shown = capsys.readouterr()
    if volume is None:
        assert code == 1 and "fit several conventions" in shown.err and "--labels" in shown.err
    else:
        assert code == 0, shown.err
        assert json.loads(shown.out)["volume_ml"] == pytest.approx((4 + volume) / 10)


# --- what a person draws and says


def by_hand(path, **parts):
    path.write_text(json.dumps({"schema": 1, **parts}))
    return str(path)


def test_a_moved_line_wins_and_is_marked(patient, written, tmp_path):
    """D1 of the larger lesion of the first date is drawn 40 mm long: the product is 40 x 28 sqrt(2) mm²."""
    before = json.loads((written / "follow-up.json").read_text())
    (start, end) = (np.array(point) for point in before["dates"][0]["lesions"][0]["line1_ras_mm"])
    middle, along = (start + end) / 2, (end - start) / np.linalg.norm(end - start)
    ends = [(middle - 20 * along).tolist(), (middle + 20 * along).tolist()]
    stray = {"day": 50, "which": "D2", "ends": [[300, 300, 300], [310, 300, 300]]}
    file = by_hand(tmp_path / "hand.json", lines=[{"day": 0, "which": "D1", "ends": ends}, stray])
    places = [str(patient / name) for name in ("one", "two")]
    output = tmp_path / "out"
    assert main(["follow", *places, "--dates", "0", "50", "--by-hand", file, "-o", str(output)]) == 0
    record = json.loads((output / "follow-up.json").read_text())
    first = record["dates"][0]
    product = 40 * 28 * np.sqrt(2)
    assert first["lesions"][0]["by_hand"] == ["D1"] and first["lesions"][1]["by_hand"] == []
    assert first["lesions"][0]["product_mm2"] == pytest.approx(product)
    assert first["burdens"][0]["sum_of_products_mm2"] == pytest.approx(product + 2 * 16**2)
    assert min(v["sum_of_products_mm2"] for v in first["burdens"][0]["spread"].values()) >= product
    assert first["volume_ml"] == before["dates"][0]["volume_ml"]
    assert "day 0, lesion 1: D1 drawn by hand" in record["warnings"]
    assert any("lies on no lesion" in warning for warning in record["warnings"])
    assert "(D1 by hand)" in (output / "report.html").read_text()
    assert "D1 drawn by hand" in (output / "follow-up.csv").read_text()


def test_a_line_drawn_short_makes_a_lesion_unmeasurable(patient, tmp_path):
    measured = boxes(((10, 10, 3), (12, 12, 4)))
    ends = np.array([[12.0, 15, 4], [21.99 - 0.5, 15, 4]])
    short = with_lines(measured, [Line("D1", ends)]).lesions[0]
    assert (short.d1, short.measurable, short.slice) == (pytest.approx(9.49), False, 4)
    assert with_lines(measured, [Line("D1", ends + np.array([[0, 0, 0], [0.51, 0, 0]]))]).lesions[0].measurable


def test_what_a_physician_says_is_in_the_report(patient, tmp_path):
    said = [{"day": 50, "steroids": "more", "clinical_status": "worse", "non_target_lesions": "<b>none</b>"}]
    places, output = [str(patient / name) for name in ("one", "two")], tmp_path / "out"
    file = by_hand(tmp_path / "hand.json", clinician=said)
    assert main(["follow", *places, "--dates", "0", "50", "--by-hand", file, "-o", str(output)]) == 0
    record, page = json.loads((output / "follow-up.json").read_text()), (output / "report.html").read_text()
    assert record["clinician"] == said
    assert "&lt;b&gt;none&lt;/b&gt;" in page and "<b>" not in page
    assert "day 50: stable images under more steroids are not assessable" in record["warnings"]  # SD by volume
    assert any("counts as progression" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    "parts",
    [
        {"schema": 2},
        {"lines": {}},
        {"lines": [{"day": 0, "which": "D3", "ends": [[0, 0, 0], [1, 1, 1]]}]},
        {"lines": [{"day": 0, "which": "D1", "ends": [[0, 0, 0]]}]},
        {"lines": [{"day": 0, "which": "D1", "ends": [[0, 0, 0], [None, 1, 1]]}]},
        {"lines": [{"which": "D1", "ends": [[0, 0, 0], [1, 1, 1]]}]},
        {"lines": [{"day": 0, "which": ["D1"], "ends": [[0, 0, 0], [1, 1, 1]]}]},
        {"lines": [{"day": 0, "which": "D1", "ends": [[1e308, 0, 0], [-1e308, 1, 1]]}]},
        {"clinician": [{"day": 0, "steroids": "lots"}]},
        {"clinician": [{"day": 0, "non_target_lesions": 3}]},
        {"names": ["Doe"]},
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, parts):
    with pytest.raises(InputError, match=r"hand\.json.*expected"):
        read_by_hand(Path(by_hand(tmp_path / "hand.json", **parts)))


def test_a_registration_is_made_once(patient, tmp_path, capsys):
    """Of the same images, by the same software; measuring again with other settings takes it from the record."""
    places, output = [str(patient / name) for name in ("one", "two", "three")], tmp_path / "out"
    command = ["follow", *places, "--dates", "0", "50", "80", "-o", str(output)]
    assert main(command) == 0
    assert capsys.readouterr().err.count("registering") == 2
    first = json.loads((output / "follow-up.json").read_text())
    assert main([*command, "--targets", "1", "--json"]) == 0
    shown = capsys.readouterr()
    assert "registering" not in shown.err
    again = json.loads(shown.out)
    assert again == json.loads((output / "follow-up.json").read_text())
    assert [d["registration"] for d in again["dates"]] == [d["registration"] for d in first["dates"]]
    assert (
        again["dates"][1]["burdens"][0]["sum_of_products_mm2"] == first["dates"][1]["burdens"][0]["sum_of_products_mm2"]
    )
    assert again["dates"][0]["burdens"][0]["sum_of_products_mm2"] == pytest.approx(2 * 28**2)
    first["software"] = "segmamba 0"
    (output / "follow-up.json").write_text(json.dumps(first))
    assert main(command) == 0 and capsys.readouterr().err.count("registering") == 2


@pytest.mark.parametrize(("share", "expected"), [(0.40, "MR"), (0.45, "SD")])
def test_the_volumetric_minor_response_is_a_setting(share, expected):
    settings = Settings(region="non-enhancing", volumetric_minor=share)
    assert category("volumetric", [100, 60], minor=settings.minor("non-enhancing")["volumetric"]).category == expected
    assert Settings(volumetric_minor=share).minor("ET") == {"bidimensional": None, "volumetric": None}
    assert settings.minor("non-enhancing")["bidimensional"] == 0.25


# --- rules that need no registration: the same head twice


def twice(first, later, **settings):
    """Two dates, 60 x 60 x 12 of 1 mm, with boxes of ET; the T1c are one image, registered as what they are."""
    shape, found = (60, 60, 12), Registration(np.eye(4), 1, 1, 1, 1, 9, 10, 0)
    image = Image(np.zeros(shape, np.float32), MM)
    timepoints = [Timepoint(day, drawn(shape, *places), MM, image) for day, places in ((0, first), (60, later))]
    known = {(fingerprint(image), fingerprint(image)): (found, "")}
    return follow(timepoints, Settings(**settings), known=known).dates[1]


def square(n, corner=(5, 5, 3)):
    """Two diagonals of (n - 1) sqrt(2) mm."""
    return (corner, (n, n, 4))


def test_a_target_that_is_no_longer_measurable_keeps_its_value():
    """10 sqrt(2) to 5 sqrt(2) mm: 50 mm2, not 0; nothing left is 0."""
    date = twice([square(11)], [square(6)])
    assert not date.measured.lesions[0].measurable and date.burdens[0].spd == pytest.approx(50)
    assert date.suggestions["bidimensional"].category == "PR"
    gone = twice([square(11)], [])
    assert gone.burdens[0].spd == 0 and {found.category for found in gone.suggestions.values()} == {"CR"}


def test_a_change_near_a_threshold_is_marked():
    """800 to 392 mm2 is -51.0 %; a voxel more at both, 22 x 20 and 16 x 14 steps, 884 to 452 mm2, is -48.9 %."""
    date = twice([square(21)], [square(15)])
    assert date.suggestions["bidimensional"].from_baseline == pytest.approx(392 / 800 - 1)
    assert date.burdens[0].spread["one voxel more"][0] == pytest.approx(452)
    assert (date.suggestions["bidimensional"].category, date.near["bidimensional"]) == ("PR", ("SD",))
    assert "bidimensional" not in twice([square(21)], [square(11)]).near


@pytest.mark.parametrize(("days_after", "expected"), [(83, "preliminary PD"), (84, "PD")])
def test_twelve_weeks_after_radiotherapy_are_84_days(days_after, expected):
    date = twice([square(11)], [square(21)], radiotherapy_end=60 - days_after)
    assert date.suggestions["bidimensional"].category == expected


@pytest.mark.parametrize(
    ("targets", "expected"), [(1, 2 * 14**2), (2, 2 * 14**2 + 2 * 12**2), (3, 2 * (14**2 + 12**2))]
)
def test_the_largest_measurable_lesions_are_the_targets(targets, expected):
    """Of 15 x 15, 13 x 13 and 6 x 6 the last is not measurable, and no target however many are asked for."""
    lesions = [square(15), square(13, (30, 5, 3)), square(6, (5, 40, 3))]
    assert twice(lesions, lesions, targets=targets).burdens[0].spd == pytest.approx(expected)


def test_a_new_lesion_that_is_not_measurable_is_said_and_no_progression():
    date = twice([square(15)], [square(15), square(6, (40, 40, 3))])
    assert date.matches.new == (2,) and date.suggestions["bidimensional"].category == "SD"
    assert twice([square(15)], [square(15), square(11, (40, 40, 3))]).suggestions["bidimensional"].category == "PD"
