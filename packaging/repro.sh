#!/bin/sh
# repro.sh: builds everything once more, from a copy of the sources in another folder, with another target folder and
# another cargo home, and compares what came out with target/package, byte for byte.
set -eu
cd "$(dirname "$0")/.."
[ -e target/package/SHA256SUMS ] || { echo 'there is nothing to compare with yet: make package' >&2 && exit 1; }
started=$(date +%s)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
TOOLS=$(realpath "${TOOLS:-target/tools}")
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export TOOLS SOURCE_DATE_EPOCH

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
mkdir -p "$elsewhere/quite/another/place" "$elsewhere/cargo-home/registry"
git ls-files -z | tar --null -T - -cf - | tar -C "$elsewhere/quite/another/place" -xf -
# What was downloaded is taken along, and unpacked anew.
for known in config.toml registry/cache registry/index; do
    [ ! -e "$cargo_home/$known" ] || cp -R "$cargo_home/$known" "$elsewhere/cargo-home/$known"
done
CARGO_HOME=$elsewhere/cargo-home CARGO_TARGET_DIR=$elsewhere/made-here TZ=Pacific/Chatham \
    "$elsewhere/quite/another/place/packaging/build.sh"

if ! diff target/package/SHA256SUMS "$elsewhere/quite/another/place/target/package/SHA256SUMS"; then
    # What differs can be looked at, with diffoscope for instance.
    rm -rf target/package/differs
    mkdir target/package/differs
    (cd "$elsewhere/quite/another/place/target/package" && cp -- *.deb *.rpm *.gz SHA256SUMS "$OLDPWD/target/package/differs/")
    echo 'two builds differ: compare target/package with target/package/differs' >&2
    exit 1
fi
echo "the same bytes from another folder, in $(($(date +%s) - started)) s"
