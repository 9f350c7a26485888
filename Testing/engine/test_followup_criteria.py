"""Suggested categories of response: thresholds, which lesions are targets, what is said of doubtful changes."""

import csv
import re

import numpy as np
import pytest
from followup_lesions import MM, drawn
from segmamba.errors import InputError
from segmamba.followup.criteria import NO_DISEASE, suggest
from segmamba.followup.dates import Timepoint
from segmamba.followup.follow import Settings, follow
from segmamba.followup.lesions import unmeasurable_reason
from segmamba.followup.match import fingerprint
from segmamba.followup.record import write_csv
from segmamba.images.image_io import Image
from segmamba.preparation.register import Registration


def category(name, values, **facts):
    facts = {"lesions": 1, "new_measurable": 0, "measurable_again": True, **facts}
    return suggest(name, list(range(0, 30 * len(values), 30)), values, **facts)


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


def test_where_it_is_not_known_what_is_new_neither_response_nor_stability_is_said():
    """Growth and nothing left are seen without following a lesion."""
    for values, expected in (([100, 10], "not assessed"), ([100, 60], "not assessed"), ([100, 140], "PD")):
        assert category("volumetric", values, new_measurable=None, minor=0.4).category == expected
    gone = category("volumetric", [100, 0], new_measurable=None, lesions=0)
    assert gone.category == "CR" and "not assessed" not in {rule.category for rule in gone.rules}
    assert category("volumetric", [0, 1], new_measurable=None, measurable_again=False).category == NO_DISEASE
    found = category("volumetric", [100, 10], new_measurable=None)
    assert next(rule for rule in found.rules if rule.met).category == "not assessed"
    (new,) = (rule for rule in found.rules if "did not have" in rule.text)
    assert "not known, lesions were not followed" in new.text and not new.met


NEAR_LIMITS = [
    ("bidimensional", [1000, 1249.6]),
    ("bidimensional", [1000.4, 1250.5]),
    ("bidimensional", [1000, 500.4]),
    ("bidimensional", [1000, 750.49]),
    ("volumetric", [10, 13.996]),
    ("volumetric", [0.003, 0.0042]),
    ("volumetric", [0.016, 0.024]),
    ("volumetric", [10, 3.504]),
    ("volumetric", [10, 5.9504]),
]


@pytest.mark.parametrize(("name", "values"), NEAR_LIMITS, ids=str)
def test_the_numbers_that_a_rule_is_printed_with_are_on_its_side_of_the_limit(name, values):
    """The change as it is printed, and that of the two amounts as they are printed."""
    found = category(name, values, minor=0.25 if name == "bidimensional" else 0.405)
    changes = [rule for rule in found.rules if "against" in rule.text]
    assert len(changes) == 3
    for rule in changes:
        now, change, before, limit = (
            float(re.search(pattern, rule.text)[1])
            for pattern in (r"([0-9.]+) m", r"([-+0-9.]+)% against", r"against.* ([0-9.]+) m", r"from ([-+0-9.]+)%")
        )
        for shown in (change, 100 * (now / before - 1)):
            assert (abs(shown) >= abs(limit) - 1e-6 and shown * limit > 0) == rule.met, rule.text


def test_no_more_decimals_than_a_limit_asks_for():
    texts = [rule.text for rule in category("bidimensional", [1000, 1249.6]).rules]
    assert "sum of products 1249.6 mm2, +24.96% against the nadir, 1000.0 mm2 on day 0; PD from +25%" in texts
    assert "1300 mm2, +30.0% against the nadir, 1000 mm2" in category("bidimensional", [1000, 1300.2]).rules[0].text
    assert unmeasurable_reason(12, 9.9996, 2, 1) == "12.00 x 9.9996 mm, below 10 mm"
    assert unmeasurable_reason(9.994, 8, 2, 1) == "9.99 x 8.00 mm, below 10 mm"
    early = followed([square(11)], [square(21)], radiotherapy_end=60 - 83, confirm_weeks=11.9).dates[1]
    assert "11.86 weeks after radiotherapy, fewer than 11.9" in early.suggestions["bidimensional"].rules[-1].text


@pytest.mark.parametrize(("share", "expected"), [(0.40, "MR"), (0.45, "SD")])
def test_the_volumetric_minor_response_is_a_setting(share, expected):
    settings = Settings(region="non-enhancing", volumetric_minor=share)
    assert category("volumetric", [100, 60], minor=settings.minor("non-enhancing")["volumetric"]).category == expected
    assert Settings(volumetric_minor=share).minor("ET") == {"bidimensional": None, "volumetric": None}
    assert settings.minor("non-enhancing")["bidimensional"] == 0.25


def followed(*dates, lost=(), **settings):
    """Dates 60 days apart, 60 x 60 x 12 of 1 mm, with boxes of ET; registered as they are but those in `lost`."""
    shape, found = (60, 60, 12), Registration(np.eye(4), 1, 1, 1, 1, 9, 10, 0)
    images = [Image(np.full(shape, k in lost, np.float32), MM) for k in range(len(dates))]
    timepoints = [Timepoint(60 * k, drawn(shape, *dates[k]), MM, image) for k, image in enumerate(images)]
    results = [(None, "of no use") if k in lost else (found, "") for k in range(len(dates))]
    known = {(fingerprint(images[0]), fingerprint(image)): result for image, result in zip(images, results)}
    return follow(timepoints, Settings(**settings), known=known)


def twice(first, later, **settings):
    """The second of two dates that are registered."""
    return followed(first, later, **settings).dates[1]


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


@pytest.mark.parametrize(("other", "kept", "spd"), [(12, 20, 2 * 19**2), (6, 6, 0)])
def test_a_target_that_went_beside_another_lesion_is_gone_and_that_one_does_not_stand_for_it(other, kept, spd):
    """3 mm of nothing lie between them: the second box is a target of 12 x 12, or too small to be one."""
    places = {20: square(20), other: square(other, (28, 5, 3))}
    date = twice(places.values(), [places[kept]])
    assert date.matches.merged == {} and date.burdens[0].spd == pytest.approx(spd)


def test_a_date_that_was_not_registered_has_no_response_in_volume(tmp_path):
    """24 x 24 to 9 x 9 is -86 % of volume or, where the 12 x 12 elsewhere is new, PD: which of both is not known."""
    first, later = [square(24)], [square(9), square(12, (40, 40, 3))]
    assert twice(first, later).suggestions["volumetric"].category == "PD"
    result = followed(first, later, lost=(1,))
    assert {found.category for found in result.dates[1].suggestions.values()} == {"not assessed"}
    write_csv(result, tmp_path / "x.csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [(row["baseline_lesion"], row["target"]) for row in rows] == [("1", "yes"), ("", ""), ("", "")]


def test_by_volume_any_lesion_that_is_measurable_again_is_progression():
    """Whether it could be followed, and whether it was a target."""
    date = followed([square(24)], [], [square(12)], lost=(2,)).dates[2]
    assert (date.suggestions["volumetric"].category, date.suggestions["bidimensional"].category) == (
        "PD",
        "not assessed",
    )
    target, other = square(20), (40, 40, 3)
    back = followed([target, square(6, other)], [], [square(20, other)]).dates[2]
    assert back.matches.parts == {1: (), 2: (1,)} and back.suggestions["volumetric"].category == "PD"
    assert (
        followed([target, square(6, other)], [], [square(6, other)]).dates[2].suggestions["volumetric"].category == "PR"
    )


def test_specks_that_no_rule_calls_measurable_have_no_response_in_volume():
    """4 x 4 to 4 x 6 voxels in one slice are +50 %; what is new and measurable is progression all the same."""
    first, corner = [((5, 5, 3), (4, 4, 1))], (5, 5, 3)
    date = twice(first, [(corner, (4, 6, 1))])
    assert {found.category for found in date.suggestions.values()} == {NO_DISEASE} and date.near == {}
    (burden,) = date.burdens
    assert burden.volume_ml == pytest.approx(0.024)
    assert burden.suggestions["volumetric"].from_baseline == pytest.approx(0.5)
    new = twice(first, [*first, square(12, (40, 40, 3))])
    assert {found.category for found in new.suggestions.values()} == {"PD"}
    assert twice([square(12)], [square(15)]).suggestions["volumetric"].from_baseline == pytest.approx(15**2 / 12**2 - 1)


@pytest.mark.parametrize("name", ["confirm_weeks", "volumetric_minor"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_settings_that_are_no_numbers_of_something_are_refused(name, value):
    with pytest.raises(InputError, match="expected"):
        Settings(**{name: value})
