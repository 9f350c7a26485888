# `make demo` and `make test` set themselves up in .venv on a fresh machine, and may be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Test files are shared among so many processes, of one thread each: two threads in two processes on two cores wait for one another.
# In the order of Testing/engine/conftest.py, long files first; of itself pytest-xdist leaves files of few tests for the end.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-quick hostile index pictures lint format bench bench-loader gpu-check gpu-bench gpu-pack gpu-run clean

install: $(READY)

demo: $(READY)
	$(BIN)/python -m segmamba demo --output demo

test: $(READY)
	$(PYTEST) Testing/engine Testing/slicer Testing/hostile

# The inner loop: what is read, checked, segmented and scored, without a training; at most two minutes on two quiet cores.
QUICK := architecture docstrings settings labels label_files heads compare metrics lesion_wise registry share dataset_split configs \
	contrast_words dicom_find dicom_series image_io itk_header case_folder background incomplete postprocess inference requirements
test-quick: $(READY)
	$(PYTEST) \
		$(QUICK:%=Testing/engine/test_%.py) -k "not can_be_the_first_to_be_imported"

# Many hostile inputs and kills, with their counts; `make test` tries a few.
hostile: $(READY)
	SEGMAMBA_HOSTILE=$(or $(COUNT),1000) $(BIN)/python -m pytest Testing/hostile

# What the Extensions Index of 3D Slicer looks at.
index: $(READY)
	$(BIN)/python Testing/index/dry_run.py

# The tutorial's pictures of the panel, anew; minutes.
pictures: $(READY)
	$(BIN)/python Testing/support/tutorial_pictures.py

# DOC, on trial in ruff: no argument, result or yield is described that is not there.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff check --preview --select DOC102,DOC202,DOC403 Training
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python Testing/benchmarks/bench.py

bench-loader: $(READY)
	$(BIN)/python Testing/benchmarks/bench_loader.py

gpu-check: $(READY)
	$(BIN)/python Testing/benchmarks/gpu_check.py

gpu-bench: $(READY)
	$(BIN)/python Testing/benchmarks/gpu_bench.py

# One folder for a machine with a GPU and without network: DATASETS="runs/data/brats ..." ARGS="--patches crops.npz".
gpu-pack: $(READY)
	$(BIN)/python Testing/benchmarks/gpu_pack.py $(DATASETS) $(ARGS)

# All that a quarter hour of a GPU is for; there: python runs/gpu-pack/Testing/benchmarks/gpu_run.py --output OUT.
# ARGS="--dry" tries every step on the CPU at toy size.
gpu-run: $(READY)
	$(BIN)/python Testing/benchmarks/gpu_run.py --output runs/gpu-run --cases runs/gpu-pack/cases $(ARGS)

# Installed once, and again when what is installed changes.
$(READY): Training/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INSTALL_FLAGS) -c constraints.txt -e "Training[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo
