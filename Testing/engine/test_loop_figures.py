"""What the README says of corrections, intake and gate is what the results files hold: no figure grows stale."""

import re
from statistics import fmean

import pytest
from figures import README, REGIONS, ROOT, results, same, table_after

CLINIC = ROOT / "Testing" / "benchmarks" / "CLINIC.md"

WORDS = {"one": 1, "three": 3, "five": 5, "ten": 10, "fifteen": 15}  # corrections
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
SHARES = {"a quarter": 0.25, "half": 0.5, "all": 1.0}
VERDICTS = {"better": "promote", "not worse": "confirm", "worse": "refuse"}


FILES = {"first": "clinic_curve.json", "second": "clinic_curve_second.json", "third": "clinic_curve_third.json"}


def clinic_rows(damage="sound", clinic="first"):
    rows = [row for row in results(FILES[clinic])["rows"] if row["damage"] == damage]
    return {(row["order"] + 1, row["sent"]): row for row in rows}


def said_of(clinic):
    text = CLINIC.read_text(encoding="utf-8").partition(f"## The {clinic} clinic")[2]
    return text.partition("\n## ")[0].replace("\n  ", " ")


def gain(row, cohort, clinic):
    return fmean(row[cohort]["mean"]) - fmean(results(FILES[clinic])["before"][cohort]["mean"])


def change_of(row, check):
    return float(re.match(r"change of the mean ([+-][\d.]+)", row["checks"][check])[1])


@pytest.mark.parametrize("clinic", FILES)
def test_the_table_of_a_clinic(clinic):
    before, found = results(FILES[clinic])["before"], clinic_rows(clinic=clinic)
    first, *rows = table_after(CLINIC, "| corrections | order |", f"## The {clinic} clinic")[1:]
    assert first[0] == "none"
    candidates = set()
    for name, order, how, *cells in [("none", "", "", *first[3:]), *rows]:
        scored = before
        if name != "none":
            scored = row = found[int(order), WORDS[name]]
            share, _, verdict = how.replace("**", "").partition(", ")
            if verdict:
                assert (SHARES[share], VERDICTS[verdict]) == (row["share"], row["verdict"]), (name, order)
                candidates.add((int(order), WORDS[name]))
            else:
                scored = row["shares"][f"{SHARES[share]:g}"]
        for cohort, texts in (("unseen", cells[:4]), ("others", cells[4:])):
            mean = scored[cohort]["mean"]
            assert all(same(text, value) for text, value in zip(texts[:3], mean, strict=True)), (name, order, cohort)
            if name != "none":
                assert same(texts[3], fmean(mean) - fmean(before[cohort]["mean"])), (name, order, cohort)
    assert candidates == set(found)


def test_the_sums_of_clinics():
    clinic, told = "", set()
    for name, corrections, *changes, verdicts in table_after(README, "| model in use | corrections |")[1:]:
        clinic = name.partition(":")[0] or clinic
        before, rows = results(FILES[clinic])["before"], clinic_rows(clinic=clinic)
        if name:
            counts = [len(before[cohort]["cases"]) for cohort in ("unseen", "others")]
            assert [int(n) for n in re.findall(r"\d+", name)] == counts
        found = [rows[key] for key in sorted(rows) if key[1] == WORDS[corrections]]
        assert [VERDICTS[word] for word in verdicts.split(", ")] == [row["verdict"] for row in found]
        for texts, cohort in zip(changes, ("unseen", "others"), strict=True):
            means = [fmean(row[cohort]["mean"]) - fmean(before[cohort]["mean"]) for row in found]
            assert all(same(text, mean) for text, mean in zip(texts.split(", "), means, strict=True)), (
                name,
                corrections,
            )
        told |= {(clinic, WORDS[corrections])}
    assert told == {
        (clinic, sent) for clinic in {clinic for clinic, _ in told} for _, sent in clinic_rows(clinic=clinic)
    }


def test_what_corrections_bring_in_the_mean():
    before, found = results("clinic_curve.json")["before"], clinic_rows()
    (told,) = re.findall(r"After five that is ([-+][\d.]+) and ([-+][\d.]+) in the mean", CLINIC.read_text())
    for text, cohort in zip(told, ("unseen", "others"), strict=True):
        five = [fmean(row[cohort]["mean"]) for (_order, sent), row in found.items() if sent == 5]
        assert same(text, fmean(five) - fmean(before[cohort]["mean"])), cohort


def test_what_muon_brings_to_a_fine_tuning():
    number = r"([-+]?[\d.]+\d)"
    (told,) = re.findall(
        rf"five corrections SSA {number} and BraTS {number},\s+where AdamW brought {number} and {number}; "
        rf"after fifteen {number} and {number}\..*?from {number} to {number}, of another from {number} to {number}\)",
        CLINIC.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    found = results("finetune_optimizer.json")
    rows = {(row["optimizer"], row["sent"]): row for row in found["rows"]}
    expected = [
        fmean(rows[key][cohort]["mean"]) - fmean(found["before"][cohort]["mean"])
        for key in (("muon", 5), ("adamw", 5), ("muon", 15))
        for cohort in ("unseen", "others")
    ]
    for case in ("Brats18_TCIA01_425_1", "BraTS-GLI-00012-000"):
        expected += [scored["others"]["cases"][case][1] for scored in (found["before"], rows["muon", 5])]
    assert all(same(text, value) for text, value in zip(told, expected, strict=True))


def test_what_muon_brings_in_the_second_clinic():
    found = results("finetune_optimizer_second.json")
    rows = {(row["optimizer"], row["order"] + 1, row["sent"]): row for row in found["rows"]}
    table = table_after(CLINIC, "| corrections | order | SSA: AdamW |")[1:]
    assert len(rows) == 2 * len(table) == 6
    for corrections, order, *changes in table:
        columns = [(name, cohort) for cohort in ("unseen", "others") for name in ("adamw", "muon")]
        for text, (name, cohort) in zip(changes, columns, strict=True):
            mean = rows[name, int(order), WORDS[corrections]][cohort]["mean"]
            assert same(text, fmean(mean) - fmean(found["before"][cohort]["mean"])), (corrections, order, name)


def test_what_harder_fine_tuning_brings():
    found = results("finetune_harder.json")
    rows = {(row["new"], row["learning_rate"], row["order"] + 1, row["sent"], row["way"]): row for row in found["rows"]}
    recipes, cohorts, told = ((0.5, 4e-4), (0.8, 4e-4), (0.8, 1e-3)), ("unseen", "others"), set()

    def change(row, cohort):
        return fmean(row[cohort]["mean"]) - fmean(found["before"][cohort]["mean"])

    for corrections, order, way, *changes in table_after(CLINIC, "| corrections | order | way |")[1:]:
        columns = [(recipe, cohort) for cohort in cohorts for recipe in recipes]
        for text, (recipe, cohort) in zip(changes, columns, strict=True):
            key = (*recipe, int(order), WORDS[corrections], SHARES[way])
            assert (text == "") == (key not in rows), key
            told |= {key} & rows.keys()
            assert text == "" or same(text, change(rows[key], cohort)), (key, cohort)
    assert told == rows.keys()
    text = " ".join(CLINIC.read_text(encoding="utf-8").split())
    of_half = r"half of the way brought (\S+) on SSA and (\S+) on BraTS .*?, by 1e-3 (\S+) and (\S+); "
    of_half += r".*? chosen by one case (\S+) and (\S+)\."
    (half,), (of_all,) = (re.findall(pattern, text) for pattern in (of_half, r"by the recipe above \((\S+)\)"))
    (now,) = re.findall(
        r"clinic bring (\S+) on SSA and (\S+) on BraTS in\s+the mean of the three orders, instead of (\S+) and (\S+),",
        README.read_text(encoding="utf-8"),
    )

    def mean_of_five(recipe, way, cohort):
        return fmean(change(rows[(*recipe, order, 5, way)], cohort) for order in (1, 2, 3))

    before, hard = ([mean_of_five(recipe, 0.5, cohort) for cohort in cohorts] for recipe in (recipes[0], recipes[2]))
    second = clinic_rows(clinic="second")
    chosen = [fmean(change(second[order, 5], cohort) for order in (1, 2, 3)) for cohort in cohorts]
    said = [*half, *now, of_all]
    expected = [*before, *hard, *chosen, *hard, *chosen, mean_of_five(recipes[0], 1.0, "unseen")]
    assert all(same(figure, value) for figure, value in zip(said, expected, strict=True))


def test_what_there_is_to_gain_for_a_clinic():
    (told,) = re.findall(
        r"in use has ([\d.]+) in the mean .*? corrections ([\d.]+), and .*? no more than ([\d.]+)\.",
        CLINIC.read_text().replace("\n", " "),
    )
    before, found = results("clinic_curve.json")["before"]["unseen"], clinic_rows()
    five = fmean(fmean(row["unseen"]["mean"]) for (_order, sent), row in found.items() if sent == 5)
    best = 0.0
    for cases in results("longer_and_finer.json")["runs"].values():
        dice = [cases[name]["after"][region]["dice"] for name in before["cases"] for region in REGIONS]
        best = max(best, fmean(dice))
    for text, value in zip(told, (fmean(before["mean"]), five, best), strict=True):
        assert same(text, value)


def test_what_is_said_of_the_second_clinic():
    text = said_of("second")
    before, found = results(FILES["second"])["before"], clinic_rows(clinic="second")
    (told,) = re.findall(
        r"order 2 ten corrections brought (\S+) and fifteen (\S+) \(.*?order 1 fifteen brought (\S+): .*?brought (\S+) "
        r"\(.*?lost ([\d.]+) on its own two",
        text,
        re.DOTALL,
    )
    scored = [found[2, 10], found[2, 15], found[1, 15], found[1, 15]["shares"]["1"]]
    for value, row in zip(told, scored):
        assert same(value, fmean(row["unseen"]["mean"]) - fmean(before["unseen"]["mean"]))
    assert same(told[4], -change_of(found[1, 10], "local Dice"))
    (told,) = re.findall(r"in use has ([\d.]+) in the mean .*?\) ([\d.]+)\.", text)
    folds = results("cross_validation.json")["cases"]
    with_ssa = [folds[case]["after"][region]["dice"] for case in before["unseen"]["cases"] for region in REGIONS]
    assert same(told[0], fmean(before["unseen"]["mean"])) and same(told[1], fmean(with_ssa))
    (told,) = re.findall(r"How long\*: (\d+) to (\d+) minutes of CPU, (\d+) to (\d+) by the clock", text)
    spans = [[row[key] for row in found.values() if row[key]] for key in ("cpu_minutes", "minutes")]
    assert [int(n) for n in told] == [round(end(span)) for span in spans for end in (min, max)]
    (lost, by_one) = re.findall(r"In order 3 five cost ([\d.]+): .*? own that gained ([\d.]+)\.", text)[0]
    assert same(lost, fmean(before["unseen"]["mean"]) - fmean(found[3, 5]["unseen"]["mean"]))
    assert same(by_one, change_of(found[3, 5], "local Dice")) and "over 1 case" in found[3, 5]["checks"]["local Dice"]


def test_how_often_the_gate_recommends_what_sound_corrections_bring():
    text, second, third = README.read_text(encoding="utf-8"), clinic_rows(clinic="second"), clinic_rows(clinic="third")
    everything = [*clinic_rows().values(), *second.values(), *third.values()]
    assert f"refused none of these {len(everything)}" in text
    assert not [row for row in everything if row["verdict"] == "refuse"]
    today = {key: row["today"]["failed"] for key, row in second.items()}
    assert len(today) == 9 and {key: failed for key, failed in today.items() if failed} == {(1, 10): ["local Dice"]}
    assert "eight of the nine of the second clinic are recommended" in text
    better = sum(row["verdict"] == "promote" for row in third.values())
    (told,) = re.findall(r"recommended (\w+) of the (\w+) of the third clinic", text)
    assert [NUMBERS[word] for word in told] == [better, len(third)]
    then = {key: row["failed"] for key, row in second.items() if row["failed"]}
    assert sum("doubtful cases" in failed for failed in then.values()) == 4


def test_the_gains_of_all_orders_in_the_mean():
    (told,) = re.findall(r"the gains are (\S+) and (\S+) in the mean of all orders", README.read_text(encoding="utf-8"))
    for text, sent in zip(told, (5, 15), strict=True):
        gains = [
            gain(row, "unseen", clinic)
            for clinic in ("first", "second")
            for (_order, corrections), row in clinic_rows(clinic=clinic).items()
            if corrections == sent
        ]
        assert same(text, fmean(gains)), sent


def test_the_table_of_one_damaged_correction():
    rows = [row for row in results(FILES["second"])["rows"] if row["damage"] != "sound"]
    found = {row["damage"]: row for row in rows}
    table = table_after(CLINIC, "| damage | the gate's word |")[1:]
    assert {name for name, *_ in table} == found.keys() and len(found) == 4
    for name, word, why, anchor, local in table:
        row = found[name]
        assert (VERDICTS[word], why.split("; ")) == (row["verdict"], row["failed"]) and row["doubtful"] == 1
        assert row["verdict"] != "promote" and (row["order"], row["sent"], row["damaged"]) == (0, 5, 0.1)
        assert same(anchor, change_of(row, "anchor Dice")) and same(local, change_of(row, "local Dice"))


def test_how_many_damaged_corrections_are_recommended():
    damaged = [row for file in FILES.values() for row in results(file)["rows"] if row["damage"] != "sound"]
    (moved,) = (row for row in damaged if row["verdict"] == "promote")
    assert moved["doubtful"] == 0 and moved["damage"].startswith("label moved")
    assert moved["today"] == {"verdict": "confirm", "failed": ["doubtful cases"]}
    alone = [row for row in damaged if row["failed"] == ["doubtful cases"]]
    text = README.read_text(encoding="utf-8")
    (told,) = re.findall(
        r"Of (\w+) from damaged .*?, one was recommended: .*? Of the other (\w+) none was, (\w+) of", text, re.DOTALL
    )
    assert [NUMBERS[word] for word in told] == [len(damaged), len(damaged) - 1, len(alone)]
    sound = clinic_rows(clinic="third")[2, 5]
    expected = [gain(row, cohort, "third") for row in (moved, sound) for cohort in ("unseen", "others")]
    (told,) = re.findall(r"gain (\S+) on SSA and (\S+) on BraTS, where .*? brought (\S+) and (\S+)\.", said_of("third"))
    (shown,) = re.findall(r"gains (\S+) on SSA all the same, where the sound five brought (\S+)\.", text)
    assert all(same(*pair) for pair in zip((*told, *shown), (*expected, *expected[::2]), strict=True))


def test_what_is_said_of_the_third_clinic():
    text, rows, clinic = said_of("third"), clinic_rows(clinic="third"), "third"
    (told,) = re.findall(
        r"SSA gains (\S+) in the mean of \w+ orders .*? BraTS (\S+); after fifteen (\S+) .*? and (\S+) in", text
    )
    means = [
        fmean(gain(row, cohort, clinic) for (_order, sent), row in rows.items() if sent == corrections)
        for corrections in (5, 15)
        for cohort in ("unseen", "others")
    ]
    (shown,) = re.findall(r"brings (\S+) on SSA after five and (\S+) after fifteen", README.read_text(encoding="utf-8"))
    assert all(same(said, mean) for said, mean in zip((*told, *shown), (*means, means[0], means[2]), strict=True))
    cases, folds = results(FILES[clinic])["before"]["unseen"], results("cross_validation.json")["cases"]
    with_ssa = fmean(folds[case]["after"][region]["dice"] for case in cases["cases"] for region in REGIONS)
    (told,) = re.findall(r"use has ([\d.]+) on these .*? for hours ([\d.]+)\.", text)
    assert same(told[0], fmean(cases["mean"])) and same(told[1], with_ssa)
    (more,) = re.findall(r"eight cases, ([\d.]+) more on the third's", README.read_text(encoding="utf-8"))
    assert same(more, with_ssa - fmean(cases["mean"]))
    minutes = {n: [row["minutes"] for (_order, sent), row in rows.items() if sent == n] for n in (5, 15)}
    in_both = re.findall(r"took (\d+) to (\d+) minutes of one core, after fifteen (\d+) to (\d+)", text)
    in_both += re.findall(
        r"recipe (\d+) to (\d+) minutes after five and (\d+) to (\d+) after", README.read_text(encoding="utf-8")
    )
    expected = [round(end(minutes[n])) for n in (5, 15) for end in (min, max)]
    assert [[int(n) for n in told] for told in in_both] == [expected, expected]
    both = results(FILES[clinic])["both_cores"]
    for file in (CLINIC, README):
        assert f"by both cores {both['minutes']:.0f}" in file.read_text(encoding="utf-8") and both["sent"] == 15


def test_the_table_of_damaged_corrections_in_the_third_clinic():
    found = {row["damage"]: row for row in results(FILES["third"])["rows"] if row["damage"] != "sound"}
    table = table_after(CLINIC, "| damage | of five |")[1:]
    assert {name for name, *_ in table} == found.keys()
    for name, share, word, why, anchor, local in table:
        row = found[name]
        assert {"all": 1.0, "one": 0.1}[share] == row["damaged"] and row["sent"] == 5
        assert (VERDICTS[word], why) == (row["verdict"], "; ".join(row["failed"]))
        assert same(anchor, change_of(row, "anchor Dice")) and same(local, change_of(row, "local Dice"))


def test_what_the_gate_said_of_sound_corrections_and_how_long_it_took():
    text, found = CLINIC.read_text(), clinic_rows()
    (told,) = re.findall(r"Of (\d+) sound candidates after .*? more (\d+) were recommended and (\d+) refused", text)
    verdicts = [row["verdict"] for (_order, sent), row in found.items() if sent > 1]
    assert [int(n) for n in told] == [len(verdicts), verdicts.count("promote"), verdicts.count("refuse")]
    minutes = [row["cpu_minutes"] for row in found.values() if row["cpu_minutes"]]
    (told,) = re.findall(r"An improvement took (\d+) to (\d+) minutes of one CPU core", text)
    assert [int(n) for n in told] == [round(min(minutes)), round(max(minutes))]


def test_what_the_gate_said_of_damaged_corrections():
    (told,) = re.findall(r"damaged likewise, they gained ([\d.]+) and ([\d.]+)", CLINIC.read_text())
    for text, damage in zip(told, ("label mirrored", "t1n and t1c exchanged"), strict=True):
        (row,) = clinic_rows(damage).values()
        assert (row["verdict"], row["failed"], row["doubtful"]) == ("confirm", ["doubtful cases"], 3)
        assert abs(float(text) - change_of(row, "local Dice")) < 0.0005 and row["share"] == 0.5
        assert change_of(row, "anchor Dice") > -0.007


def test_what_intake_doubts():
    ways = results("intake_doubts.json")["ways"]
    names = {
        "sound": ["sound"],
        "labels mirrored; ED and ET exchanged": ["label mirrored", "ED and ET exchanged"],
        "NCR and ED exchanged": ["NCR and ED exchanged"],
        "labels moved by 15 mm": ["label moved by 15 mm"],
        "T1 and T1c exchanged": ["t1n and t1c exchanged"],
        "T1c and FLAIR, T2 and FLAIR, or T1 and T2 exchanged": [
            *("t1c and t2f exchanged", "t2w and t2f exchanged", "t1n and t2w exchanged")
        ],
        "one image moved by 10 mm, or mirrored": ["one image moved by 10 voxels", "one image mirrored"],
    }
    rows = dict(table_after(README, "| the case | doubted |")[1:])
    assert rows.keys() == names.keys() and sum(map(len, names.values())) == len(ways)
    for row, of_row in names.items():
        for way in (ways[name] for name in of_row):
            assert rows[row].removesuffix(" each") == f"{len(way['doubted'])} of {way['cases']}", row


def test_what_a_proposal_says_of_the_place_of_a_label_map():
    rows = results("proposal_place.json")["rows"]
    found = [
        sum(r["moved"] for r in rows if r["damage"] == d) for d in ("label moved by 15 mm", "label mirrored", "sound")
    ]
    (told,) = re.findall(
        r"of (\d+) cases of BraTS-Africa,.*?(\d+) of those moved by 15 mm, (\d+) of those mirrored, and no sound one",
        README.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert [*map(int, told), 0] == [len({row["case"] for row in rows}), *found]
