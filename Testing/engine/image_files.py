"""Small images written to disk for tests, by other hands than the engine's: nibabel and pydicom."""

import nibabel as nib
import numpy as np

SHAPE = (11, 14, 9)
AFFINE = np.eye(4)  # oblique, anisotropic, left-handed
AFFINE[:3, :3] = nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([-0.9, 1.2, 2.5])
AFFINE[:3, 3] = (20, -35, 12.5)
RIGHT_HANDED = AFFINE @ np.diag([1, -1, 1, 1])


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).uniform(1, 500, shape).astype(np.float32)


def write(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_dicom(folder, array, affine, series="1.2.3", first=0):
    """`array` (X, Y, Z) as slices of an MR series, by pydicom and the equations of DICOM PS3.3 C.7.6.2."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir(exist_ok=True)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{first + k + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(str(folder / "x"), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2", series
        data.Modality, data.SeriesDescription = "MR", f"series {series}"
        data.InstanceNumber = first + k + 1
        data.ImagePositionPatient = [f"{v:.6f}" for v in lps[:3] @ [0, 0, k, 1]]
        # rows of the file run along X: the first cosines are those of rising X, the second of rising Y
        data.ImageOrientationPatient = [f"{v:.8f}" for v in (*axes[:, 0], *axes[:, 1])]
        data.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        data.SliceThickness = f"{spacing[2]:.6f}"
        data.Columns, data.Rows = array.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = "2", "-7"
        data.PixelData = np.ascontiguousarray(array[:, :, k].T).astype("<i2").tobytes()
        # names that sort against the positions
        data.save_as(folder / f"{900 - first - k}.dcm", enforce_file_format=True)
    return folder
