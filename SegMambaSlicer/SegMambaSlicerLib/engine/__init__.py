"""The engine as a child process: finding a Python and its packages, the worker that segments, one-off commands.

interpreter  the Python that runs the engine; dependencies: the packages it needs
client       starts the worker, asks it, hears it, cancels it
command      one command of the engine's command line, answered in JSON
"""
