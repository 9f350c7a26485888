"""The demonstration: a synthetic case is made, segmented, scored against its exact labels, and drawn.

The anatomy is that of the MNI152 template; nothing in it is patient data, so all of it may be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from segmamba.cases.case import MODALITIES, Source, find_case, load_case, load_label_map
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.errors import InputError
from segmamba.evaluation.evaluate import evaluate_folders
from segmamba.evaluation.picture import save_picture
from segmamba.files.atomic import is_left_by_system, make_folder
from segmamba.models.package import Model
from segmamba.prediction.options import PredictOptions, digest_images, output_files
from segmamba.prediction.predict import predict_case
from segmamba.prediction.result import check_place

SEED = 20_401  # far from the seeds of the training phantoms


def run_demo(model: Model, output: Path, device: str, progress: Callable[[str, float], None] | None = None) -> dict:
    """Makes a synthetic case, segments it, scores the result against the truth and draws both.

    Args:
        model: of the four modalities.
        output: folder of the case, the result and the picture; made where it does not exist.
        device: as torch names it.
        progress: told of each stage and of the fraction of it that is done, 0 to 1.

    Returns:
        {"summary": of the prediction, "scores": dice and hd95 per region, "picture": its path}.

    Raises:
        InputError: where `output` holds a case, a picture or a result that no demonstration made. Nothing was written.
    """
    case_id = "demo"
    folder, picture = output / "case", output / "demo.png"
    _check_place(folder, picture, case_id)
    options = PredictOptions(device=device, uncertainty=True)
    remove_earlier(output_files(output / "result", case_id, options), _images(folder))
    make_folder(folder)
    if progress:
        progress("make a phantom", 0.0)
    save_phantom(make_phantom(SEED, enhancing=True), folder, case_id)
    sources = find_case(folder, model.manifest.preprocess.modalities)
    truth_file = folder / f"{case_id}-seg.nii.gz"
    summary = predict_case(model, sources, output / "result", case_id, options, progress)
    prediction_file = output / "result" / summary["files"]["label_map"]
    scores = evaluate_folders(prediction_file, truth_file, convention="brats2023")["mean"]
    case = load_case(sources, case_id)
    maps = {
        "truth": load_label_map(truth_file, "brats2023", case),
        "SegMamba": load_label_map(prediction_file, "brats2023", case),
    }
    dice = ", ".join(f"{region} {value:.2f}" for region, value in scores["dice"].items())
    save_picture(case, maps, picture, f"synthetic case, model {summary['model']}: Dice {dice}")
    return {"summary": summary, "scores": scores, "picture": str(picture)}


def remove_earlier(files: Mapping[str, Path], images: Mapping[str, Source]) -> None:
    """Takes away the result of a demonstration, perhaps of another version with other phantoms.

    files: as of `output_files`. images: of the case beside it. Raises InputError where it was not made of these.
    """
    check_place(files, digest_images(images))
    for path in files.values():
        path.unlink(missing_ok=True)


def _check_place(folder: Path, picture: Path, case_id: str) -> None:
    """Raises InputError where the case or the picture would come among, or over, what no demonstration made."""
    own = {f"{case_id}-{name}.nii.gz" for name in (*MODALITIES, "seg")}
    inside = list(folder.iterdir()) if folder.is_dir() else []
    inside = [path for path in inside if path.name[0] != "." and not is_left_by_system(path)]
    foreign = sorted(path for path in inside if path.name not in own)
    if not inside and (picture.exists() or picture.is_symlink()):  # the case is made before the picture
        foreign = [picture]
    if foreign:
        raise InputError(
            f"{foreign[0]}: already exists, and no demonstration made it; choose another folder, or move what is there"
        )


def _images(folder: Path) -> dict[str, Source]:
    try:
        return find_case(folder)
    except InputError:
        return {}
