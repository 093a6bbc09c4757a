# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed-$(shell cksum < requirements.lock | cut -d' ' -f1)
UV := $(shell sed -n 's/^uv==/uv==/p' requirements.lock)

.PHONY: help demo test test-all lint docs bench portability fuzz setup down lock
help:
	@echo "make demo   bring everything up and run one night on real handwritten digits"
	@echo "make test   run the whole test suite"
	@echo "make test-all  the same, and 500 steps of promotions in orders that nobody thought of"
	@echo "make lint   ruff and mypy"
	@echo "make docs   build the guide as a site in site/; a broken link is an error"
	@echo "make bench  measure, and write bench.json; PHOTOS=FOLDER of JPEGs adds decoding, networks at"
	@echo "            224 pixels, predictions and the endpoint, CIFAR10=FOLDER two hours of training"
	@echo "make portability  compare labels on emulated processors; FILES='MODEL.onnx IMAGES.npy' of yours"
	@echo "make fuzz   an hour of hostile inputs for every reader of foreign bytes; what fails is in fuzz-found/"
	@echo "make down   stop what make demo started"
	@echo "make lock   resolve requirements.lock again after a change in pyproject.toml"

setup: $(READY)

# The stamp carries the lock file's checksum, so set-up runs again only when the lock changed.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Nightshift needs Python 3.11, 3.12 or 3.13, got $$($(PYTHON) --version): set PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/installed-*
	@touch $@

demo: setup
	$(BIN)/nightshift up --detach
	$(BIN)/nightshift ingest --sample digits
	$(BIN)/nightshift run digits --wait

test: setup
	$(BIN)/pytest --numprocesses 2 --no-loadscope-reorder

test-all: setup
	NIGHTSHIFT_TEST_STEPS=500 $(BIN)/pytest --numprocesses 2 --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir site

bench: setup
	$(BIN)/python tests/bench/night.py
	$(BIN)/python tests/bench/train.py
	$(BIN)/python tests/bench/quantize.py $(PHOTOS)
	$(BIN)/python tests/bench/accuracy.py digits digits
	$(BIN)/python tests/bench/evaluate.py digits digits
	$(if $(CIFAR10),$(BIN)/python tests/bench/accuracy.py cifar10 $(CIFAR10) \
	  --set 'quantize.recipes=["fp32", "fp16", "int8", "int8-accuracy", "int8-qat", "binary"]')
	$(if $(CIFAR10),$(BIN)/python tests/bench/evaluate.py cifar10 $(CIFAR10))
	$(if $(CIFAR10),$(BIN)/python tests/bench/robustness.py cifar10 $(CIFAR10))
	$(if $(CIFAR10),$(BIN)/python tests/bench/int8_loss.py cifar10 $(CIFAR10) --set quantize.mirror=false)
	$(if $(PHOTOS),$(BIN)/python tests/bench/images.py $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python tests/bench/preprocess.py $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python tests/bench/predict.py $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python tests/bench/serving.py $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python tests/bench/endpoint.py $(PHOTOS))

portability: setup
	$(BIN)/python tests/bench/portability.py $(FILES)

fuzz: setup
	$(BIN)/python tests/bench/fuzz.py 3600 fuzz-found

down:
	$(BIN)/nightshift down

lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --all-extras pyproject.toml --output-file requirements.lock
