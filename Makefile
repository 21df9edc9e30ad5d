# SPDX-License-Identifier: Apache-2.0

SWIFT ?= swift
VENV ?= .venv
TRITON_VENV = $(VENV)-triton
EVALUATION_VENV = $(VENV)-lmeval
MODEL ?= deploy/models/switch-mini

# Both kinds of build stay side by side in .build: release for people, debug for tests.
#
# The release links Swift's libraries into the executable and leaves out the run-time checks for overlapping accesses, which the
# tests' build keeps: together these take a third off a small call's round trip (docs/benchmarks.md). Debug information costs up
# to a fifth of a compiler's time: C and C++ get none, and Swift only what a backtrace needs.
RELEASE = $(SWIFT) build -c release --product switchyard --static-swift-stdlib -Xswiftc -enforce-exclusivity=unchecked \
    -Xcc -g0 -Xcxx -g0 -Xswiftc -gline-tables-only

# The same for the benchmarks' program, and for the fault suite's, which is in no product.
RELEASE_BENCH = $(subst --product switchyard,--product switchyard-bench,$(RELEASE))
RELEASE_FAULTS = $(subst --product switchyard,--product switchyard-faults,$(RELEASE))
FAULTS = "$$($(RELEASE) --show-bin-path)/switchyard-faults"
FAULT_SECONDS ?= 30
SOAK_MINUTES ?= 30

.PHONY: help build demo test build-tests environments peers-cpp converter converter-for-ci lm-eval lm-eval-for-ci faults faults-train soak fuzz sanitize bare-check package package-check wheel python-versions lint format bench bench-calls bench-kernels bench-layers \
    bench-model bench-dense bench-full-shape bench-peers bench-http bench-batch bench-train bench-distil bench-frozen build-bench pictures simulation simulate-faults simulate-seeds planted-bugs protos tables clean image deploy-check deploy-test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

build: ## build the switchyard executable (release)
	@deploy/install-packages.sh build
	$(RELEASE)

demo: ## run a whole cluster on this machine: some prompts, and where their tokens went
	@deploy/install-packages.sh build
	@echo "Building switchyard (release); the first build takes a few minutes."
	@$(RELEASE)
	@"$$($(RELEASE) --show-bin-path)/switchyard" demo --model $(MODEL) --pools 4

test: ## run the whole test suite, as continuous integration does
	@deploy/install-packages.sh test
	@$(MAKE) --no-print-directory -j 2 build-tests environments
	SWIFT="$(SWIFT)" SWITCHYARD_TEST_PYTHON="$(abspath $(VENV))/bin/python" \
	    SWITCHYARD_TEST_CONVERTER="$(abspath $(VENV)-converter)/bin/python" python3 deploy/check/tests.py $(TESTS)

# Continuous integration debugs nothing, so it leaves out what only debuggers use. The tests are found in the index.
build-tests:
	$(SWIFT) build --build-tests $(if $(CI),-Xcc -g0 -Xcxx -g0 -Xswiftc -gline-tables-only)

# Installed while the tests are built.
environments: $(VENV)/.ready $(TRITON_VENV)/.ready peers-cpp converter-for-ci lm-eval-for-ci

faults: ## inject faults into clusters under load: the tables of docs/reliability.md (about 26 minutes, as root)
	@deploy/install-packages.sh faults
	$(RELEASE)
	$(RELEASE_FAULTS)
	@mkdir -p .build/faults
	$(FAULTS) run --seconds $(FAULT_SECONDS) --markdown .build/faults/table.md --json .build/faults/figures.json \
	    --artifacts .build/faults/logs

TRAIN_STEPS_UNDER_FAULTS ?= 400
faults-train: ## train with experts on hosts under faults, and compare the weights' bits (docs/reliability.md; as root)
	@deploy/install-packages.sh faults
	$(RELEASE)
	$(RELEASE_FAULTS)
	$(FAULTS) train --steps $(TRAIN_STEPS_UNDER_FAULTS)

soak: ## half an hour of random faults: ids and memory must stay the same (docs/reliability.md)
	@deploy/install-packages.sh faults
	$(RELEASE)
	$(RELEASE_FAULTS)
	@mkdir -p .build/faults
	$(FAULTS) soak --minutes $(SOAK_MINUTES) --csv .build/faults/soak.csv --svg .build/faults/soak.svg \
	    --artifacts .build/faults/logs

# Puts this machine's build into the image; `docker build -f deploy/Containerfile -t switchyard .` compiles in another image.
IMAGE ?= switchyard
image: build ## build a container image of the release build
	deploy/image/collect-root.sh .build/release/switchyard .build/image/root
	docker build --file deploy/Containerfile --tag $(IMAGE) --build-arg BINARY=prebuilt \
	    --build-arg REVISION="$$(git rev-parse HEAD)" .

# A program of swift-argument-parser writes the man pages, from the executable's own description of its commands.
PACKAGES = .build/package
MANUAL = .build/manual
package: build ## build a Debian package and a tarball of the release build
	@deploy/install-packages.sh package
	$(SWIFT) build --package-path .build/checkouts/swift-argument-parser --scratch-path "$(abspath $(MANUAL))" \
	    --product generate-manual
	deploy/package/make.sh .build/release/switchyard $(MANUAL)/debug/generate-manual $(PACKAGES)

package-check: ## install the Debian package on a bare Debian 12 and run the miniature model, as root (a minute)
	deploy/bare-check.sh --package $(PACKAGES)/switchyard_*.deb

# Everything in it is Python, so one wheel is for all machines; the date of the last commit makes it the same bytes each time.
WHEELS ?= .build/python
wheel: ## build the Python package's wheel (python/README.md)
	@deploy/install-packages.sh python
	@[ -x .build/wheel/bin/python ] || python3 -m venv .build/wheel
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 315532800) .build/wheel/bin/python -m pip wheel --quiet \
	    --disable-pip-version-check --no-deps --wheel-dir "$(abspath $(WHEELS))" ./python

# On the wheel, in environments of their own: each version that is found, and one of them with the oldest libraries allowed.
PYTHONS ?= python3.9 python3.10 python3.11 python3.12 python3.13
python-versions: wheel build ## test the Python package with each version of Python that is found (minutes)
	SWITCHYARD_BINARY="$$($(RELEASE) --show-bin-path)/switchyard" python/tests/versions.sh $(WHEELS) $(PYTHONS)

deploy-check: ## check every deploy file with schemas and tools, without bringing anything up (docs/deployment.md)
	deploy/check/check.sh

deploy-test: build ## bring the deploy files up in container engines and send requests (10 minutes; docs/deployment.md)
	deploy/test/run.sh

# The seeds of a run are fixed, so it can be repeated; docs/testing.md says how to run an input again.
FUZZ_RUNS ?= 1000000
FUZZ_TARGETS ?= safetensors torch pickle configuration weight-index adapter manifest part-manifest placement hub-listing \
    pieces tokenizer-json tokenizer-settings settings certificates
fuzz: ## run a million mutated files of each kind through their readers (an hour; docs/testing.md)
	@deploy/install-packages.sh build
	$(subst --product switchyard,--product switchyard-fuzz,$(RELEASE))
	@for target in $(FUZZ_TARGETS); do "$$($(RELEASE) --show-bin-path)/switchyard-fuzz" $$target --runs $(FUZZ_RUNS) \
	    --corpus Tests/Fuzzing/Corpus --artifacts .build/fuzz || exit 1; done

sanitize: ## run the network's suites under ThreadSanitizer and AddressSanitizer (docs/testing.md)
	@deploy/install-packages.sh sanitize
	SWIFT=$(SWIFT) Tests/Sanitizers/run.sh thread
	SWIFT=$(SWIFT) Tests/Sanitizers/run.sh address

# QUICK=1 leaves out the builds and takes a few minutes.
bare-check: ## run demo, test and package on a bare Debian 12, as root (an hour; QUICK=1: minutes; docs/testing.md)
	deploy/bare-check.sh $(if $(QUICK),--quick)

# Other people's gRPC clients, with which the tests call the cluster, and what the Python package's own tests need.
PYTHON_REQUIREMENTS = Tests/Peers/requirements.txt python/tests/requirements.txt
$(VENV)/.ready: $(PYTHON_REQUIREMENTS) deploy/install-packages.sh
	@deploy/install-packages.sh test
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(PYTHON_REQUIREMENTS))
	@touch $@

# NVIDIA's client wants another protobuf than the others, so it has an environment of its own.
$(TRITON_VENV)/.ready: Tests/Peers/requirements-triton.txt deploy/install-packages.sh
	@deploy/install-packages.sh test
	python3 -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r Tests/Peers/requirements-triton.txt
	@touch $@

# lm-evaluation-harness brings along most of a gigabyte; without it, the test that runs it is skipped, but not in CI.
lm-eval: $(EVALUATION_VENV)/.ready ## install lm-evaluation-harness, which a test runs against a cluster (large)
$(EVALUATION_VENV)/.ready: Tests/Peers/requirements-lm-eval.txt deploy/install-packages.sh
	@deploy/install-packages.sh test
	python3 -m venv $(EVALUATION_VENV)
	$(EVALUATION_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r Tests/Peers/requirements-lm-eval.txt
	@touch $@

# CTranslate2's converter needs PyTorch, which is large; without it, the test that converts a student is skipped, but not in CI.
CONVERTER_REQUIREMENTS = Tests/Peers/converter-requirements.txt
converter: $(VENV)-converter/.ready ## install CTranslate2, whose converter a test calls (PyTorch is large)
$(VENV)-converter/.ready: $(CONVERTER_REQUIREMENTS)
	@deploy/install-packages.sh test
	python3 -m venv $(VENV)-converter
	$(VENV)-converter/bin/python -m pip install --quiet --disable-pip-version-check -r $(CONVERTER_REQUIREMENTS)
	@touch $@

converter-for-ci:
	@if [ -n "$$CI" ]; then $(MAKE) --no-print-directory converter; fi

lm-eval-for-ci:
	@if [ -n "$$CI" ]; then $(MAKE) --no-print-directory lm-eval; fi

# Small clients over gRPC's C++ library; without it, tests that need them are skipped, but not in CI.
peers-cpp: $(VENV)/.ready
	@if [ -n "$$CI" ] || command -v grpc_cpp_plugin >/dev/null; then \
	    $(MAKE) --no-print-directory -C Tests/Peers/cpp OUT="$(abspath .build/peers)"; \
	else echo "note: no grpc_cpp_plugin; the tests with gRPC's C++ library are skipped"; fi

lint: ## check formatting and documentation comments
	$(SWIFT) format lint --strict --recursive --parallel Sources Tests Package.swift

format: ## rewrite the sources in the project's format
	$(SWIFT) format --in-place --recursive --parallel Sources Tests Package.swift

pictures: ## draw the documents' pictures from docs/images/data
	$(SWIFT) build --product switchyard-bench
	"$$($(SWIFT) build --show-bin-path)/switchyard-bench" pictures

# The simulator's figures for docs/simulation.md, and those of a small cluster, which tests run again (ten minutes).
IMAGE_DATA = docs/images/data
simulation: build-bench ## run the simulator and write its figures, picture and table into docs
	$(WORKSHOP) simulate --json --steps 1000 > $(IMAGE_DATA)/simulation.json
	$(WORKSHOP) simulate --json --steps 200 --hosts 16 --experts 64 --sequences 2 > $(IMAGE_DATA)/simulation-small.json
	$(WORKSHOP) pictures

SEEDS ?= 1000
simulate-faults: build-bench ## run SEEDS whole clusters under drawn faults in virtual time (docs/simulation.md)
	$(WORKSHOP) simulate-faults --seeds $(SEEDS) --require-rare-states

# The simulator alone, without the rest of the program, is built in a minute or two.
simulate-seeds: ## the same SEEDS with a build of the simulator alone, as continuous integration does
	@deploy/install-packages.sh build
	SWIFT=$(SWIFT) Tests/planted-bugs/run.sh seeds $(SEEDS)

planted-bugs: ## find the bugs of Tests/planted-bugs with the simulator: a table (10 minutes; docs/simulation.md)
	@deploy/install-packages.sh build
	SWIFT=$(SWIFT) Tests/planted-bugs/run.sh

# The benchmarks use a float32 checkpoint of switch-base-8's full shape, which is made if MODEL_FULL names no folder with one.
# PEER_PYTHON runs the peers, and HIVEMIND_PYTHON runs hivemind, which needs other versions of the same packages. Peers that
# cannot be imported are skipped, and the tables say so.
BENCH = .build/bench
MODEL_FULL ?= $(BENCH)/switch-base-8
PEER_PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
HIVEMIND_PYTHON ?= $(PEER_PYTHON)
BENCH_ROUNDS ?= 5
BENCH_THREADS ?= 2
WORKSHOP = .build/release/switchyard-bench

build-bench: build ## build switchyard and switchyard-bench (release)
	$(RELEASE_BENCH)

bench: build-bench bench-calls bench-kernels bench-layers bench-model ## run all benchmarks of docs/benchmarks.md
	@echo "Tables, JSON and plots are in $(BENCH)."

bench-calls: build-bench ## benchmark calls between two processes beside raw sockets; bench-peers compares them with other implementations
	@mkdir -p $(BENCH)
	$(WORKSHOP) rpc --unix --rounds $(BENCH_ROUNDS) --markdown > $(BENCH)/rpc.md && cat $(BENCH)/rpc.md

bench-kernels: build-bench ## benchmark products with cold weights, beside OpenBLAS and a plain read loop
	@mkdir -p $(BENCH)
	$(WORKSHOP) kernels --markdown --json $(BENCH)/kernels.json > $(BENCH)/kernels.md && cat $(BENCH)/kernels.md

bench-layers: build-bench ## benchmark one remote sparse layer beside hivemind's, and 8 to 2,048 experts
	@mkdir -p $(BENCH)
	$(WORKSHOP) experts --markdown --json $(BENCH)/experts.json > $(BENCH)/experts.md && cat $(BENCH)/experts.md
	$(WORKSHOP) stages --markdown > $(BENCH)/stages.md && cat $(BENCH)/stages.md
	$(WORKSHOP) compare --markdown --rounds $(BENCH_ROUNDS) --size-name tokens --title "One remote sparse layer" \
	    --json $(BENCH)/remote-layer.json --svg $(BENCH)/remote-layer.svg --baseline hivemind \
	    --system "Switchyard=$(WORKSHOP) experts --turns" \
	    --system "hivemind=$(HIVEMIND_PYTHON) Tests/Peers/bench_hivemind.py --turns" > $(BENCH)/remote-layer.md && cat $(BENCH)/remote-layer.md
	$(WORKSHOP) scale --markdown --json $(BENCH)/scale.json > $(BENCH)/scale.md && cat $(BENCH)/scale.md
	$(WORKSHOP) plot $(BENCH)/scale.json --svg $(BENCH)/scale.svg

# One system per line; TURN_SYSTEMS may add more, each as --system "name=command".
TURNS = $(WORKSHOP) model --turns --threads $(BENCH_THREADS) $(MODEL_FULL)
CLUSTER_TURNS = $(WORKSHOP) cluster --turns --threads $(BENCH_THREADS) --host-threads $(BENCH_THREADS) $(MODEL_FULL)
TORCH_TURNS = $(PEER_PYTHON) Tests/Peers/bench_transformers.py --turns --threads $(BENCH_THREADS) --model $(MODEL_FULL)
DENSE_TURNS = $(PEER_PYTHON) Tests/Peers/bench_ctranslate2.py --turns --threads $(BENCH_THREADS) --model $(BENCH)/t5-base
bench-model: build-bench ## benchmark decoding and encoding in turn with transformers and CTranslate2
	@mkdir -p $(BENCH)
	@[ -f "$(MODEL_FULL)/config.json" ] || \
	    $(PEER_PYTHON) Tests/Fixtures/make_full_shape.py "$(MODEL_FULL)" --threads $(BENCH_THREADS) || \
	    echo "skipped: the full shape needs torch and transformers: set PEER_PYTHON to a Python that has them"
	@if [ -f "$(MODEL_FULL)/config.json" ]; then $(MAKE) --no-print-directory bench-full-shape; else \
	    $(WORKSHOP) model $(MODEL) --markdown && $(WORKSHOP) cluster $(MODEL) --markdown; fi

bench-full-shape: build-bench
	@mkdir -p $(BENCH)
	for dtype in float32 bfloat16 int8; do \
	    $(WORKSHOP) model $(MODEL_FULL) --threads $(BENCH_THREADS) --dtype $$dtype --name "$$dtype" --markdown \
	        --json $(BENCH)/model-$$dtype.json > $(BENCH)/model-$$dtype.md && cat $(BENCH)/model-$$dtype.md || exit 1; done
	$(WORKSHOP) compare --markdown --rounds $(BENCH_ROUNDS) --title "switch-base-8's shape, tokens per second" \
	    --json $(BENCH)/compare.json --svg $(BENCH)/compare.svg --baseline "transformers, float32" \
	    --system "Switchyard, float32=$(TURNS)" \
	    --system "Switchyard, bfloat16=$(TURNS) --dtype bfloat16" \
	    --system "Switchyard, int8=$(TURNS) --dtype int8" \
	    --system "cluster, float32=$(CLUSTER_TURNS)" \
	    --system "transformers, float32=$(TORCH_TURNS)" \
	    --system "transformers, bfloat16=$(TORCH_TURNS) --dtype bfloat16" \
	    --system "CTranslate2 dense, float32=$(DENSE_TURNS)" \
	    --system "CTranslate2 dense, int8=$(DENSE_TURNS) --compute-type int8" \
	    $(TURN_SYSTEMS) > $(BENCH)/compare.md && cat $(BENCH)/compare.md

# One model for all three: bench_ctranslate2.py makes it on its first run, and keeps it in both layouts.
T5_BASE = $(BENCH)/t5-base/checkpoint
DENSE_SWITCHYARD = $(WORKSHOP) model --turns --threads $(BENCH_THREADS) $(T5_BASE)
DENSE_TORCH = $(PEER_PYTHON) Tests/Peers/bench_transformers.py --turns --threads $(BENCH_THREADS) --model $(T5_BASE)
bench-dense: build-bench ## benchmark dense T5-base's shape in turn with CTranslate2 and transformers
	@mkdir -p $(BENCH)
	@[ -f "$(T5_BASE)/config.json" ] || \
	    $(PEER_PYTHON) Tests/Peers/bench_ctranslate2.py --model $(BENCH)/t5-base --batches 1 --runs 1
	$(WORKSHOP) compare --markdown --work decode --rounds $(BENCH_ROUNDS) --title "t5-base's shape, tokens per second" \
	    --json $(BENCH)/dense.json --svg $(BENCH)/dense.svg --baseline "CTranslate2, float32" \
	    --system "CTranslate2, float32=$(DENSE_TURNS)" \
	    --system "CTranslate2, int8=$(DENSE_TURNS) --compute-type int8" \
	    --system "Switchyard, float32=$(DENSE_SWITCHYARD)" \
	    --system "Switchyard, int8=$(DENSE_SWITCHYARD) --dtype int8" \
	    --system "transformers, float32=$(DENSE_TORCH)" > $(BENCH)/dense.md && cat $(BENCH)/dense.md

# Peers of the RPC benchmark, built on demand: gRPC C++ from Debian, grpc-swift-2 as a separate package.
PEERS = .build/peers

bench-peers: build-bench ## benchmark calls beside gRPC C++ and grpc-swift-2
	@deploy/install-packages.sh test
	@mkdir -p $(PEERS)
	g++ -O2 -std=c++17 -o $(PEERS)/grpc-cpp Tests/Peers/bench-grpc-cpp/echo.cc $$(pkg-config --cflags --libs grpc++)
	$(SWIFT) build -c release --package-path Tests/Peers/bench-grpc-swift --scratch-path $(PEERS)/grpc-swift
	@$(WORKSHOP) rpc --rounds 5 --peer "gRPC C++=$(PEERS)/grpc-cpp" \
	    --peer "grpc-swift-2=$(PEERS)/grpc-swift/release/echo"

bench-http: build ## benchmark the HTTP listener beside gRPC: the table of docs/http.md
	@deploy/install-packages.sh test
	@mkdir -p $(BENCH)
	python3 Tests/Peers/bench_http.py --switchyard .build/release/switchyard --model $(MODEL) > $(BENCH)/http.md && cat $(BENCH)/http.md

bench-batch: build ## benchmark `switchyard batch` beside h2load: 10,000 lines (docs/operations.md)
	@deploy/install-packages.sh test
	@mkdir -p $(BENCH)
	python3 Tests/Peers/bench_batch.py --switchyard .build/release/switchyard --model $(MODEL) > $(BENCH)/batch.md && cat $(BENCH)/batch.md

# With MODEL_FULL, the full shape as well: a step of it takes seconds.
bench-frozen: build-bench ## benchmark training with frozen experts beside serving, through the same hosts (docs/training.md)
	@mkdir -p $(BENCH)
	$(WORKSHOP) frozen $(MODEL) --markdown --rounds $(BENCH_ROUNDS) --json $(BENCH)/frozen.json > $(BENCH)/frozen.md \
	    && cat $(BENCH)/frozen.md
	@[ ! -f "$(MODEL_FULL)/config.json" ] || { $(WORKSHOP) frozen $(MODEL_FULL) --markdown --rounds 3 --seconds 30 --packed \
	    --json $(BENCH)/frozen-full.json > $(BENCH)/frozen-full.md && cat $(BENCH)/frozen-full.md; }

# Small models from scratch, beside PyTorch, on as many steps: Tests/training-bench/requirements.txt says what PEER_PYTHON needs.
# TRAIN is one of scenes, words, balance, serve; runs that lie in the folder are not repeated.
TRAIN ?= all
bench-train: build ## benchmark how well training from scratch does, beside PyTorch (an hour; docs/benchmarks.md)
	@mkdir -p $(BENCH)/training
	$(PEER_PYTHON) Tests/training-bench/bench.py $(TRAIN) --switchyard .build/release/switchyard --folder $(BENCH)/training \
	    $(if $(TRAIN_STEPS),--steps $(TRAIN_STEPS)) > $(BENCH)/training-$(TRAIN).md && cat $(BENCH)/training-$(TRAIN).md

# Students of sparse teachers, with and without each ingredient; with the same packages. DISTIL is one of few, words, scenes,
# scenes-long, top, targets, serve; runs that lie in the folder are not repeated.
DISTIL ?= all
bench-distil: build ## benchmark distillation: teachers, students and dense models (70 minutes of one processor; docs/training.md)
	@mkdir -p $(BENCH)/distil
	$(PEER_PYTHON) Tests/training-bench/distil.py $(DISTIL) --switchyard .build/release/switchyard --folder $(BENCH)/distil \
	    > $(BENCH)/distil-$(DISTIL).md && cat $(BENCH)/distil-$(DISTIL).md

tables: ## rewrite the tables of settings, metrics and generation keys in docs/operations.md and docs/training.md
	$(SWIFT) run switchyard config list --update docs/operations.md
	$(SWIFT) run switchyard config list --update docs/training.md

protos: ## regenerate the C code, the typed messages and the Python package's messages from Protos/
	@deploy/install-packages.sh test
	deploy/generate-protos.sh
	deploy/generate-python-protos.sh

clean: ## remove what was built
	rm -rf .build .build-tsan .build-asan $(VENV) $(TRITON_VENV) $(EVALUATION_VENV) $(VENV)-converter
