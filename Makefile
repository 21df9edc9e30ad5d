# SPDX-License-Identifier: Apache-2.0

SWIFT ?= swift
VENV ?= .venv
MODEL ?= deploy/models/switch-mini

# Both build kinds stay side by side in .build: release for people, debug for tests.
#
# The release has Swift's libraries in the executable, and leaves out the run-time checks for overlapping accesses, which
# the tests' build keeps: together they take a third off a small call's round trip (docs/benchmarks.md).
RELEASE = $(SWIFT) build -c release --product switchyard --static-swift-stdlib -Xswiftc -enforce-exclusivity=unchecked

# The same for the program of the fault suite, which is in no product.
RELEASE_FAULTS = $(subst --product switchyard,--product switchyard-faults,$(RELEASE))
FAULTS = "$$($(RELEASE) --show-bin-path)/switchyard-faults"
FAULT_SECONDS ?= 30
SOAK_MINUTES ?= 30

.PHONY: help build demo test peers-cpp faults soak lint format bench bench-peers protos clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

build: ## build the switchyard executable (release)
	@deploy/install-packages.sh build
	$(RELEASE)

demo: ## a whole cluster on this machine, some prompts, and where their tokens went
	@deploy/install-packages.sh build
	@echo "Building switchyard (release); the first build takes a few minutes."
	@$(RELEASE)
	@"$$($(RELEASE) --show-bin-path)/switchyard" demo --model $(MODEL) --pools 4

test: $(VENV)/.ready peers-cpp ## the whole test suite, as continuous integration runs it
	$(SWIFT) build --build-tests
	SWITCHYARD_TEST_PYTHON="$(abspath $(VENV))/bin/python" $(SWIFT) test --skip-build --no-parallel

faults: ## faults done to clusters of processes under load: the table of docs/reliability.md (about 17 minutes)
	@deploy/install-packages.sh faults
	$(RELEASE)
	$(RELEASE_FAULTS)
	@mkdir -p .build/faults
	$(FAULTS) run --seconds $(FAULT_SECONDS) --markdown .build/faults/table.md --json .build/faults/figures.json \
	    --artifacts .build/faults/logs

soak: ## half an hour of drawn faults: memory stays, ids stay (docs/reliability.md)
	@deploy/install-packages.sh faults
	$(RELEASE)
	$(RELEASE_FAULTS)
	@mkdir -p .build/faults
	$(FAULTS) soak --minutes $(SOAK_MINUTES) --csv .build/faults/soak.csv --svg .build/faults/soak.svg \
	    --artifacts .build/faults/logs

sanitize: ## the suites of the network's wing under ThreadSanitizer and AddressSanitizer (docs/testing.md)
	@deploy/install-packages.sh build
	SWIFT=$(SWIFT) Tests/Sanitizers/run.sh thread
	SWIFT=$(SWIFT) Tests/Sanitizers/run.sh address

# Other people's gRPC clients, which the tests call the cluster with.
$(VENV)/.ready: Tests/Peers/requirements.txt deploy/install-packages.sh
	@deploy/install-packages.sh test
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r Tests/Peers/requirements.txt
	@touch $@

# Small clients over gRPC's C++ library; where it is missing, tests that need them are skipped, but not in CI.
peers-cpp: $(VENV)/.ready
	@if [ -n "$$CI" ] || command -v grpc_cpp_plugin >/dev/null; then \
	    $(MAKE) --no-print-directory -C Tests/Peers/cpp OUT="$(abspath .build/peers)"; \
	else echo "note: no grpc_cpp_plugin; the tests with gRPC's C++ library are skipped"; fi

lint: ## check formatting and documentation comments
	$(SWIFT) format lint --strict --recursive --parallel Sources Tests Package.swift

format: ## rewrite the sources in the project's format
	$(SWIFT) format --in-place --recursive --parallel Sources Tests Package.swift

bench: build ## the benchmark tables of docs/benchmarks.md
	@"$$($(RELEASE) --show-bin-path)/switchyard" bench all

# Rivals of the RPC benchmark, built on demand: gRPC C++ from Debian, grpc-swift-2 as a package of its own.
PEERS = .build/peers

bench-peers: build ## the RPC benchmark beside gRPC C++ and grpc-swift-2
	@deploy/install-packages.sh test
	@mkdir -p $(PEERS)
	g++ -O2 -std=c++17 -o $(PEERS)/grpc-cpp Tests/Peers/bench-grpc-cpp/echo.cc $$(pkg-config --cflags --libs grpc++)
	$(SWIFT) build -c release --package-path Tests/Peers/bench-grpc-swift --scratch-path $(PEERS)/grpc-swift
	@"$$($(RELEASE) --show-bin-path)/switchyard" bench rpc --rounds 5 --peer "gRPC C++=$(PEERS)/grpc-cpp" \
	    --peer "grpc-swift-2=$(PEERS)/grpc-swift/release/echo"

protos: ## regenerate the protobuf-c code from Protos/
	@deploy/install-packages.sh test
	deploy/generate-protos.sh

clean: ## remove what was built
	rm -rf .build .build-tsan .build-asan $(VENV)
