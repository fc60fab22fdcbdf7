# The commands of this project. `make` alone lists them.

SHELL := /bin/bash
# The pg_config of the PostgreSQL to build for and to install into. dev/env.sh knows the default.
export PG_CONFIG

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1 \t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## Show the whole job on servers of its own; the first time takes 5 to 15 minutes
	@dev/demo

psql: ## Open psql on the servers of the demo: make -s psql ARGS='-qtA' < file.sql
	@dev/psql $(ARGS)

stop: ## Stop the servers of the demo and remove what they left
	@dev/servers.py stop "$${DEMO_STATE:-.demo}"

test: ## Run all tests, on servers of their own
	@dev/test

test-majors: ## Test the extension in PostgreSQL 16, 17 and 18
	@dev/test-majors

test-compose: ## Test docker-compose.yml for real: images, both forms of the loader, restarts, PostgreSQL 17
	@dev/test-compose

packages: ## Build .deb and .rpm for each major of PostgreSQL and of the loader, and source archives, in target/packages (some 25 minutes)
	@dev/packages

test-packages: ## Install, use and remove the packages in clean containers
	@dev/test-packages

test-fresh: ## Run demo and tests in a clean container, without root: the processor time that a newcomer needs
	@dev/test-fresh

chaos: ## Kill, cut off and fill up everything while 210,000 messages come in (some 10 minutes)
	@dev/chaos long

soak: ## Watch what the loader takes of memory, files and connections for half an hour of steady work
	@dev/chaos soak

bench: ## Measure: dev/bench/results.json, with a table and a plot made of it (some 30 minutes)
	@dev/install && dev/build extension && dev/bench/run

build: ## Build the extension and the loader in release
	@dev/install && dev/build

all: # What `pgxn install` calls before `make install`.
	@dev/install extension && dev/build extension

install: ## Install the extension into a PostgreSQL that is there: make install PG_CONFIG=/path/to/pg_config
	@dev/install extension && dev/build extension && dev/install-extension

install-loader: ## Install the loader with systemd unit, man pages, completions: make install-loader PREFIX=/usr DESTDIR=/tmp/package
	@dev/build loader && dev/install-loader

lint: ## Check formatting, imports and lints
	@. dev/env.sh && cargo fmt --all --check && dev/imports --quiet loader/src pg_mask/src && dev/words && cargo clippy --workspace --all-targets --features loader/null-consumer,loader/otlp -- -D warnings

docs: ## Build the documentation as a site, in target/book
	@dev/book

fmt: ## Format the Rust code
	@cargo fmt --all

clean: stop ## Remove all that was built
	@cargo clean

.PHONY: help all demo psql stop test test-majors test-compose packages test-packages test-fresh chaos soak bench build install install-loader lint docs fmt clean
