"""The split: by subject, the same everywhere, never changed by what comes later."""

import json
from dataclasses import replace

import pytest
from segmamba.cli import main
from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry, write_dataset
from segmamba.datasets.split import Split, extend, make_split, read_split, test_cases, training_cases, validation_cases
from segmamba.errors import InputError


def make(folder, subjects, scans=1, labelled=True):
    """A data set with `scans` cases of each subject; its files are never opened."""
    entry = FileEntry(path="x", sha256="0")
    cases = [
        CaseEntry(
            id=f"{subject}-{i}",
            subject=subject,
            images={"ct": entry},
            label=entry if labelled else None,
            shape=(9, 8, 7),
            spacing=(1.0, 1.0, 1.0),
        )
        for subject in subjects
        for i in range(scans)
    ]
    dataset = Dataset(
        name="set",
        modalities=("ct",),
        labels={"lesion": 1},
        regions={"lesion": ("lesion",)},
        label_values={"1": "lesion"},
        cases=tuple(cases),
        folder=str(folder),
    )
    write_dataset(dataset)
    return dataset


def names(count, start=0):
    return [f"s{i:03d}" for i in range(start, start + count)]


def test_folds_are_even_and_of_subjects(tmp_path):
    dataset = make(tmp_path, names(23), scans=3)
    split, added = make_split(dataset, folds=5)
    assert added == 23 and read_split(dataset) == split
    sizes = [sum(fold == k for fold in split.subjects.values()) for k in range(5)]
    assert sorted(sizes) == [4, 4, 5, 5, 5]
    held_out = []
    for fold in range(5):
        training, validation = training_cases(dataset, fold), validation_cases(dataset, fold)
        assert len(training) + len(validation) == 69
        assert not {c.subject for c in training} & {c.subject for c in validation}
        assert all(split.part_of(c.subject) == fold for c in validation)
        held_out += [c.id for c in validation]
    assert sorted(held_out) == sorted(c.id for c in dataset.cases)


def test_shares_as_in_the_paper(tmp_path):
    dataset = make(tmp_path, names(50), scans=2)
    assert main(["dataset", "split", str(tmp_path), "--shares", "70/10/20", "--seed", "4"]) == 0
    parts = [training_cases(dataset), validation_cases(dataset), test_cases(dataset)]
    assert [len(part) for part in parts] == [70, 10, 20]
    assert len({c.subject for part in parts for c in part}) == 50
    with pytest.raises(InputError, match=r"split by shares .*leave the fold out"):
        training_cases(dataset, 0)


@pytest.mark.parametrize(
    ("options", "empty"),
    [
        (["--shares", "80/20/0"], []),
        (["--shares", "90/10/0"], ["validation"]),
        (["--shares", "90/5/5"], ["validation", "test"]),
        (["--folds", "3"], []),
    ],
)
def test_a_part_that_stays_empty_is_said(tmp_path, capsys, options, empty):
    """Three subjects: a training that validates on such a part validates on nothing. A share of 0 is wanted so."""
    dataset = make(tmp_path, names(3))
    assert main(["dataset", "split", dataset.folder, *options]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert said == [f"note: no labelled case is in {part}" for part in empty]


def test_a_fold_without_labelled_cases_is_said(tmp_path, capsys):
    first, _ = make_split(make(tmp_path, names(6)), folds=3)
    dataset = make(tmp_path, names(6))
    gone = [case if first.subjects[case.subject] else replace(case, label=None) for case in dataset.cases]
    write_dataset(replace(dataset, cases=tuple(gone)))
    assert main(["dataset", "split", dataset.folder]) == 0
    assert "note: no labelled case is in fold 0\n" in capsys.readouterr().out


def test_the_split_depends_on_seed_and_names_alone(tmp_path):
    """Not on the order of cases, nor on Python's hash, which differs between runs: one place is written down."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    one, _ = make_split(make(tmp_path / "a", names(20)), folds=4, seed=1)
    other, _ = make_split(make(tmp_path / "b", names(20)[::-1]), folds=4, seed=1)
    assert one.subjects == other.subjects
    seeded, _ = make_split(make(tmp_path / "c", names(20)), folds=4, seed=2)
    assert seeded.subjects != one.subjects
    # by sha256 of "1:s000" and so on, in shell
    assert list(one.subjects)[:3] == FIRST_THREE


FIRST_THREE = ["s014", "s006", "s000"]


def test_what_is_placed_stays_where_it_is(tmp_path, capsys):
    first, _ = make_split(make(tmp_path, names(10)), folds=5, seed=3)
    for total in (11, 17, 40):
        assert main(["dataset", "split", str(make(tmp_path, names(total)).folder)]) == 0
        now = read_split(make(tmp_path, names(total)))
        assert {s: now.subjects[s] for s in first.subjects} == first.subjects
        sizes = [sum(fold == k for fold in now.subjects.values()) for k in range(5)]
        assert sum(sizes) == total and max(sizes) - min(sizes) <= 1
        assert (now.seed, now.folds) == (3, 5)
    assert "23 of them new" in capsys.readouterr().out


def test_a_subject_that_went_keeps_its_place(tmp_path):
    first, _ = make_split(make(tmp_path, names(10)), folds=5)
    second, added = make_split(make(tmp_path, names(5)), folds=5)
    assert (second.subjects, added) == (first.subjects, 0)


def test_only_subjects_that_are_present_fill_a_part():
    shares = {"train": 0.8, "validation": 0.2, "test": 0.0}
    placed = {"s000": "train", "s001": "train", "s002": "validation"}
    split = Split(seed=1, shares=shares, subjects=placed)
    new = set(names(3, start=10))
    alone = extend(split, new, present=new).subjects
    assert {subject: alone[subject] for subject in placed} == placed
    assert sorted(alone[subject] for subject in new) == ["train", "train", "validation"]
    beside = extend(split, new, present=new | {"s002"})
    assert {beside.subjects[subject] for subject in new} == {"train"}


def test_folds_are_of_equal_size_among_the_subjects_that_are_left(tmp_path):
    first, _ = make_split(make(tmp_path, names(10)), folds=5)
    left = [subject for subject, fold in first.subjects.items() if fold != 0]
    now, added = make_split(make(tmp_path, [*left, *names(2, start=50)]), folds=5)
    assert added == 2 and {now.subjects[subject] for subject in names(2, start=50)} == {0}
    assert {subject: now.subjects[subject] for subject in first.subjects} == first.subjects


@pytest.mark.parametrize(
    "options", [{"folds": 3}, {"seed": 9}, {"shares": {"train": 0.7, "validation": 0.1, "test": 0.2}}]
)
def test_a_split_is_never_made_anew(tmp_path, options):
    dataset = make(tmp_path, names(10))
    make_split(dataset, folds=5, seed=1)
    before = (tmp_path / "splits.json").read_bytes()
    with pytest.raises(InputError, match=r"splits.json already exists, with 5 folds, seed 1"):
        make_split(dataset, **options)
    assert (tmp_path / "splits.json").read_bytes() == before


def test_a_case_in_no_fold(tmp_path):
    make_split(make(tmp_path, names(6)), folds=2)
    dataset = make(tmp_path, names(7))
    for select in (training_cases, validation_cases):
        with pytest.raises(
            InputError, match=r"case s006-0 .* s006 is in no fold; add it with `segmamba dataset split /"
        ):
            select(dataset, 0)
    with pytest.raises(InputError, match="segmamba dataset split"):
        read_split(dataset).part_of("s006")


def test_a_missing_split_and_a_wrong_fold(tmp_path):
    dataset = make(tmp_path, names(6))
    with pytest.raises(InputError, match=r"has no split .* make it once with `segmamba dataset split"):
        training_cases(dataset, 0)
    make_split(dataset, folds=2)
    for fold in (None, 2, -1):
        with pytest.raises(InputError, match="expected 0 to 1"):
            training_cases(dataset, fold)


def test_cases_without_labels_are_in_the_split_and_not_trained_on(tmp_path):
    dataset = make(tmp_path, names(6))
    dataset = replace(dataset, cases=(*dataset.cases[:5], replace(dataset.cases[5], label=None)))
    split, _ = make_split(dataset, folds=2)
    assert len(split.subjects) == 6
    assert len(training_cases(dataset, 0)) + len(validation_cases(dataset, 0)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "expected schema 1"),
        ({"folds": 1}, "1 folds: expected 2 or more"),
        ({"subjects": {"a": 7}}, "subject a is in 7; expected one of"),
        ({"subjects": None}, "no table of subjects"),
        ({"sed": 1}, "did you mean 'seed'"),
        ({"shares": {"train": 1.0}}, "either folds or shares"),
    ],
)
def test_a_broken_split_is_told(tmp_path, change, message):
    dataset = make(tmp_path, names(6))
    make_split(dataset, folds=2)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=f"splits.json.*{message}"):
        read_split(dataset)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.2, 0), (float("nan"),) * 3])
def test_shares_add_up(shares):
    with pytest.raises(InputError, match="expected numbers from 0 that add up to 1"):
        Split(seed=1, shares=dict(zip(("train", "validation", "test"), shares)), subjects={})


def test_too_few_subjects(tmp_path, capsys):
    with pytest.raises(InputError, match="3 subjects are too few for 5 folds"):
        make_split(make(tmp_path, names(3)))
    assert not (tmp_path / "splits.json").exists()
    for shares in ("70/30", "nan/1/1", "inf/1/1", "1/0/-inf"):
        assert main(["dataset", "split", str(tmp_path), "--shares", shares]) == 1
        assert "expected three numbers, e.g. 70/10/20" in capsys.readouterr().err
    assert not (tmp_path / "splits.json").exists()
