PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Two threads at most: more of them only wait for each other in networks this small.
export OMP_NUM_THREADS ?= 2
# Processes of tests: each takes a core and about 2 GB. A file's tests stay together, as they share what they set up.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format golden bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[vision,trackers,lora,labels]' --group dev
	touch $(STAMP)

demo: $(STAMP) ## find, repair and prove on a small network: writes demo-run/report.html
	$(BIN)/suture demo --out demo-run

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-all: $(STAMP) ## run the tests, the slow ones too
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m ''

check: $(STAMP) ## format, lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(STAMP) ## rewrite the golden lists that the tests compare with; review the diff
	$(BIN)/python -m tests.golden.write

bench: $(STAMP) ## run the benchmarks
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

clean: ## remove the environment and the demo's run
	rm -rf .venv demo-run
