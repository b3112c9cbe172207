# Firelane's two commands for a new machine are `make run` and `make test`.
#
# Everything that make builds goes below $(TARGET). Templates go to the user's own store for
# `make run` ($FIRELANE_HOME, else /var/lib/firelane for root and ~/.local/share/firelane for
# others) and to $(TARGET)/firelane-home for `make test`.

SHELL := /bin/sh
TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)
FIRELANE := $(TARGET)/release/firelane
DIST := $(TARGET)/dist/firelane

# Where rustup puts its programs, even if the shell has not been told yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: help setup build run test check dist install clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what is missing on this machine (Debian or Ubuntu)
	@scripts/setup

build: setup ## build firelane and the guest-runner
	@echo '==> building firelane and the guest-runner'
	@cargo xtask build

run: build ## build everything and run examples/hello.py in a microVM
	@echo '==> building the default template'
	@$(FIRELANE) template build default
	@echo '==> firelane run --timings examples/hello.py'
	@$(FIRELANE) run --timings examples/hello.py

test: setup ## run every test, those in microVMs too
	@cargo xtask test

check: setup ## every check: format, lints, tidy, docs, licences, tests
	@cargo xtask check

dist: setup ## make the release tarball
	@cargo xtask dist

install: dist ## install into PREFIX (default /usr/local for root, ~/.local for others)
	@install -d '$(DESTDIR)$(PREFIX)' 2>/dev/null && test -w '$(DESTDIR)$(PREFIX)' || \
		{ echo 'make: $(DESTDIR)$(PREFIX) is not writable; remedy: make install PREFIX=$$HOME/.local' >&2; exit 1; }
	@cp -R $(DIST)/bin $(DIST)/share '$(DESTDIR)$(PREFIX)/'
	@echo 'installed $(DESTDIR)$(PREFIX)/bin/firelane'

clean: ## remove what make built (templates of `make run` stay: firelane template rm)
	@rm -rf '$(TARGET)'
