"""The whole way from files of several dates to the report; what is refused; what a person draws and says."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from followup_lesions import MM, boxes, drawn
from segmamba.cases.case import save_image
from segmamba.cli import main
from segmamba.commands.follow import RECORD
from segmamba.errors import InputError
from segmamba.followup.by_hand import Line, read_by_hand, with_lines
from segmamba.followup.dates import Timepoint, count_days
from segmamba.followup.follow import Settings, follow
from segmamba.followup.lesions import measure_mask
from segmamba.followup.record import SCHEMA
from segmamba.images.image_io import Image

# --- from files to the report


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
    assert not any("voxel for voxel" in warning for warning in result.warnings)
    date = result.dates[1]
    assert date.problem and date.burdens[0].spd is None and date.measured.lesions[0].measurable
    assert date.suggestions["bidimensional"].category == "not assessed"
    assert date.suggestions["volumetric"].category == "not assessed"  # a lesion may be new: it could be PD
    assert any("could not be registered" in warning and "not followed" in warning for warning in result.warnings)


def test_one_image_that_is_given_for_two_dates_is_told():
    """A file chosen twice looks like a tumour that has not changed."""
    label_map = drawn((24, 24, 12), ((12, 12, 6), (8, 8, 4)))
    image = Image(np.random.default_rng(0).normal(100, 20, label_map.shape).astype(np.float32), MM)
    result = follow([Timepoint(day, label_map, image.affine, image) for day in (0, 30, 60)], Settings())
    told = [warning for warning in result.warnings if "voxel for voxel" in warning]
    assert told == [f"day {day}: its T1c is that of day 0, voxel for voxel; give each date its own" for day in (30, 60)]


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
        ["260131", "260430"],  # of two years' last digits: as numbers of days 299, where 89 are between them
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


def test_another_patients_follow_up_is_not_written_over(patient, written, tmp_path, capsys):
    output = shutil.copytree(written, tmp_path / "out")
    others = []
    for name in ("one", "two"):
        other = shutil.copytree(patient / name, tmp_path / name)
        image = nib.load(other / "x-t1c.nii.gz")
        save_image(np.asarray(image.dataobj) * 0.5, image.affine, other / "x-t1c.nii.gz", np.float32)
        others.append(str(other))
    arguments = ["follow", *others, "--dates", "0", "50", "-o", str(output)]
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "is a follow-up of other images; choose another folder" in shown and "measuring" not in shown
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (output / RECORD).write_text('{"dates": "of somebody else"}')
    assert main(arguments) == 1
    assert "not known to be a follow-up of these images" in capsys.readouterr().err


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


def test_a_line_across_a_ring_is_that_lesions():
    """Its middle lies in the necrosis; a line that only ends at a lesion is not drawn across it."""
    radius = np.hypot(*(np.mgrid[:60, :60] - 30))
    ring = measure_mask(np.repeat(((radius >= 14) & (radius <= 20))[..., None], 5, 2), MM, "ET")
    across, outside = np.array([[10.0, 30, 2], [50, 30, 2]]), np.array([[-30.0, 30, 2], [10, 30, 2]])
    lesion = with_lines(ring, [Line("D1", across)]).lesions[0]
    assert (lesion.by_hand, lesion.d1) == (("D1",), pytest.approx(40))
    stray = with_lines(ring, [Line("D1", outside)])
    assert stray.lesions[0].by_hand == () and "lies on no lesion" in stray.notes[-1]


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
