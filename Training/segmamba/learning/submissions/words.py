"""The words in which steps before a submission are told: of the trade, so that no name or place is made of them."""

WORDS = frozenset(
    """
    a above affine after agent ai aligned alignment all alone along already an anat and anonymised anonymized ants
    antspy applied are around as at atlas average away axes axial back background be before below bet bet2 better
    between bias bids both brain brains brats bright brighter brought bspline but by captk centre clipped contrast
    converted coregistered coronal corrected correction cropped cubic cut dcm2niix deface defaced deformable degrees
    deidentified denoised denoising des dicom direction done each elastix elsewhere extracted extraction fast field
    first fits flair flipped for found freesurfer from fsl gadolinium given greedy grid had has have hd hd-bet hdbet
    head histogram image images in intensities intensity interpolated interpolation is isotropic it itk its keep
    kept las left left-handed lies linear litre long looked lpi lps manual manually mask masked matched mean median
    method mirrored ml mm mni mni152 modalities modality monai motion moved mr mri mutual n3 n4 n4itk nearest
    neighbor neighbour nifti no noise none nonlinear normalisation normalised normalization normalized not note
    number oblique of on only onto or orientation oriented origin other out outside over padded part percent
    percentile percentiles plane posterior prepared preprocessed preprocessing qform rai ras raw reference
    reformatted registered registering registration removed removing reoriented resampled resampling rescaled
    resolution result right right-handed rigid rim rotated rotation sagittal same scaled scaling scalp scan scans
    series sform shape shifted shows sitk size skull skull-stripped skull-stripping skullstripped slice slicer
    slices smoothed space spacing spline sri24 stack standardised standardized step strip stripped stripping
    synthmorph synthseg synthstrip t1 t1c t1ce t1gd t1n t1w t2 t2f t2w template than that the them then there thick
    thin to together toolkit transformed translated translation two upright used using volume volumes voxel voxels
    was were whether whole window windowed with within without works x y z z-score z-scored zero zscored
    """.split()  # noqa: SIM905  as a list it would be a page
)
