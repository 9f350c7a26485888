"""Slicer's self test of the module: seconds, on Slicer's own scene, without torch, network, or main window."""

from __future__ import annotations

import shutil
import unittest

import numpy as np
import slicer

from .parameters import Parameters
from .report import scrub
from .results import succession
from .results.places import placesToCheck
from .results.segments import createSegmentation, labelArray, switchRepresentation
from .results.statistics import updateTable
from .results.uncertainty import addUncertainty
from .volumes.checks import checkVolumes
from .volumes.modalities import guessModalities
from .volumes.scene import exportCase, exportVolume, readLabelMap
from .volumes.temporary import temporaryFolder

SHAPE = (13, 17, 11)  # slices, rows, columns: no two alike


def makeVolumes() -> dict:
    """Four small volumes on one left-handed grid."""
    random = np.random.default_rng(1)
    matrix = np.diag([-1.0, 1.0, 2.0, 1.0])
    names = {"t1n": "T1", "t1c": "T1 Gd", "t2w": "T2", "t2f": "FLAIR"}
    return {
        modality: slicer.util.addVolumeFromArray(random.integers(1, 900, SHAPE).astype(np.int16), matrix, name)
        for modality, name in names.items()
    }


def makeLabels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:10, 4:13, 2:8] = 2
    labels[4:9, 6:11, 3:7] = 3
    labels[5:8, 7:10, 4:6] = 1
    return labels


class SceneTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear(0)
        self.volumes = makeVolumes()

    def tearDown(self):
        slicer.mrmlScene.Clear(0)

    def testVolumesAreRecognised(self):
        found = {modality: guess.node for modality, guess in guessModalities().items()}
        self.assertEqual(found, self.volumes)
        self.assertEqual(checkVolumes(self.volumes), [])

    def testTheSameVolumeTwiceIsNoticed(self):
        twice = {**self.volumes, "t1n": self.volumes["t1c"]}
        self.assertIn("duplicate", {problem.kind for problem in checkVolumes(twice)})

    def testImagesGoOutAndComeBack(self):
        folder = temporaryFolder()
        self.addCleanup(shutil.rmtree, folder)
        images = exportCase(self.volumes, folder)
        labels = slicer.util.addVolumeFromArray(makeLabels(), np.diag([-1.0, 1.0, 2.0, 1.0]), "labels")
        path = exportVolume(labels, folder / "labels.nii")
        self.assertEqual(set(images), set(self.volumes))
        self.assertTrue(np.array_equal(readLabelMap(path, self.volumes["t1c"]), makeLabels()))

    def testSegmentsAreMadeSwitchedAndUndone(self):
        first = createSegmentation(makeLabels(), self.volumes["t1c"])
        # as sets: other parts of a running Slicer may order segments anew, and nothing of the module relies on it
        self.assertEqual(set(first.GetSegmentation().GetSegmentIDs()), {"NCR", "ED", "ET"})
        switchRepresentation(first, "regions")
        self.assertEqual(set(first.GetSegmentation().GetSegmentIDs()), {"WT", "TC", "ET"})
        self.assertTrue(np.array_equal(labelArray(first)[0], makeLabels()))
        second = createSegmentation(np.zeros(SHAPE, np.uint8), self.volumes["t1c"], first)
        self.assertIs(succession.restorePrevious(second), first)

    def testVolumesAreInMilliliters(self):
        segmentation = createSegmentation(makeLabels(), self.volumes["t1c"])
        table = updateTable(segmentation)
        self.assertAlmostEqual(float(table.GetCellText(0, 1)), 7 * 9 * 6 * 2 / 1000, places=2)

    def testUncertainPlacesAreFound(self):
        unsure = np.where(makeLabels() == 3, 0.9, 0.0).astype(np.float32)
        places = placesToCheck(addUncertainty(unsure, self.volumes["t1c"]))
        self.assertTrue(places)
        self.assertTrue(-12 < places[0].ras[0] < 0)

    def testStateIsKeptInTheParameterNode(self):
        parameters = Parameters(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
        self.assertEqual(parameters.mirrorings, 0)
        parameters.set("Mirrorings", 7)
        parameters.setVolume("t1c", self.volumes["t1c"])
        again = Parameters(parameters.node)
        self.assertEqual(again.mirrorings, 7)
        self.assertIs(again.volume("t1c"), self.volumes["t1c"])


class ReportTest(unittest.TestCase):
    def testReportsHoldNoNames(self):
        text = scrub('read "/data/Jane Doe/t1.nii" of Jane Doe', {"Jane Doe"})
        self.assertNotIn("Jane", text)
        self.assertIn("read", text)
