# edgeallow: build, show, prove, install. `make` alone says what there is.
#
# `make demo`, `make test` and `make lint` install the Debian or Ubuntu packages that they need when they are run as
# root and something is missing; otherwise they say what is missing. See tools in packaging/needs.sh.

PREFIX ?= /usr/local
DESTDIR ?=
bindir = $(DESTDIR)$(PREFIX)/bin
datadir = $(DESTDIR)$(PREFIX)/share
# Units of the administrator's own installations lie below /usr/local too, and systemd looks there.
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system
exampledir = $(datadir)/doc/edgeallow/examples

# cargo may have been installed by rustup for this user only, and not be in PATH.
CARGO := $(shell command -v cargo 2>/dev/null || { test -x "$$HOME/.cargo/bin/cargo" && echo "$$HOME/.cargo/bin/cargo"; })
export PATH := $(if $(CARGO),$(dir $(CARGO)):)$(PATH)
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/edgeallow

# The tests wait for packets that never come most of the time, so more of them run at once than there are processors.
export RUST_TEST_THREADS ?= 8

SCRIPTS := .ci/run tests/again.sh tests/demo.sh tests/throwaway.sh tests/conformance/csf_stand_in.sh examples/hooks/mail.sh \
	tests/units/systemd.sh $(wildcard tests/units/cases/*.sh) $(wildcard packaging/*.sh packaging/rpm/*.sh packaging/deb/p*)

.PHONY: help demo test test-all oracle lint bench bench-idle install setup build docs

help:
	@echo 'make demo     show edgeallow at work in a throwaway host (root); this machine is not changed'
	@echo 'make test     run every test, with real firewalls and packets in throwaway hosts (root)'
	@echo 'make test-all the same and what takes a quarter of an hour more'
	@echo 'make oracle   hold 600 random rule sets against real packets; EDGEALLOW_ORACLE_SEED and _RULE_SETS choose (root)'
	@echo 'make lint     formatting, clippy, shellcheck, ansible-lint'
	@echo 'make bench    measure, beside nft, iptables-restore and ipset (root)'
	@echo 'make bench-idle  measure ten idle minutes of edgeallow keep (root)'
	@echo 'make install  binary, manual pages, completions, units and examples into PREFIX ($(PREFIX)); DESTDIR is honoured'
	@echo 'make package  .deb, .rpm, tarball, SBOM and checksums into target/package; the first time it builds tools'
	@echo 'make package-test   install, upgrade and purge them in a throwaway host (root)'
	@echo 'make package-repro  build them once more elsewhere and compare the bytes'
	@echo 'make deny     licences, versions and sources of the libraries; make audit: known flaws (network)'
	@echo 'make docs     make anew what is generated: configuration reference, schemas, the picture of a dry run (root)'
	@echo 'make setup    install the packages that all of these need (Debian, Ubuntu; root)'

setup:
	@packaging/needs.sh build test lint

build:
	@packaging/needs.sh build
	cargo build --release --locked

demo:
	@packaging/needs.sh build demo
	cargo build --release --locked
	@tests/demo.sh '$(BINARY)'

test:
	@packaging/needs.sh build test
	@packaging/ansible_env.sh '$(TARGET)/ansible' test
	cargo test --locked --no-fail-fast --features fault-injection,schema

# Also kills and failures at every step of firewalld, whose every command is a Python program.
test-all:
	@packaging/needs.sh build test
	@packaging/ansible_env.sh '$(TARGET)/ansible' test
	cargo test --locked --no-fail-fast --all-features

# `make test` does the same with 40 rule sets, `make test-all` with as many as this. The seed is printed first.
oracle: export EDGEALLOW_ORACLE_RULE_SETS ?= 600
oracle:
	@packaging/needs.sh build test
	cargo test --locked --features fault-injection,schema --test machine oracle:: -- --nocapture

lint:
	@packaging/needs.sh build lint
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	shellcheck -x $(SCRIPTS)
	@packaging/ansible_env.sh '$(TARGET)/ansible' lint
	tests/ansible/lint.sh '$(TARGET)/ansible/lint'
	@packaging/needs.sh clean-names

# The tests that hold these pages against the code write them first.
docs: export UPDATE_DOCS = 1
docs: export UPDATE_SCHEMA = 1
docs:
	@packaging/needs.sh build test
	cargo test --locked --features fault-injection,schema --test docs --test schema
	cargo test --locked --features fault-injection,schema --test machine readme::the_picture

bench:
	@packaging/needs.sh build test
	cargo bench --locked

# Ten minutes of `edgeallow keep` with nothing to do; EDGEALLOW_IDLE_SECONDS makes it shorter.
bench-idle:
	@packaging/needs.sh build test
	cargo bench --locked -- idle

install: build
	install -Dm755 '$(BINARY)' '$(bindir)/edgeallow'
	install -d '$(datadir)/man/man8' '$(datadir)/bash-completion/completions' '$(datadir)/zsh/site-functions' \
		'$(datadir)/fish/vendor_completions.d'
	'$(BINARY)' man >'$(datadir)/man/man8/edgeallow.8'
	commands=$$('$(BINARY)' man --list) || exit 1; for command in $$commands; do \
		'$(BINARY)' man "$$command" >'$(datadir)/man/man8/edgeallow-'"$$command.8" || exit 1; \
	done
	'$(BINARY)' completions bash >'$(datadir)/bash-completion/completions/edgeallow'
	'$(BINARY)' completions zsh >'$(datadir)/zsh/site-functions/_edgeallow'
	'$(BINARY)' completions fish >'$(datadir)/fish/vendor_completions.d/edgeallow.fish'
	install -d '$(unitdir)' '$(exampledir)/drop-ins'
	for unit in cron/*.service cron/*.timer; do \
		sed 's|/usr/bin/edgeallow|$(PREFIX)/bin/edgeallow|' "$$unit" >'$(unitdir)/'"$${unit#cron/}" || exit 1; \
	done
	install -m644 cron/edgeallow.cron examples/config.toml '$(exampledir)'
	install -m644 cron/drop-ins/*.conf '$(exampledir)/drop-ins'
	install -d '$(exampledir)/hooks'
	install -m644 examples/hooks/*.toml examples/hooks/*.service '$(exampledir)/hooks'
	install -m755 examples/hooks/*.sh '$(exampledir)/hooks'

.PHONY: package package-test package-repro deny audit
package:
	@packaging/needs.sh build package
	@packaging/tools.sh cargo-auditable cargo-cyclonedx cargo-deb cargo-generate-rpm
	@packaging/build.sh

package-test: package
	@packaging/needs.sh demo package
	@packaging/test.sh

package-repro: package
	@packaging/repro.sh

deny:
	@packaging/tools.sh cargo-deny
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked check bans licenses sources

audit:
	@packaging/tools.sh cargo-deny
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked check advisories
