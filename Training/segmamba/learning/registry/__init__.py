"""The registry of a site's models: which one is in use, which were, and why. One click goes back.

    MODELS/models/NAME/       a package (models.package), never changed; NAME is its id and the start of its hash
    MODELS/registry.json      champion, the champions before it, the state of every model, and the history

registry.json is written aside and renamed while a lock is held, and only after the package it will name has been loaded
and found to be the one that was added. So it names a model that loads, whoever is killed when. Where the disk has
since damaged that model, or a newer program wrote it, `current` takes the one before it, and says so; `champion`, for
learning and judging, takes no other.

state    what registry.json says; can be read without torch
in_use   the model in use, found and checked
change   a model added, promoted, refused, or taken back

Nothing is imported here: what opens a package needs torch.
"""
