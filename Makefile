# Everything is done from here: `make run` and `make test` set up what they need.
VENV := .venv
PY := $(VENV)/bin/python
BOOK :=

.PHONY: setup run ui test check bench peers lock

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

run: setup
	$(VENV)/bin/learning run $(if $(TRADES),--trades "$(TRADES)") $(if $(BOOK),--book "$(BOOK)")

ui: setup
	$(VENV)/bin/learning ui $(if $(BOOK),--book "$(BOOK)")

test: setup
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup
	$(PY) bench/honesty.py
	$(PY) bench/quality.py --seeds 1-1
	$(PY) bench/mining.py

# What `bench/mining.py` compares with, if it is there. Not locked; one of them needs a C compiler.
# pysubgroup asks for an older numpy than ours, and runs with it: the lock has the last word.
peers: setup
	$(PY) -c "import tomllib; f = open('pyproject.toml', 'rb'); \
		print('\n'.join(tomllib.load(f)['dependency-groups']['peers']))" > $(VENV)/peers.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/peers.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-strip-extras --group dev pyproject.toml -o requirements.lock
