"""Label conventions and regions, against tables typed from the data sets' own descriptions."""

import numpy as np
import pytest
from segmamba.cases.labels import (
    CONVENTIONS,
    GLIOMA,
    SCHEMES,
    LabelScheme,
    find_convention,
    from_regions,
    to_regions,
    to_standard,
)
from segmamba.cli import main
from segmamba.commands.shared import LABEL_CONVENTIONS
from segmamba.errors import InputError

NCR, ED, ET = 1, 2, 3
SHAPE = (4, 5, 6)

# what each value means: BraTS 2021 and 2023 data pages, dataset.json of MSD Task01
PUBLISHED = [
    ("brats2023", {1: NCR, 2: ED, 3: ET}),
    ("brats2021", {1: NCR, 2: ED, 4: ET}),
    ("msd", {1: ED, 2: NCR, 3: ET}),
    ("brats2024", {1: NCR, 2: ED, 3: ET}),  # 4 is a cavity, for which the engine has no label
    ("brats-ped", {1: ET, 2: NCR, 3: NCR, 4: ED}),  # not enhancing and cystic: both of the core
    ("brats-men", {1: NCR, 2: ED, 3: ET}),
    ("brats-met", {1: NCR, 2: ED, 3: ET}),
    ("brats-ssa", {1: NCR, 2: ED, 3: ET}),
]
# labels of a convention's own and the regions that its challenge scores, as sets of values in the file
OWN = {
    "brats2024": {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}, "RC": {4}},
    "brats-ped": {"WT": {1, 2, 3, 4}, "TC": {1, 2, 3}, "ET": {1}, "NET": {2}, "CC": {3}, "ED": {4}},
}


@pytest.mark.parametrize("convention", OWN)
def test_regions_of_conventions_with_labels_of_their_own(convention):
    values = np.arange(5)
    found = {region: set(values[mask]) for region, mask in to_regions(values, SCHEMES[convention]).items()}
    assert found == OWN[convention]
    assert set(SCHEMES) == set(OWN)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize(("convention", "meaning"), PUBLISHED)
def test_to_standard(convention, meaning, dtype):
    values = np.array([0, *meaning], dtype)
    label_map = np.random.default_rng(0).choice(values, SHAPE)
    standard = to_standard(label_map, convention)
    assert standard.dtype == np.uint8
    assert standard.shape == SHAPE
    expected = [[[{0: 0, **meaning}[int(v)] for v in row] for row in plane] for plane in label_map]
    np.testing.assert_array_equal(standard, expected)


def test_every_convention_is_tested():
    assert {name for name, _ in PUBLISHED} == set(CONVENTIONS)


@pytest.mark.parametrize(
    ("values", "convention", "text"),
    [
        ([0, 1, 4], "brats2023", r"\[4\] are not among .* in convention 'brats2023'"),
        ([0, 1, 3], "brats2021", r"\[3\] are not among .* in convention 'brats2021'.*4 ET"),
        ([0, 1, -1], "msd", r"\[-1\]"),
        ([0, 1, 1.5], "msd", r"\[1.5\]"),
        ([0, np.nan], "msd", r"\[nan\]"),
        ([0, 1], "brats", r"unknown label convention 'brats'; known are brats2023.*brats2021.*msd"),
    ],
)
def test_to_standard_refuses(values, convention, text):
    with pytest.raises(InputError, match=text):
        to_standard(np.array(values), convention)


TOLD = [
    ("BraTS2021_00006", {1, 2, 4}, "brats2021"),
    ("BraTS20_Training_001", {0.0, 2.0, 4.0}, "brats2021"),
    ("Brats18_2013_11_1_seg.nii.gz", {1, 2}, "brats2021"),
    ("UPENN-GBM-00001_11", {2, 4}, "brats2021"),
    ("UCSF-PDGM-0004_nifti", {1, 2, 4}, "brats2021"),
    ("BraTS-GLI-00003-001", {1, 2, 3}, "brats2023"),
    ("BraTS-GLI-02062-100", {1, 2, 4}, "brats2024"),
    ("BraTS-GLI-02062-100", {1, 2, 3, 4}, "brats2024"),
    ("BraTS-PED-00001-000", {1, 2, 4}, "brats-ped"),
    ("BraTS-MEN-00004-000", {1, 2, 3}, "brats-men"),
    ("BraTS-MET-00001-000", {1, 2, 3}, "brats-met"),
    ("BraTS-MET-00001-000", {3, 4}, "brats2024"),
    ("BraTS-SSA-00002-000", {1, 3}, "brats-ssa"),
]
OPEN = [
    ("", {4}, "brats2021, brats2024, brats-ped"),
    ("a", {1, 2, 4}, "brats2021, brats2024, brats-ped"),
    ("a", {1, 2, 3, 4}, "brats2024, brats-ped"),
    ("a", {0, 1, 2, 3}, "brats2023, msd"),
    ("BRATS_001", {1, 2, 3}, "brats2023, msd"),
    ("Brats18_2013_11_1", {1, 2, 3}, "brats2023, msd"),  # renumbered by somebody
    ("BraTS-PED-00001-000", {1, 2, 3}, "brats2023, brats-ped"),
    ("BraTS-SSA-00002-000", {1, 2, 4}, "brats2021, brats2024"),
]


@pytest.mark.parametrize(("name", "values", "convention"), TOLD)
def test_the_cohort_tells_the_convention(name, values, convention):
    assert find_convention(values, name) == convention


@pytest.mark.parametrize(("name", "values", "fitting"), OPEN)
def test_where_the_name_tells_nothing_it_must_be_told(name, values, fitting):
    with pytest.raises(InputError, match=rf"fit several conventions \({fitting}.*say which"):
        find_convention(values, name)


@pytest.mark.parametrize("values", [set(), {0}, {0.0}])
def test_all_conventions_agree_on_an_empty_map(values):
    assert find_convention(values) == "brats2023"


@pytest.mark.parametrize("values", [{5}, {-1}, {255}, {1, 2, 5}])
def test_other_values_fit_no_convention(values):
    with pytest.raises(InputError, match="fit no known convention: brats2023: 1 NCR, 2 ED, 3 ET; brats2021"):
        find_convention(values)


@pytest.mark.parametrize(
    ("values", "text"), [([0.5, 4], "0.5"), ([np.nan, 1], "nan"), ([np.inf], "inf"), ([4, 1.999], "1.999")]
)
def test_a_convention_is_not_guessed_from_broken_values(values, text):
    with pytest.raises(InputError, match=f"{text} are not whole numbers"):
        find_convention(values)


def test_regions():
    regions = to_regions(np.array([[0, NCR], [ED, ET]]))
    np.testing.assert_array_equal(regions["WT"], [[False, True], [True, True]])
    np.testing.assert_array_equal(regions["TC"], [[False, True], [False, True]])
    np.testing.assert_array_equal(regions["ET"], [[False, False], [False, True]])


def test_regions_and_back():
    label_map = np.random.default_rng(1).integers(0, 4, SHAPE)
    back = from_regions(to_regions(label_map))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, label_map)


@pytest.mark.parametrize(
    ("wt", "tc", "et", "text"),
    [
        ([1, 0, 1], [1, 1, 0], [1, 0, 0], "1 voxels of TC outside WT"),
        ([1, 1, 1], [0, 0, 1], [1, 1, 0], "2 voxels of ET"),
    ],
)
def test_regions_must_be_nested(wt, tc, et, text):
    with pytest.raises(InputError, match=text):
        from_regions({"WT": np.array(wt), "TC": np.array(tc), "ET": np.array(et)})


@pytest.mark.parametrize("command", [["dataset", "init"], ["correct"], ["evaluate"], ["compare"]])
def test_every_convention_is_named_where_one_is_asked_for(command, capsys):
    assert set(LABEL_CONVENTIONS) == set(CONVENTIONS)
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    words = "".join(capsys.readouterr().out.split())  # a name may be broken between lines
    assert [name for name in CONVENTIONS if name not in words] == []


@pytest.mark.parametrize(
    "names",
    [
        ("left_kidney", "right_kidney"),
        ("Kidney (right)", "kidney (Left)"),
        ("kidney_l", "kidney_r"),
        ("R-lung", "L-lung"),
        ("kidneyL", "kidneyR"),
        ("LKidney", "RKidney"),
        ("leftlung", "rightlung"),
        ("left", "right"),
    ],
)
def test_names_that_tell_sides_apart_are_known_and_refused_to_mirrors(names):
    labels = {"liver": 1, names[0]: 2, names[1]: 3}
    schemes = (
        LabelScheme(labels=labels, regions={"all": tuple(labels)}),
        LabelScheme(labels={"a": 1, "b": 2}, regions={names[0]: ("a",), names[1]: ("b",)}),
    )
    for scheme in schemes:
        assert scheme.sides() == names
        with pytest.raises(InputError) as found:
            scheme.check_mirroring("do something else")
        assert names[0] in str(found.value) and names[1] in str(found.value) and "do something" in str(found.value)


@pytest.mark.parametrize(
    "names", [("LV", "RV"), ("left_kidney", "right_lung"), ("lesion", "resion"), ("a_l", "b_r"), ("bright", "blight")]
)
def test_other_names_tell_no_sides_apart(names):
    scheme = LabelScheme(labels={name: n for n, name in enumerate(names, 1)}, regions={"all": names})
    for unsided in (scheme, GLIOMA, *SCHEMES.values()):
        assert unsided.sides() is None
        unsided.check_mirroring("")
