"""Mixed tumors of RANO 2.0: enhancing and non-enhancing lesions judged beside one another, and both together."""

import csv
import itertools
import json

import numpy as np
import pytest
from segmamba.cases.case import save_image
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.followup.by_hand import Line, read_by_hand, with_lines
from segmamba.followup.criteria import overall
from segmamba.followup.dates import Timepoint
from segmamba.followup.follow import Settings, follow
from segmamba.followup.lesions import measure
from segmamba.followup.match import fingerprint
from segmamba.followup.record import SCHEMA, as_json
from segmamba.images.image_io import Image
from segmamba.preparation.register import Registration

MM, SHAPE = np.eye(4), (90, 90, 12)
ET, ED = 3, 2
PLACES = [(5, 5), (35, 5), (60, 5), (5, 35), (35, 35), (60, 35), (5, 65)]


def drawn(*sides):
    """sides: (label, n, place): a box of n x n in 4 slices, of which the product is 2 (n - 1)^2 mm2."""
    label_map = np.zeros(SHAPE, np.uint8)
    for label, n, place in sides:
        x, y = PLACES[place]
        label_map[x : x + n, y : y + n, 3:7] = label
    return label_map


def product(*sizes):
    return sum(2 * (n - 1) ** 2 for n in sizes)


def followed(*maps, **settings):
    """Dates 60 days apart of one head, which need no registering."""
    image, found = Image(np.zeros(SHAPE, np.float32), MM), Registration(np.eye(4), 1, 1, 1, 1, 9, 10, 0)
    timepoints = [Timepoint(60 * k, label_map, MM, image) for k, label_map in enumerate(maps)]
    known = {(fingerprint(image), fingerprint(image)): (found, "")}
    return follow(timepoints, Settings(region="mixed", **settings), known=known)


# --- the overall category, as RANO 2.0 is quoted

TABLE = {
    **{("PD", other): "PD" for other in ("PD", "SD", "MR", "PR", "CR")},
    **{("SD", "SD"): "SD", ("PR", "SD"): "PR", ("MR", "SD"): "MR"},
    **{("CR", "SD"): "SD", ("CR", "PR"): "PR", ("CR", "MR"): "MR", ("CR", "CR"): "CR"},
    **{("PR", "PR"): "PR", ("MR", "MR"): "MR", ("PR", "MR"): "PR"},
    # what RANO 2.0 has no word for
    **{("preliminary PD", "PR"): "preliminary PD", ("not assessed", "PR"): "not assessed"},
    **{("not assessed", "PD"): "PD", ("no measurable disease", "PR"): "PR"},
    ("no measurable disease", "no measurable disease"): "no measurable disease",
}


@pytest.mark.parametrize(("pair", "expected"), TABLE.items(), ids=str)
def test_the_overall_category_of_two(pair, expected):
    for first, second in itertools.permutations(pair):
        found = overall({"ET": first, "non-enhancing": second})
        assert found.category == expected
        assert f"ET {first}, non-enhancing {second}: together {expected}" == found.rules[0].text


# --- targets, sums, categories


def test_two_targets_of_each_kind_and_a_sum_for_each():
    """Three enhancing lesions and three others, of which the smallest counts in neither sum."""
    first = drawn((ET, 15, 0), (ET, 13, 1), (ET, 11, 2), (ED, 17, 3), (ED, 14, 4), (ED, 12, 5))
    later = drawn((ET, 10, 0), (ET, 10, 1), (ET, 21, 2), (ED, 17, 3), (ED, 12, 4), (ED, 12, 5))
    result = followed(first, later)
    lesions = result.dates[0].measured.lesions
    assert [lesion.number for lesion in lesions] == [1, 2, 3, 4, 5, 6]
    assert [lesion.region for lesion in lesions] == ["ET"] * 3 + ["non-enhancing"] * 3
    assert result.targets == (1, 2, 4, 5)
    enhancing, other = zip(*(date.burdens for date in result.dates))
    assert [burden.spd for burden in enhancing] == pytest.approx([product(15, 13), product(10, 10)])
    assert [burden.spd for burden in other] == pytest.approx([product(17, 14), product(17, 12)])
    assert enhancing[0].volume_ml == pytest.approx(4 * (15**2 + 13**2 + 11**2) / 1000)
    assert other[1].volume_ml == pytest.approx(4 * (17**2 + 12**2 + 12**2) / 1000)
    last = result.dates[1]
    assert [one.suggestions["bidimensional"].category for one in last.burdens] == ["PR", "SD"]
    assert last.suggestions["bidimensional"].category == "PR"
    assert followed(first, later, targets=3).targets == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("enhancing", "other", "parts", "expected"),
    [
        (15, 15, ("SD", "SD"), "SD"),
        (15, 19, ("SD", "PD"), "PD"),  # 18^2 / 14^2 is 1.65
        (10, 19, ("PR", "PD"), "PD"),
        (None, 15, ("CR", "SD"), "SD"),
        (None, None, ("CR", "CR"), "CR"),
        (10, 12, ("PR", "MR"), "PR"),  # 9^2 / 14^2 is 0.41, 11^2 / 14^2 is 0.62
        (12, 12, ("SD", "MR"), "MR"),  # a minor response is of what does not enhance
        (None, 10, ("CR", "PR"), "PR"),
    ],
)
def test_both_parts_decide(enhancing, other, parts, expected):
    later = drawn(*((label, n, place) for label, n, place in ((ET, enhancing, 0), (ED, other, 4)) if n))
    date = followed(drawn((ET, 15, 0), (ED, 15, 4)), later).dates[1]
    assert tuple(one.suggestions["bidimensional"].category for one in date.burdens) == parts
    assert date.suggestions["bidimensional"].category == expected


def test_enhancement_where_there_was_none_is_new_and_progression():
    """A lesion of one kind is none of the other, though it lies in its place."""
    first, later = drawn((ET, 15, 0), (ED, 20, 4)), drawn((ET, 15, 0), (ED, 20, 4))
    later[35:47, 35:47, 3:7] = ET
    date = followed(first, later).dates[1]
    (new,) = date.matches.new
    assert date.measured.lesions[new - 1].region == "ET" and new == 2
    assert date.burdens[0].suggestions["bidimensional"].category == "PD"
    assert date.suggestions["bidimensional"].category == "PD"


def test_of_a_tumor_of_one_kind_that_kind_decides_and_it_is_said():
    result = followed(drawn((ET, 15, 0), (ED, 5, 4)), drawn((ET, 10, 0), (ED, 5, 4)))
    assert [one.suggestions["bidimensional"].category for one in result.dates[1].burdens] == [
        "PR",
        "no measurable disease",
    ]
    assert {found.category for found in result.dates[1].suggestions.values()} == {"PR", "SD"}  # by volume -55 %
    gone = followed(drawn((ET, 15, 0), (ED, 5, 4)), drawn((ET, 15, 0))).dates[1]
    assert gone.burdens[1].suggestions["volumetric"].category == "CR"
    assert gone.suggestions["volumetric"].category == "SD"
    assert "non-enhancing no measurable disease" in gone.suggestions["volumetric"].rules[0].text
    new = followed(drawn((ET, 15, 0), (ED, 5, 4)), drawn((ET, 15, 0), (ED, 5, 4), (ED, 15, 6))).dates[1]
    assert {found.category for found in new.suggestions.values()} == {"PD"}
    grown = followed(drawn((ET, 15, 0), (ED, 5, 4)), drawn((ET, 15, 0), (ED, 15, 4)))
    assert "day 60: not measurable at baseline, measurable now: lesion 2; look whether it progresses" in grown.warnings
    assert not any("measurable now" in warning for warning in result.warnings)
    assert any("no measurable lesion of non-enhancing" in warning for warning in result.warnings)


def test_other_borders_are_those_of_each_kind():
    """Where the kinds touch, a voxel more of one is not taken from the other."""
    label_map = drawn((ET, 15, 0))
    label_map[20:35, 5:20, 3:7] = ED
    enhancing, other = followed(label_map, label_map).dates[0].burdens
    for burden in (enhancing, other):
        assert burden.spread["one voxel less"] == pytest.approx((product(13), 4 * 13**2 / 1000))
        assert burden.spread["one voxel more"][1] == pytest.approx(4 * (15**2 + 4 * 15) / 1000)


def test_near_a_threshold_is_of_the_overall_category():
    """800 to 392 mm2 is -51.0 %, with a voxel more -48.9 %: SD instead of PR, overall too."""
    date = followed(drawn((ET, 21, 0), (ED, 15, 4)), drawn((ET, 15, 0), (ED, 15, 4))).dates[1]
    assert date.burdens[0].near["bidimensional"] == ("SD",) and date.near["bidimensional"] == ("SD",)
    assert date.suggestions["bidimensional"].category == "PR"
    worse = followed(drawn((ET, 21, 0), (ED, 15, 4)), drawn((ET, 15, 0), (ED, 25, 4))).dates[1]
    assert "bidimensional" in worse.burdens[0].near and "bidimensional" not in worse.near  # PD either way


def test_a_moved_line_belongs_to_the_kind_that_it_was_drawn_for(tmp_path):
    """What does not enhance lies in the middle of a ring that does: a line over the ring is the ring's."""
    label_map = drawn((ET, 20, 0))
    label_map[10:20, 10:20, 3:7] = 1
    measured = measure(label_map, MM, "mixed")
    ends = np.array([[5.0, 15, 4], [24, 15, 4]])
    lesions = with_lines(measured, [Line("D1", ends, "ET")]).lesions
    assert [lesion.by_hand for lesion in lesions] == [("D1",), ()] and lesions[0].d1 == pytest.approx(19)
    assert [lesion.by_hand for lesion in with_lines(measured, [Line("D1", ends)]).lesions] == [(), ("D1",)]
    line = {"day": 0, "which": "D1", "ends": ends.tolist()}
    (tmp_path / "hand.json").write_text(json.dumps({"schema": 1, "lines": [{**line, "region": "ET"}]}))
    assert read_by_hand(tmp_path / "hand.json").lines[0][0].region == "ET"
    (tmp_path / "hand.json").write_text(json.dumps({"schema": 1, "lines": [{**line, "region": "mixed"}]}))
    with pytest.raises(InputError, match="expected which"):
        read_by_hand(tmp_path / "hand.json")


# --- what is written


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """From files; the T1c is noise with a gradient, the same at both dates, which registers as it is."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(3)
    from scipy import ndimage

    head = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 3) * 300 + 500
    head[:3], head[-3:] = 0, 0
    scale = np.diag([2, 2, 2, 1.0])
    for name, label_map in (
        ("one", drawn((ET, 15, 0), (ED, 15, 4), (ED, 11, 6))),
        ("two", drawn((ET, 10, 0), (ED, 15, 4))),
    ):
        (root / name).mkdir()
        save_image(head.astype(np.float32), scale, root / name / "x-t1c.nii.gz", np.float32)
        save_image(label_map, scale, root / name / "x-seg.nii.gz", np.uint8)
    output = root / "out"
    places = [str(root / "one"), str(root / "two")]
    assert main(["follow", *places, "--dates", "0", "70", "--region", "mixed", "-o", str(output)]) == 0
    return root, output


def test_record_table_and_page_tell_the_kinds_apart(written):
    _root, output = written
    record = json.loads((output / "follow-up.json").read_text())
    pytest.importorskip("jsonschema").validate(record, json.loads(SCHEMA.read_text()))
    assert record["settings"]["region"] == "mixed" and record["settings"]["targets"] == 2
    assert record["targets"] == [1, 2, 3]
    later = record["dates"][1]
    found = {b["region"]: b["sum_of_products_mm2"] for b in later["burdens"]}
    assert found == pytest.approx({"ET": 4 * product(10), "non-enhancing": 4 * product(15)})
    assert later["burdens"][1]["suggestions"]["bidimensional"]["from_baseline"] == pytest.approx(
        product(15) / product(15, 11) - 1
    )
    assert later["suggestions"]["bidimensional"]["category"] == "PR"
    assert any("Mixed tumor" in text for text in record["remarks"])
    rows = list(csv.DictReader((output / "follow-up.csv").open()))
    assert [(r["day"], r["lesion"], r["region"], r["target"], r["remark"]) for r in rows] == [
        ("0", "1", "ET", "yes", ""),
        ("0", "2", "non-enhancing", "yes", ""),
        ("0", "3", "non-enhancing", "yes", ""),
        ("70", "1", "ET", "yes", ""),
        ("70", "2", "non-enhancing", "yes", ""),
        ("70", "", "non-enhancing", "yes", "disappeared"),
    ]
    page = (output / "report.html").read_text()
    for text in ("day 70, ET alone", "day 70, non-enhancing", "together PR", "bidimensional, ET", "does not tell"):
        assert text in page, text


def test_one_date_of_both_kinds(written, capsys):
    root, _output = written
    assert main(["measure", str(root / "one" / "x-seg.nii.gz"), "--region", "mixed"]) == 0
    text = capsys.readouterr().out
    assert "ET 39.6 x 39.6 mm" in text and "non-enhancing 28.3 x 28.3 mm" in text and "mixed: 3 lesions" in text


def test_a_record_of_one_region_has_one_burden_and_no_word_of_mixed_tumors():
    image, label_map = Image(np.zeros(SHAPE, np.float32), MM), drawn((ET, 15, 0))
    found = (Registration(np.eye(4), 1, 1, 1, 1, 9, 10, 0), "")
    known = {(fingerprint(image), fingerprint(image)): found}
    record = as_json(follow([Timepoint(k, label_map, MM, image) for k in (0, 60)], Settings(), known=known))
    assert [len(date["burdens"]) for date in record["dates"]] == [1, 1]
    assert record["dates"][1]["suggestions"] == record["dates"][1]["burdens"][0]["suggestions"]
    assert not any("Mixed tumor:" in text for text in record["remarks"])
