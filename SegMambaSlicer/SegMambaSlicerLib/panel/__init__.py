"""The parts of the panel: each ties some widgets of the .ui file to the parameter node and the logic."""
