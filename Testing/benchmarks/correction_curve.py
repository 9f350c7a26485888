"""`python Testing/benchmarks/correction_curve.py MODEL CASES OLD HELD_OUT`: what corrections do to a model.

A clinician is simulated: MODEL segments the cases one by one, each answer is corrected with the expert's labels and
sent through `segmamba correct` and `segmamba intake`, and after some of them a model is made: fine-tuned with replay
of OLD's cases, fine-tuned without, or trained anew on everything. Every model is scored on the cases of the fold that
nobody sends, and on cases of OLD that nobody trains on, for what it forgot. Everything goes through the command line.

CASES is a data set (`segmamba dataset init` and `split --folds`) of real cases that MODEL has not seen, OLD the data
set that it was trained on. A run that is stopped goes on where it was. Writes results/corrections.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from measure import STOPPED, describe, progress, segmamba, write_results

WAYS = {"replay": "fine-tuned, with replay", "alone": "fine-tuned, without replay", "retrain": "trained anew"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Dice on unseen cases against the number of corrections.")
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("old", type=Path, help="data set to replay")
    parser.add_argument("forgotten", type=Path, help="folder of labelled cases like OLD's, never trained on")
    parser.add_argument("--work", type=Path, default=Path("runs/corrections"))
    parser.add_argument("--after", type=int, nargs="+", default=[1, 3, 6], help="corrections")
    parser.add_argument("--ways", nargs="+", default=["replay", "alone"], choices=WAYS)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="of a fine-tuning")
    parser.add_argument("--retrain-steps", type=int, default=1300)
    options = parser.parse_args()
    manifest = json.loads((options.cases / "dataset.json").read_text(encoding="utf-8"))
    places = json.loads((options.cases / "splits.json").read_text(encoding="utf-8"))["subjects"]
    folders = {
        case["id"]: (options.cases / next(iter(case["images"].values()))["path"]).parent.resolve()
        for case in manifest["cases"]
    }
    fold_of = {case["id"]: places[case["subject"]] for case in manifest["cases"]}
    rows = []
    for fold in options.folds:
        unseen = sorted(case for case in folders if fold_of[case] == fold)
        sent = sorted((case for case in folders if fold_of[case] != fold), key=lambda case: (fold_of[case], case))
        sent = [case for pair in zip(sent[: len(sent) // 2], sent[len(sent) // 2 :]) for case in pair]
        rows += _fold(options, fold, {c: folders[c] for c in sent}, {c: folders[c] for c in unseen})
        write_results("corrections", {**describe(), "steps": options.steps, "rows": rows})
    for row in rows:
        scores = {name: np.round(row[name]["mean"], 3) for name in ("unseen", "old")}
        print(row["fold"], row["way"], row["sent"], scores)


def _fold(options, fold: int, sent: dict[str, Path], unseen: dict[str, Path]) -> list[dict]:
    work = options.work / f"fold{fold}"
    work.mkdir(parents=True, exist_ok=True)
    common = {"fold": fold, "unseen_cases": sorted(unseen)}
    before = {**common, "way": "before", "sent": 0, "trained": 0}
    rows = [{**before, **_score(options.model, work / "before", unseen, options.forgotten)}]
    corrections = work / "corrections"
    for count, (case, folder) in enumerate(sent.items(), 1):
        if not (work / f"sent{count}").exists():
            _send(options.model, work / "proposals", corrections, case, folder)
            (work / f"sent{count}").touch()
        data = work / f"intake{count}"
        if not data.exists():
            segmamba("intake", corrections, may_refuse=True)
            _freeze(corrections, data)
        trained = _places(data)
        for way in WAYS:
            run = work / f"{way}{count}"
            asked = way in options.ways and (
                count == max(options.after) if way == "retrain" else count in options.after
            )
            if not asked and not (run / "model").exists():
                continue  # what an earlier call has made is reported too
            progress(f"fold {fold}, {count} corrections, {WAYS[way]}")
            if not (run / "model").exists():
                _train(options, way, data, run)
            scores = _score(run / "model", run / "scores", unseen, options.forgotten)
            rows.append({**common, "way": way, "sent": count, **trained, **scores})
    return rows


def _send(model: Path, proposals: Path, corrections: Path, case: str, folder: Path) -> None:
    segmamba("predict", folder, "--output", proposals, "--model", model, "--device", "cpu")
    label = next(path for path in folder.iterdir() if "seg" in path.name)
    known = ("--convention", "brats2021", "--subject", case, "--role", "expert", "--consent")
    absent = _absent(label)
    segmamba(
        *("correct", folder, "--labels", label, "--proposal", proposals / f"{case}-seg.nii.gz"),
        *("--output", corrections, *known, *(part for name in absent for part in ("--empty", name))),
    )


def _absent(label: Path) -> list[str]:
    import nibabel as nib

    values = set(np.unique(np.asarray(nib.load(label).dataobj)).tolist())
    return [name for name, value in (("NCR", 1), ("ED", 2), ("ET", 4)) if value not in values]


def _freeze(corrections: Path, data: Path) -> None:
    """The data set as it is after this intake: its manifest and places beside a link to the submissions."""
    aside = data.with_suffix(".part")
    aside.mkdir(exist_ok=True)
    for name in ("dataset.json", "splits.json", "intake.json"):
        (aside / name).write_bytes((corrections / name).read_bytes())
    link = aside / "incoming"
    if not link.exists():
        link.symlink_to(os.path.relpath(corrections / "incoming", aside), target_is_directory=True)
    aside.rename(data)


def _places(data: Path) -> dict:
    rows = json.loads((data / "intake.json").read_text(encoding="utf-8"))["rows"]
    return {
        "trained": sum(row["status"] == "train" for row in rows),
        "refused": {row["name"]: [f["kind"] for f in row["findings"]] for row in rows if row["status"] in STOPPED},
    }


def _train(options, way: str, data: Path, run: Path) -> None:
    every = ("--set", "validation.every=1000000", "--set", "validation.at_start=false", "--resume", "auto")
    if way == "retrain":
        how = ("--retrain", data, "--replay", options.old, "--set", f"steps={options.retrain_steps}")
    else:
        replay = options.old if way == "replay" else "none"
        how = ("--finetune", data, "--model", options.model, "--replay", replay, "--set", f"steps={options.steps}")
    segmamba("train", *how, "--run-folder", run, "--device", "cpu", *every)


def _score(model: Path, output: Path, unseen: dict[str, Path], forgotten: Path) -> dict:
    """{"unseen", "old"}: {"mean": [WT, TC, ET], "cases": {case: [WT, TC, ET]}} of Dice on the cases' own grids."""
    found = {}
    for name, folders in (("unseen", unseen), ("old", {p.name: p for p in sorted(forgotten.iterdir()) if p.is_dir()})):
        answers, truths = output / name, output / f"{name}-truths"
        truths.mkdir(parents=True, exist_ok=True)
        for case, folder in folders.items():
            if not (answers / f"{case}-seg.nii.gz").exists():
                segmamba("predict", folder, "--output", answers, "--model", model, "--device", "cpu")
            label = next(path for path in folder.iterdir() if "seg" in path.name)
            if not (truths / f"{case}-seg.nii.gz").exists():
                (truths / f"{case}-seg.nii.gz").symlink_to(label.resolve())
        cases = json.loads(segmamba("evaluate", answers, truths, "--json"))["cases"]
        dice = {case: [scores["dice"][region] for region in ("WT", "TC", "ET")] for case, scores in cases.items()}
        found[name] = {"mean": np.mean(list(dice.values()), axis=0).tolist(), "cases": dice}
    return found


if __name__ == "__main__":
    main()
