# One word per habit. `make demo` and `make test` work on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
# More test processes than cores: much of the time goes into waiting for processes to start, die and come back.
JOBS ?= 3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test style types web screenshots stress bench coverage pins golden clean

demo: $(READY)  ## the whole tree on the built-in exchange; Ctrl-C ends it
	@exec $(BIN)/mpengine demo

test: $(READY)  ## every test; long forms are `make stress`
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

style: $(READY)  ## lint, format, complexity, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Dead code: functions, methods, classes and imports that nothing names (fields and enum members are data).
	@! $(BIN)/vulture mpengine shm api supervisor bench tests | grep -E 'unused (function|method|class|import|property)' | grep -v '^tests/'

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

web:  ## type check and bundle of the dashboard (api/web/src), for who changes it; needs Node 20 and npm
	@test -d node_modules || npm ci --silent
	npm run -s check
	npm run -s build

screenshots: $(READY)  ## pictures of the dashboard for README and docs, of a demo with half a day of history (some minutes)
	$(BIN)/python -m tests.browser.screenshots

stress: $(READY)  ## races, kills and soaks in their long forms
	$(BIN)/python -m pytest -q -m stress

bench: $(READY)  ## every bench with its baselines; read the ratios
	$(BIN)/mpengine bench all

coverage: $(READY)  ## line and branch coverage of the test run
	$(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage combine
	$(BIN)/python -m coverage report

pins: $(READY)  ## what is installed beyond the pins (should print nothing)
	@$(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sort -f > .venv/installed
	@grep -hE '^[A-Za-z].*==' requirements.txt requirements-extras.txt requirements-dev.txt | sort -f | diff - .venv/installed || true

golden: $(READY)  ## write golden bodies, examples of /openapi.json and TypeScript types anew; review the diff
	$(BIN)/python -m tests.api.golden
	$(BIN)/python -m mpengine.contract.typescript > api/web/types/contract.d.ts

clean:
	rm -rf .venv .demo build node_modules *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Rebuilt when a pin changes; the project itself is installed in place, without dependencies of its own choosing.
$(READY): requirements.txt requirements-extras.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("mpengine needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
