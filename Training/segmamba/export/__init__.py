"""Export: a model package in the format of other software. The package itself stays what everything here uses.

bundle       a folder that MONAI runs and verifies without segmamba
program      a network as operators of torch alone, recorded by torch.export
parts        what a bundle needs beside MONAI; copied into it with all of ours that it imports
"""
