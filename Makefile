# `make help` lists what there is. Everything a target needs is installed or built by it.
.DEFAULT_GOAL := help
PYTHON_ENV := .venv/bin/python

.PHONY: help demo test test-unit lint sandbox sandbox-down shell traffic toolchain bench

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-14s %s\n", $$1, $$2}'

.venv/complete: pyproject.toml uv.lock
	@./bootstrap.sh

demo: .venv/complete ## a whole canary rollout of three services on a local cluster, under live traffic
	@$(PYTHON_ENV) -m demo

test: lint ## lint, types, import contracts, unit tests and live tests: what CI runs
	@$(PYTHON_ENV) -m sandbox.toolchain --all
	@$(PYTHON_ENV) -m pytest tests/unit -q # after the toolchain: those that play rules need its promtool
	@$(PYTHON_ENV) -m pytest tests/live --numprocesses 2 --dist loadfile --no-loadscope-reorder # each with a cluster of its own

test-unit: .venv/complete ## unit tests alone: seconds, no cluster, no Go; those that play rules only with promtool
	@$(PYTHON_ENV) -m pytest tests/unit -q

lint: .venv/complete ## style, types, import contracts, shell scripts and workflows
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@MYPYPATH=.github/scripts .venv/bin/mypy --no-error-summary . .github/scripts/github.py # `.` leaves out hidden folders
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/shellcheck bootstrap.sh canary_service/cli/canary $(filter-out %.py,$(wildcard .github/scripts/*))
	@go -C .github/actionlint tool actionlint -shellcheck=$(CURDIR)/.venv/bin/shellcheck $(wildcard $(CURDIR)/.github/workflows/*)

sandbox: .venv/complete ## start the local cluster; it stays up
	@$(PYTHON_ENV) -m sandbox up

sandbox-down: .venv/complete ## end the local cluster and remove all of it
	@$(PYTHON_ENV) -m sandbox down

shell: sandbox ## a shell in which pulumi, kubectl and curl reach the local cluster
	@$(PYTHON_ENV) -m demo.shell || true # the exit code is that of the shell's last command

traffic: .venv/complete ## requests to the three services in the local cluster, until Control-C
	@$(PYTHON_ENV) -m demo.traffic

toolchain: .venv/complete ## find or build the engine, the provider and the control plane
	@$(PYTHON_ENV) -m sandbox.toolchain

bench: .venv/complete ## what `pulumi up` and `pulumi preview` cost; writes build/bench.json
	@$(PYTHON_ENV) -m benchmarks
