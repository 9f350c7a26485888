"""Training: a configuration to a run folder with a log, checkpoints and a model package.

configuration  a TOML file (`config`); a recipe makes one from corrected cases (`recipes`)
experiment     what a configuration stands for before anything is learnt: cases, network, samples
sample         a patch of a preprocessed case, augmented
run folder     what was asked, with what, and a line for everything that happened
checkpoint     everything that is needed to go on
"""
