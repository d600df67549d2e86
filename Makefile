# ktserve: the index of verbs. Each installs what it needs: serving into .venv, the rest into .venv-dev.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONFIG ?= models/training/configs/assist2017/dkt_plus.toml
RUN    ?= runs/dkt-plus-assist2017
OUT    ?= artifacts/dkt/5
DEV     = .venv-dev/bin/python
PEERS   = fastapi-onnx fastapi-torch litserve bentoml
PIP     = install --disable-pip-version-check --no-input
PLAIN   = deploy/kubernetes/*.yaml deploy/kubernetes/examples/secret.yaml

.PHONY: serve test test-slow lint train evaluate export protocol gradients pictures bench bench-peers bench-gpu fuzz soak load bulk memory arrivals \
  overload chaos footprint options replay docs lock sbom audit manifests pin-images try-compose

# Serve on KT_HOST:KT_PORT (127.0.0.1:8000) with the shipped models and an embedded store
serve: .venv/ready
	@exec .venv/bin/python -m app

# What must hold at every commit: lint, types, import contracts, tests
test: lint .venv-deploy/ready
	$(DEV) -m pytest -m "not slow" -n 2 $(ARGS)

# And what takes longer: every other network exported and served, every benchmark run once
test-slow: .venv-dev/ready
	$(DEV) -m pytest -m slow -n 2 $(ARGS)

# Format, lint, types, import contracts
lint: .venv-dev/ready
	$(DEV) -m ruff format --check . && $(DEV) -m ruff check . && $(DEV) -m mypy && .venv-dev/bin/lint-imports

# Train a network: make train CONFIG=models/training/configs/assist2017/dkt_plus.toml
train: .venv-dev/ready
	$(DEV) -m models.training $(CONFIG)

# Measure a run or an artifact on its test split: make evaluate RUN=runs/dkt-plus-assist2017
evaluate: .venv-dev/ready
	$(DEV) -m models.evaluation $(RUN)

# One cell of the public protocols, resumed where it stopped: make protocol PROTOCOL=assist2009 MODEL=dkt [ARGS="--folds 0"]
protocol: .venv-dev/ready
	$(DEV) -m models.evaluation --protocol $(PROTOCOL) --model $(MODEL) $(ARGS)

# Draw the first steps of training with LayerNorm, with T-Fixup, with neither
gradients: .venv-dev/ready
	$(DEV) -m models.training.gradients docs/gradients.png $(ARGS)

# Draw the shipped models: AUC by history, by window, reliability
pictures: .venv-dev/ready
	$(DEV) -m models.evaluation.picture docs/auc-by-history.png artifacts/*/*
	$(DEV) -m models.evaluation.reliability_picture docs/reliability.png artifacts/*/*
	$(DEV) -m models.evaluation.windows artifacts/*/* --history 799 --lengths 25 50 100 200 400 800 --every 10 \
	  --out docs/auc-by-window.png

# Make a run servable: make export RUN=runs/dkt-plus-assist2017 OUT=artifacts/dkt/5
export: .venv-dev/ready
	$(DEV) -m export $(RUN) $(OUT)

# Speed beside its floors: the empty route, and the bare run of the model
bench: .venv-dev/ready
	$(DEV) -m benchmarks.serving $(ARGS)

# Other servers of the same model beside ktserve, each in an environment of its own
bench-peers: .venv-dev/ready $(PEERS:%=.venv-peers/%/ready)
	$(DEV) -m benchmarks.peers $(ARGS)

# Whatever may be sent, to the API and to all that reads bytes: no 500, no hang, no crash
fuzz: .venv-dev/ready .venv-fuzz/ready
	$(DEV) -m tests.fuzz $(ARGS)

# Many callers at a time, beside the empty route
load: .venv-dev/ready
	$(DEV) -m benchmarks.load $(ARGS)

# What it brings to hold what was made of the users seen last
memory: .venv-dev/ready
	$(DEV) -m benchmarks.memory $(ARGS)

# Calls of a thousand questions, beside the single route and the bare run
bulk: .venv-dev/ready
	$(DEV) -m benchmarks.bulk $(ARGS)

# The time of an answer against the load, requests coming at random
arrivals: .venv-dev/ready
	$(DEV) -m benchmarks.arrivals $(ARGS)

# What becomes of requests when more come than can be answered
overload: .venv-dev/ready
	$(DEV) -m benchmarks.overload $(ARGS)

# Faults one after the other under load: stores and servers killed, halted, cut, full, failed over
chaos: .venv-dev/ready
	$(DEV) -m benchmarks.chaos $(ARGS)

# What a service takes: bytes in the store, the time until it is ready, memory under random shapes
footprint: .venv-dev/ready
	$(DEV) -m benchmarks.footprint $(ARGS)

# An hour of requests of every shape at 60 % of what can be carried: what stays flat
soak: .venv-dev/ready
	$(DEV) -m benchmarks.soak $(ARGS)

# The shipped graphs on a GPU, beside torch on the same one
bench-gpu: .venv-gpu/ready
	.venv-gpu/bin/python -m benchmarks.gpu $(ARGS)

# Which session options pay, and how many windows should share a run
options: .venv-dev/ready
	$(DEV) -m benchmarks.options $(ARGS)

# Real students over HTTP: make replay DATA=log.csv [FOLDS=folds.csv FOLD=1] [USERS=40] [MODEL=dkt] [URL=...]
replay: .venv-dev/ready
	$(DEV) -m benchmarks.replay $(if $(DATA),--data $(DATA)) $(if $(FOLDS),--folds $(FOLDS)) $(if $(FOLD),--fold $(FOLD)) \
	  $(if $(USERS),--users $(USERS)) $(if $(MODEL),--model $(MODEL)) $(if $(URL),--url $(URL))

# Write openapi.json anew from the code
docs: .venv-dev/ready
	$(DEV) -m app --openapi > openapi.json

# Resolve the lock files anew; torch stands in none of them, for its build differs by machine
lock: .venv-dev/ready
	$(DEV) -m pip $(PIP) -q uv
	.venv-dev/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --extra tracing pyproject.toml -o requirements.lock
	.venv-dev/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --extra dev --no-emit-package torch $(if $(WHEELS),--find-links $(WHEELS)) \
	  -c requirements.lock pyproject.toml -o requirements-dev.lock

	.venv-dev/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" deploy/requirements.in -o deploy/requirements.lock

# Name every package that serving needs, with its hashes, in build/sbom.json (CycloneDX)
sbom: .venv-deploy/ready
	@mkdir -p build
	.venv-deploy/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml -o build/sbom.json requirements.lock

# Known holes in those packages; asks the advisory service of the package index
audit: .venv-deploy/ready
	.venv-deploy/bin/pip-audit --disable-pip --require-hashes -r requirements.lock

# Kubernetes manifests against their schemas, and alerts against series (where there is promtool)
manifests: .venv-deploy/ready
	@for version in 1.30 1.37; do .venv-deploy/bin/kubernetes-validate --strict -k $$version $(PLAIN) || exit 1; done
	@if command -v promtool > /dev/null; then promtool test rules deploy/prometheus/alerts_test.yml; \
	  else echo "promtool is not here: alerts were not tried"; fi

# Put today's digest behind every image's name; needs docker and its registries
pin-images:
	$(PYTHON) -m deploy.pin_images

# Build and start the production form for real, kill its parts, and count the answers; needs docker
try-compose:
	$(PYTHON) -m deploy.try_compose $(ARGS)

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ktserve needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip $(PIP) --no-deps --require-hashes -r requirements.lock
	@touch $@

.venv-dev/ready: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ktserve needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv --clear .venv-dev
	$(DEV) -m pip $(PIP) --no-deps torch==2.13.0
	$(DEV) -m pip $(PIP) --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# As .venv-dev, but for torch and ONNX Runtime with CUDA
.venv-gpu/ready: requirements-dev.lock
	$(PYTHON) -m venv --clear .venv-gpu
	.venv-gpu/bin/python -m pip $(PIP) --no-deps --require-hashes -r requirements-dev.lock
	.venv-gpu/bin/python -m pip uninstall -y onnxruntime
	.venv-gpu/bin/python -m pip $(PIP) 'onnxruntime-gpu[cuda,cudnn]>=1.31,<1.33' torch
	@touch $@

.venv-fuzz/ready: tests/fuzz/requirements.txt
	$(PYTHON) -m venv --clear .venv-fuzz
	.venv-fuzz/bin/python -m pip $(PIP) --no-deps -r $<
	@touch $@

.venv-deploy/ready: deploy/requirements.lock
	$(PYTHON) -m venv --clear .venv-deploy
	.venv-deploy/bin/python -m pip $(PIP) --no-deps --no-compile --require-hashes -r deploy/requirements.lock
	@touch $@

.venv-peers/%/ready: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip $(PIP) --no-deps -r $<
	@touch $@
