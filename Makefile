# The commands of the project; "make help" lists them. Nothing is installed outside this folder.

ARCH    ?= arm64
PROFILE ?= release
STACK   ?= cvm

VENV   := .venv
DEVICE := .venv-device
NODE   := tests/node/node_modules
DENY   := .local/tools/bin/cargo-deny
MUTANTS := .local/tools/bin/cargo-mutants
# The files that say who is admitted, and what becomes of whom.
DECIDING := attestation changes claim confirm decision device first_connect notice pre_provisioning subject superseded \
  trusted_users vend vend_at_once
PYTHON := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export CARGO_TARGET_DIR := $(CURDIR)/target
export SAM_CLI_TELEMETRY := 0

# The DynamoDB of the tests, which build it when they need it.
DYNAMODB := tools/local-dynamodb/Cargo.toml

FUNCTIONS := $(notdir $(wildcard functions/*))

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: run
run: ## Serve devices and operators on this machine, with a private CA
	@scripts/prerequisites.sh run
	@# With the features of the whole workspace, so that "make local" has nothing to build twice.
	@cargo build --locked --workspace --bin cvm
	@target/debug/cvm serve --data .local/serve

.PHONY: local
local: ## Run it all here: a local AWS, the stack, and devices that get their certificates by each door
	@scripts/prerequisites.sh local
	@echo "Building the functions and installing the tools: about 5 minutes on two cores the first time"
	@$(MAKE) --no-print-directory -j2 tools package-host PROFILE=dev
	@$(PYTHON) scripts/demo.py

.PHONY: local-down
local-down: ## Stop the local AWS
	@if [ -x $(PYTHON) ]; then $(PYTHON) scripts/local_aws.py stop; fi

.PHONY: test
test: ## Check everything; this is the gate
	@scripts/prerequisites.sh test
	@$(MAKE) --no-print-directory gate

# In the order in which a mistake is cheapest to find.
.PHONY: gate
gate: tools $(NODE)/installed
	cargo fmt --all --check
	cargo fmt --check --manifest-path $(DYNAMODB)
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	cargo test --locked --workspace
	cargo test --locked --manifest-path fuzz/Cargo.toml
	$(MAKE) --no-print-directory lint
	@# What devices wait for, as it is deployed: this checks its size.
	$(MAKE) --no-print-directory package-host PROFILE=release FUNCTIONS="vend pre-provisioning-hook"
	@# All of them, as the tests above have built them.
	$(MAKE) --no-print-directory package-host PROFILE=dev TARGETS="--bins --tests"
	$(PYTHON) -m pytest

.PHONY: lint
lint: tools $(DENY) ## Check the template, the licences and the sources of dependencies
	AWS_DEFAULT_REGION=eu-central-1 sam validate --lint --template-file template.yaml
	cfn-lint template.yaml
	cargo fetch --locked
	$(DENY) --offline --locked check bans licenses sources
	cargo fetch --locked --manifest-path $(DYNAMODB)
	$(DENY) --offline --locked --manifest-path $(DYNAMODB) check bans licenses sources

.PHONY: advisories
advisories: $(DENY) ## Ask the RustSec database about the dependencies (needs the internet)
	$(DENY) --locked check advisories

.PHONY: package
package: tools ## Build target/lambda/<function>/bootstrap.zip; ARCH=arm64|x86_64|host PROFILE=release|dev
ifeq ($(ARCH),host)
	@$(MAKE) --no-print-directory package-host
else
	cargo lambda build --locked --bins $(foreach f,$(FUNCTIONS),--package $(f)) \
	  --profile $(PROFILE) --target $(if $(filter arm64,$(ARCH)),aarch64,$(ARCH))-unknown-linux-gnu --output-format zip
endif
	@ls -l target/lambda/*/bootstrap.zip

.PHONY: deploy
deploy: package ## Deploy to the AWS account of your credentials; STACK=cvm ARCH=arm64 PARAMETERS="LogLevel=debug"
	$(PYTHON) scripts/deploy.py --stack-name $(STACK) --architecture $(ARCH) $(PARAMETERS)

.PHONY: mutants
mutants: $(MUTANTS) ## Change each file that decides, and list the changes that no test notices; takes hours
	$(MUTANTS) mutants --package cvm-provisioning $(DECIDING:%=--file crates/provisioning/src/%.rs) \
	  --output .local --timeout 90

.PHONY: measure
measure: tools ## Measure cold start, warm latency, memory and size of the functions
	$(PYTHON) scripts/measure.py

.PHONY: lock
lock: ## Make requirements.lock anew from requirements.txt
	python3 -m venv --clear .local/lock
	.local/lock/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	.local/lock/bin/pip freeze > requirements.lock
	rm -r .local/lock

.PHONY: tools
tools: $(VENV)/installed $(DEVICE)/installed ;

$(VENV)/installed: requirements.lock
	@echo "Installing the tools into $(VENV), once"
	@python3 -m venv $(VENV)
	@# uv does it several times faster; pip knows package mirrors that uv has not been told of.
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --no-cache --python $(PYTHON) --requirement $< \
	  || $(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(DEVICE)/installed: requirements-device.txt
	@python3 -m venv $(DEVICE)
	@$(DEVICE)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Without the packages' own scripts: what is compiled comes with them.
$(NODE)/installed: tests/node/package-lock.json
	@cd tests/node && npm ci --no-progress --loglevel=error --omit=dev --ignore-scripts
	@touch $@

$(DENY):
	@echo "Building cargo-deny into .local/tools, once; this takes a few minutes"
	@# It runs for a second: time spent on making it fast is lost.
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
	  cargo install --quiet --locked --root .local/tools --version 0.20.2 cargo-deny

$(MUTANTS):
	@echo "Building cargo-mutants into .local/tools, once; this takes a few minutes"
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
	  cargo install --quiet --locked --root .local/tools --version 27.1.0 cargo-mutants

# For this machine with plain cargo: a release is the functions alone, as it is deployed; a debug build is everything, as
# "cargo build" has it, or, with TARGETS, "cargo test": that has more features on, and would all be compiled again.
.PHONY: package-host
package-host: $(if $(filter release,$(PROFILE)),tools)
	cargo build --locked --profile $(PROFILE) $(if $(filter dev,$(PROFILE)),--workspace $(TARGETS),$(FUNCTIONS:%=--package %))
	@$(if $(filter release,$(PROFILE)),$(PYTHON),python3) scripts/zip_functions.py --profile $(PROFILE) $(FUNCTIONS)
