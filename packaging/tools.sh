#!/bin/sh
# tools.sh NAME...
# Builds what only a release needs, at pinned versions, into $TOOLS (target/tools). Does nothing for what is there.
# The network is needed once. `make test` needs none of these.
set -eu
cd "$(dirname "$0")/.."
TOOLS=${TOOLS:-$PWD/target/tools}

version() {
    case $1 in
    cargo-auditable) echo 0.7.7 ;;
    cargo-cyclonedx) echo 0.5.9 ;;
    cargo-deb) echo 3.8.0 ;;
    cargo-deny) echo 0.20.2 ;;
    cargo-generate-rpm) echo 0.21.1 ;;
    *) echo "tools.sh: unknown tool $1" >&2 && exit 2 ;;
    esac
}

# They run for seconds: building them quickly is worth more than quick tools.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
for tool; do
    wanted=$(version "$tool")
    if ! grep -qsF "\"$tool $wanted " "$TOOLS/.crates.toml"; then
        cargo install --locked --root "$TOOLS" --target-dir "$TOOLS/build" "$tool@$wanted"
    fi
done
