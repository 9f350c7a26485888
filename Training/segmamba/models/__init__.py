"""Models: weights with a manifest that says everything the weights cannot.

package      a folder with model.safetensors, model.json (the manifest) and MODEL_CARD.md
spec         what a model wants to see (`PreprocessSpec`) and how it is run (`InferenceSpec`); part of the manifest
published    checkpoints as the authors and users of SegMamba share them
"""
