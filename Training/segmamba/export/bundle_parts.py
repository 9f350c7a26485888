"""What a MONAI bundle of one of our models needs beside MONAI: the model's grid, the way it is run, and file names.

`segmamba.export` copies this file, and whatever it imports, into the `scripts` folder of a bundle, where it works
without segmamba. Here it serves nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import CropForeground, CropForegroundd, InvertibleTransform, MapTransform, Transform
from torch import Tensor, nn

from segmamba.cases.case_folder import find_case, holds_image, is_aside, name_before, unnamed_images, volume_order
from segmamba.cases.clean import check_different, clean
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.files.atomic import subfolders
from segmamba.images.image_io import NIFTI, Image, Source, check_image, image_suffix, in_mm
from segmamba.images.resample import Axis, to_image, to_model
from segmamba.models.specs import InferenceSpec, PostprocessSpec
from segmamba.prediction.postprocess import postprocess, to_label_map
from segmamba.prediction.windows import predict
from segmamba.preparation.bias import correct_bias

log = logging.getLogger(__name__)


class CleanImaged(MapTransform):
    """What segmamba checks and mends as it reads a case, of (C, X, Y, Z) from LoadImaged, one channel a modality.

    Lengths in mm, NaN and infinity to 0, and so the outside of a head in MR; what is odd is logged. Raises InputError
    for another number of channels, an impossible geometry, an empty or constant channel, a mask, and two that are one.
    """

    def __init__(self, keys: Sequence[str] | str, modalities: Sequence[str]):
        super().__init__(keys)
        self.modalities = tuple(modalities)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with each image checked and mended."""
        return {**data, **{key: self._clean(data[key]) for key in self.key_iterator(data)}}

    def _clean(self, img: MetaTensor) -> MetaTensor:
        path = Path(str(img.meta.get("filename_or_obj", "case")))
        source = Source(path.with_name(_case_name(path, self.modalities)))  # of one case, not of one of its files
        if len(img) != len(self.modalities):
            raise InputError(f"{source}: {len(img)} channels; expected one each of {', '.join(self.modalities)}")
        header = nib.Nifti1Header()
        header["xyzt_units"] = int(img.meta.get("xyzt_units", 0))
        affine, notes = in_mm(np.asarray(img.affine), header)
        arrays = {}
        for modality, values in zip(self.modalities, img.as_tensor().detach().cpu().numpy()):
            image = check_image(Image(values, affine), source.path)
            arrays[modality], more = clean(image, modality, source)
            notes = (*notes, *more)
        check_different(arrays, dict.fromkeys(arrays, source))
        for note in dict.fromkeys(notes):
            log.warning("%s: %s", source, note)
        result = MetaTensor(np.stack([*arrays.values()]), meta=img.meta, applied_operations=img.applied_operations)
        result.affine = torch.as_tensor(affine, dtype=img.affine.dtype)
        return result


class CropHead(CropForeground):
    """Crops (C, X, Y, Z) to the voxels that are not 0 in any channel, `margin_mm` wider where the image goes on."""

    def __init__(self, margin_mm: float = 0.0):
        super().__init__(select_fn=_is_not_zero, allow_smaller=True)
        self.margin_mm = margin_mm

    def compute_bounding_box(self, img: Any) -> tuple[np.ndarray, np.ndarray]:
        """The corners of the box that is kept. Raises ValueError where every voxel is 0."""
        if not img.any():
            raise ValueError("every voxel of every channel is 0; expected an image")
        self.margin = [int(np.ceil(self.margin_mm / float(size) - 1e-6)) for size in img.pixdim]
        return super().compute_bounding_box(img)


class CropHeadd(CropForegroundd):
    """The same for dictionaries; the first key decides."""

    def __init__(self, keys: Sequence[str] | str, margin_mm: float = 0.0):
        names = [keys] if isinstance(keys, str) else list(keys)
        super().__init__(names, source_key=names[0])
        self.cropper = CropHead(margin_mm)


class CorrectBiasd(MapTransform):
    """Each channel of (C, D, H, W) freed of its bias field (N4)."""

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with each image freed of its bias field."""
        return {**data, **{key: self._correct(data[key]) for key in self.key_iterator(data)}}

    @staticmethod
    def _correct(img: MetaTensor) -> MetaTensor:
        spacing = [float(size) for size in img.pixdim]
        channels = [correct_bias(channel.numpy(), spacing) for channel in img.as_tensor().to("cpu", torch.float32)]
        return MetaTensor(np.stack(channels), meta=img.meta, applied_operations=img.applied_operations)


class ToModelGrid(InvertibleTransform):
    """To voxels of `spacing` mm and back: towards coarser ones by averages, else by linear interpolation.

    (C, D, H, W) in and out. MONAI's `Spacing` has no filter before coarsening: from 1 mm to 2 mm it keeps single voxels
    or averages two.
    """

    def __init__(self, spacing: Sequence[float]):
        self.spacing = tuple(spacing)

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) on the model's spacing; how to go back is kept with the image."""
        axes = [Axis.over(0, n, float(own), new) for n, own, new in zip(img.shape[1:], img.pixdim, self.spacing)]
        old = img.affine
        result = MetaTensor(_each(to_model, img, axes), meta=img.meta, applied_operations=img.applied_operations)
        places = np.diag([*(axis.step for axis in axes), 1.0])
        places[:3, 3] = [axis.centres()[0] for axis in axes]
        result.affine = old @ torch.as_tensor(places, dtype=old.dtype, device=old.device)
        self.push_transform(
            result,
            orig_size=tuple(img.shape[1:]),
            extra_info={"pixdim": [float(size) for size in img.pixdim], "affine": old.tolist()},
        )
        return result

    def inverse(self, img: MetaTensor) -> MetaTensor:
        """The image on the spacing that it had before."""
        done = self.pop_transform(img)
        info, sizes = done["extra_info"], done["orig_size"]
        axes = [Axis.over(0, int(n), own, new) for n, own, new in zip(sizes, info["pixdim"], self.spacing)]
        result = MetaTensor(_each(to_image, img, axes), meta=img.meta, applied_operations=img.applied_operations)
        result.affine = torch.as_tensor(info["affine"], dtype=img.affine.dtype)
        return result


class ToModelGridd(MapTransform, InvertibleTransform):
    """The same for dictionaries."""

    def __init__(self, keys: Sequence[str] | str, spacing: Sequence[float], allow_missing_keys: bool = False):
        super().__init__(keys, allow_missing_keys)
        self.grid = ToModelGrid(spacing)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with each image on the model's spacing."""
        return {**data, **{key: self.grid(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with each image on the spacing that it had before."""
        return {**data, **{key: self.grid.inverse(data[key]) for key in self.key_iterator(data)}}


class ModelInferer(SlidingWindowInferer):
    """Sliding windows as the model wants them: (B, C, D, H, W) any size -> mean probabilities (B, K, D, H, W).

    The image is padded at its end to what the network takes, a window is never larger than that, and the probabilities
    of each window are averaged, not its logits. nested: the output head (networks.heads). coarser: extra passes
    on voxels so many times as large. mirrorings: 0, 1, 3 or 7 extra passes with flipped axes; InputError is raised
    where names of label_map or regions tell sides apart.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        label_map: Mapping[str, int],
        regions: Mapping[str, Sequence[str]],
        overlap: float = 0.5,
        bf16: bool = True,
        fixed: bool = False,
        nested: Sequence[int] = (),
        coarser: Sequence[float] = (),
        mirrorings: int = 0,
    ):
        super().__init__(roi_size=tuple(roi_size), overlap=overlap, mode="gaussian")
        self.spec = InferenceSpec(
            window=cast(tuple[int, int, int], tuple(roi_size)),
            overlap=overlap,
            bf16=bf16,
            pad_to_window=fixed,
            nested=tuple(nested),
            coarser=tuple(coarser),
        )
        if mirrorings:
            _scheme(label_map, regions).check_mirroring("run without mirrorings")
        self.mirrorings = mirrorings

    def __call__(self, inputs: Tensor, network: nn.Module, *args: object, **kwargs: object) -> Tensor:
        """(B, C, D, H, W) -> mean probabilities (B, K, D, H, W), where the inputs are."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        results = [
            predict(network, image.float().cpu(), self.spec, device=inputs.device, mirrorings=self.mirrorings)
            for image in plain
        ]
        # a copy: what inference mode made must not be changed outside of it
        result = torch.stack([one.probabilities for one in results]).clone().to(inputs.device)
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result


class ToLabelMapd(MapTransform):
    """Label probabilities (K, X, Y, Z) on the image's own grid -> label map (1, X, Y, Z), without what is too small.

    label_map, regions, nested and the limits: as in the manifest of the model package.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        label_map: Mapping[str, int],
        regions: Mapping[str, Sequence[str]],
        nested: Sequence[int] = (),
        min_component_mm3: Mapping[str, float] | None = None,
        min_without_inner_mm3: Mapping[str, float] | None = None,
        min_total_mm3: Mapping[str, float] | None = None,
        allow_missing_keys: bool = False,
    ):
        super().__init__(keys, allow_missing_keys)
        self.scheme = _scheme(label_map, regions)
        self.nested = tuple(nested)
        self.limits = PostprocessSpec(
            min_component_mm3=dict(min_component_mm3 or {}),
            min_without_inner_mm3=dict(min_without_inner_mm3 or {}),
            min_total_mm3=dict(min_total_mm3 or {}),
        )

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data with probabilities turned into label maps."""
        return {**data, **{key: self._decode(data[key]) for key in self.key_iterator(data)}}

    def _decode(self, probabilities: MetaTensor) -> MetaTensor:
        label_map = to_label_map(probabilities.as_tensor().detach().cpu().numpy(), self.nested)
        label_map, _ = postprocess(label_map, np.asarray(probabilities.affine), self.limits, self.scheme)
        return MetaTensor(torch.from_numpy(label_map)[None].float()).copy_meta_from(probabilities)


def find_cases(folder: str, modalities: Sequence[str]) -> list[dict[str, list[str] | str]]:
    """What LoadImaged takes for every case in `folder`: {"image": one file a modality, in their order}.

    `folder` holds a folder a case (`CASE/CASE-t1c.nii.gz`, `CASE/CASE_flair.nii.gz`, ...), or is one itself, or holds
    files with one channel a modality. Which file is which, segmamba's own rule says (find_case). Hidden folders, those
    with nothing in them, and a file server's (recycle bins, previews) are passed by.

    Raises InputError for a case with a modality missing or there twice, in another format or with its channels in
    another order, and for two cases whose label maps would have one name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; set dataset_dir to the folder of the cases")
    folders = [each for each in subfolders(root) if not is_aside(each)]
    if holds_image(root, modalities):
        folders, files = [root, *folders], []
    else:
        files = unnamed_images(root)
    images: list[list[str] | str] = [_in_order(path, modalities) for path in files]
    images += [_files_of(each, modalities) for each in folders]
    if not images:
        raise InputError(f"{folder}: no cases; expected a folder a case with files that end in {', '.join(modalities)}")
    _check_names([Path(image if isinstance(image, str) else image[0]) for image in images], modalities)
    return [{"image": image} for image in images]


def case_namer(modalities: Sequence[str]) -> Callable[[Mapping, Transform], dict]:
    """For SaveImaged: calls a label map after its case, not after the case's first image.

    That is the image's name without the modality at its end, or its folder's where nothing else is left of it.
    """

    def name(metadata: Mapping, saver: Transform) -> dict:
        path = Path(str(metadata.get("filename_or_obj", "case")))
        return {"subject": _case_name(path, modalities), "idx": metadata.get("patch_index")}

    return name


def _case_name(path: Path, modalities: Sequence[str]) -> str:
    found = min((name_before(path, modality) for modality in modalities), key=len)
    return found or path.resolve().parent.name


def _check_names(images: Sequence[Path], modalities: Sequence[str]) -> None:
    """The label map of one patient would be written over that of another. images: one of each case."""
    known: dict[str, Path] = {}
    for image in images:
        name = _case_name(image, modalities)
        other = known.setdefault(name.casefold(), image)
        if other != image:
            raise InputError(
                f"{other} and {image}: the label maps of both would be {name}_seg; rename one of the cases"
            )


def _files_of(folder: Path, modalities: Sequence[str]) -> list[str] | str:
    sources = [*find_case(folder, modalities).values()]
    if sources[0].volume is not None:  # of one 4-D file
        return _in_order(sources[0].path, modalities)
    for source in sources:
        _check_format(source.path)
    return [str(source.path) for source in sources]


def _in_order(path: Path, modalities: Sequence[str]) -> str:
    """A file with one channel a modality, if nothing says that they stand in another order."""
    _check_format(path)
    order = volume_order(path)
    if order and order != tuple(modalities):
        raise InputError(
            f"{path}: its channels are {', '.join(order)}; expected {', '.join(modalities)}: write each to a file of "
            "its own, or all to one in this order"
        )
    return str(path)


def _check_format(path: Path) -> None:
    if path.is_dir() or image_suffix(path) not in NIFTI:
        raise InputError(f"{path}: this bundle reads NIfTI files alone; convert it to .nii.gz")


def _scheme(label_map: Mapping[str, int], regions: Mapping[str, Sequence[str]]) -> LabelScheme:
    return LabelScheme(labels=dict(label_map), regions={name: tuple(labels) for name, labels in regions.items()})


def _is_not_zero(image: Tensor) -> Tensor:
    return image != 0


def _each(change: Callable[[Tensor, Sequence[Axis]], Tensor], image: MetaTensor, axes: Sequence[Axis]) -> Tensor:
    return torch.stack([change(channel, axes) for channel in image.as_tensor().detach().to("cpu", torch.float32)])
