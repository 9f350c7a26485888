"""`python Testing/benchmarks/poisoned_corrections.py MODEL CASES OLD`: are wrong corrections stopped?

Every case of CASES (a data set of real cases with folds) is sent sound and damaged in ways that happen: labels
mirrored, moved or exchanged, images exchanged. First: how many of each does `segmamba intake` refuse? Then, for some
of the ways: a person accepts all of them against its advice, MODEL is fine-tuned on those of two folds, and
`segmamba gate` judges the candidate on the third, which nobody damaged. Writes results/poisoned_corrections.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from measure import STOPPED, describe, print_table, progress, segmamba, write_results


def _exchange(one: int, other: int):
    return lambda label: np.where(label == one, other, np.where(label == other, one, label))


LABELS = {  # of BraTS 2021: 1 NCR, 2 ED, 4 ET
    "sound": lambda label: label,
    "label mirrored": lambda label: label[::-1],
    "label moved by 15 mm": lambda label: np.roll(label, (15, 0, 0), (0, 1, 2)),
    "NCR and ED exchanged": _exchange(1, 2),
    "ED and ET exchanged": _exchange(2, 4),
}
IMAGES = {f"{a} and {b} exchanged": (a, b) for a, b in (("t1n", "t1c"), ("t1c", "t2f"), ("t2w", "t2f"), ("t1n", "t2w"))}
TRAINED = ("sound", "label mirrored", "ED and ET exchanged", "t1n and t1c exchanged")


def main() -> None:
    parser = argparse.ArgumentParser(description="Are wrong corrections stopped by intake, or by the gate?")
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("old", type=Path, help="data set to replay")
    parser.add_argument("--work", type=Path, default=Path("runs/poisoned"))
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    manifest = json.loads((options.cases / "dataset.json").read_text(encoding="utf-8"))
    places = json.loads((options.cases / "splits.json").read_text(encoding="utf-8"))["subjects"]
    cases = {}
    for case in manifest["cases"]:
        folder = (options.cases / next(iter(case["images"].values()))["path"]).parent.resolve()
        cases[case["id"]] = (folder, places[case["subject"]])
    facts = {**describe(), "steps": options.steps, "intake": {}, "gate": {}}
    for damage in (*LABELS, *IMAGES):
        facts["intake"][damage] = _intake(options.work, damage, cases)
        write_results("poisoned_corrections", facts)
    for damage in TRAINED:
        facts["gate"][damage] = _gate(options, damage, cases)
        write_results("poisoned_corrections", facts)
    rows = [[d, f"{found['refused']}/{found['sent']}"] for d, found in facts["intake"].items()]
    print_table("refused by intake", ("sent", "refused"), rows)
    print_table("the gate", ("accepted by hand", "verdict"), [[d, f["verdict"]] for d, f in facts["gate"].items()])


def _place(work: Path, damage: str) -> Path:
    return work / damage.replace(" ", "-")


def _intake(work: Path, damage: str, cases: dict) -> dict:
    folder, names = _place(work, damage) / "corrections", {}
    known = folder.with_name("intake.json")
    if known.exists():  # of a run that was stopped
        return json.loads(known.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    for case, (source, _fold) in cases.items():
        progress(f"{damage}: {case}")
        names[_send(folder, source, case, damage)] = case
    rows = json.loads(segmamba("intake", folder, "--json", may_refuse=True))["rows"]
    refused = {names[row["name"]]: [f["kind"] for f in row["findings"]] for row in rows if row["status"] in STOPPED}
    found = {"sent": len(rows), "refused": len(refused), "why": refused}
    known.write_text(json.dumps(found), encoding="utf-8")
    return found


def _send(folder: Path, source: Path, case: str, damage: str) -> str:
    """The name of the submission."""
    aside = folder.parent / "case"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    exchanged = IMAGES.get(damage)
    swap = dict(zip(exchanged, exchanged[::-1])) if exchanged else {}
    for path in source.glob("*.nii.gz"):
        modality = path.name.removesuffix(".nii.gz").rpartition("-")[2].rpartition("_")[2]
        if modality == "seg":
            label = path
        else:
            (aside / f"case-{swap.get(modality, modality)}.nii.gz").symlink_to(path)
    image = nib.load(label)
    voxels = np.asarray(image.dataobj).astype(np.uint8)
    damaged = np.ascontiguousarray(LABELS.get(damage, LABELS["sound"])(voxels))
    nib.save(nib.Nifti1Image(damaged, image.affine), aside.parent / "label.nii.gz")
    absent = [name for name, value in (("NCR", 1), ("ED", 2), ("ET", 4)) if not (damaged == value).any()]
    empty = [part for name in absent for part in ("--empty", name)]
    place = segmamba(
        *("correct", aside, "--labels", aside.parent / "label.nii.gz", "--output", folder),
        *("--convention", "brats2021", "--subject", case, "--consent", *empty),
    )
    return Path(place.strip()).name


def _gate(options, damage: str, cases: dict) -> dict:
    """A fine-tuning on folds 1 and 2 as damaged, whatever intake says, judged on fold 0 as it is."""
    work = _place(options.work, damage)
    anchor = options.work / "anchor"
    if not (anchor / "dataset.json").exists():
        links = options.work / "anchor-cases"
        links.mkdir(parents=True, exist_ok=True)
        for case, (source, fold) in cases.items():
            if fold == 0 and not (links / case).exists():
                (links / case).symlink_to(source, target_is_directory=True)
        segmamba("dataset", "init", links, "--output", anchor)
    training, whole = work / "training", work / "sent"
    if not whole.exists():
        shutil.rmtree(training, ignore_errors=True)
        for case, (source, fold) in cases.items():
            if fold != 0:
                _send(training, source, case, damage)
        whole.touch()
    rows = json.loads(segmamba("intake", training, "--json", may_refuse=True))["rows"]
    refused = [row["name"] for row in rows if row["status"] in STOPPED]
    accept = [part for name in refused for part in ("--accept", name)]
    if accept:
        reason = ("--reason", "to see what the gate says")
        rows = json.loads(segmamba("intake", training, *accept, *reason, "--json", may_refuse=True))["rows"]
    run = work / "run"
    if not (run / "model").exists():
        progress(f"fine-tuning on cases with {damage}")
        segmamba(
            *("train", "--finetune", training, "--model", options.model, "--replay", options.old, "--run-folder", run),
            *("--set", f"steps={options.steps}", "--set", "validation.every=1000000"),
            *("--set", "validation.at_start=false", "--resume", "auto", "--device", "cpu"),
        )
    answer = segmamba(
        *("gate", run / "model", "--champion", options.model, "--anchor", anchor, "--local", training),
        *("--device", "cpu", "--json"),
        may_refuse=True,
    )
    report = json.loads(answer)
    return {
        "trained": sum(row["status"] == "train" for row in rows),
        "still_refused": sum(row["status"] in STOPPED for row in rows),
        "verdict": report["verdict"],
        "failed": [check["name"] for check in report["checks"] if not check["holds"]],
        "mean_change": {
            metric: {region: round(found["difference"], 3) for region, found in regions.items()}
            for metric, regions in report["anchor"]["comparison"].items()
        },
    }


if __name__ == "__main__":
    main()
