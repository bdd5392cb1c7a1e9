#!/bin/sh
# build.sh: makes what is released, into target/package: a .deb, an .rpm, a tarball, an SBOM, and their SHA256SUMS.
# The same sources and the same toolchain give the same bytes in whatever folder: packaging/repro.sh proves it.
#
# TOOLS is where packaging/tools.sh has put cargo-deb and the others. CARGO_TARGET_DIR and CARGO_HOME are honoured.
set -eu
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC
export PATH="${TOOLS:=$PWD/target/tools}/bin:$PATH"

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo_home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
out=$PWD/target/package
stage=$out/stage
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
machine=$(uname -m)

# The moment that everything is dated with: the last commit, or, without git, the last entry of Debian's changelog.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null ||
        date -d "$(sed -n 's/^ -- .*>  //p' packaging/deb/changelog | head -n 1)" +%s)
fi
export SOURCE_DATE_EPOCH

rm -rf "$out"
mkdir -p "$stage"

# ── The binary, twice. Folder names of this machine would be in its panic messages.
cargo fetch --locked --quiet
flags=--remap-path-prefix=$PWD=/usr/src/edgeallow
flags=$flags$(printf '\037')--remap-path-prefix=$target=/usr/src/target
for registry in "$cargo_home"/registry/src/*; do
    flags=$flags$(printf '\037')--remap-path-prefix=$registry=/crates
done
export CARGO_ENCODED_RUSTFLAGS="$flags"

# For the tarball: libnftnl inside. The linker takes the archive, because it finds no shared one before it.
# (Debian has no static libmnl, and glibc's name lookup works only when it is loaded at run time.)
static=$stage/static
mkdir -p "$static"
archive=$(pkg-config --variable=libdir libnftnl)/libnftnl.a
[ ! -e "$archive" ] || cp "$archive" "$static/"
cargo auditable rustc --release --locked --bin edgeallow -- -L "native=$static"
cp "$target/release/edgeallow" "$stage/edgeallow-static"
# For the packages: everything from the distribution, so that its security updates count.
cargo auditable build --release --locked --bin edgeallow
binary=$stage/edgeallow
cp "$target/release/edgeallow" "$binary"

# ── What goes with it.
# units PREFIX: the unit files, for a binary in PREFIX/bin
units() {
    for unit in cron/*.service cron/*.timer; do
        [ -e "$unit" ] || continue
        sed "s|^\(Exec[A-Za-z]*=[-@:+!]*\)/[a-z/]*/bin/edgeallow|\1$1/bin/edgeallow|" "$unit" >"$2/$(basename "$unit")"
    done
}

# common ROOT PREFIX ZSH CHANGES: man pages, completions and documents, below ROOT
common() {
    share=$1$2/share
    mkdir -p "$share/man/man8" "$share/bash-completion/completions" "$share/$3" "$share/fish/vendor_completions.d" \
        "$share/doc/edgeallow/examples"
    "$binary" man >"$share/man/man8/edgeallow.8"
    commands=$("$binary" man --list)
    for command in $commands; do
        "$binary" man "$command" >"$share/man/man8/edgeallow-$command.8"
    done
    gzip -9n "$share"/man/man8/*.8
    "$binary" completions bash >"$share/bash-completion/completions/edgeallow"
    "$binary" completions zsh >"$share/$3/_edgeallow"
    "$binary" completions fish >"$share/fish/vendor_completions.d/edgeallow.fish"
    # Side by side as here, so that the pages' links lead somewhere.
    cp README.md "$share/doc/edgeallow/"
    cp -R docs "$share/doc/edgeallow/"
    # Links of the file system to what lies elsewhere here would lead nowhere there.
    cp -RL examples/. "$share/doc/edgeallow/examples/"
    # The crontab is an example: beside an enabled timer it would run everything twice.
    for file in cron/*; do
        case $file in
        'cron/*' | *.service | *.timer) ;;
        *) cp -RL "$file" "$share/doc/edgeallow/examples/" ;;
        esac
    done
    # What isn't there by that name is linked to as it is there, or not at all.
    find "$share/doc/edgeallow/README.md" "$share/doc/edgeallow/docs" -name '*.md' -exec sed -i -e 's|](\([./]*\)cron/|](\1examples/|g' \
        -e 's|\[\([^]]*\)\]([./]*CONTRIBUTING\.md)|\1|g' -e "s|](\([./]*\)CHANGELOG\.md)|](\1$4)|g" {} +
    gzip -9nc "$stage/edgeallow.cdx.json" >"$share/doc/edgeallow/edgeallow.cdx.json.gz"
    gzip -9nc "$stage/third-party-licences" >"$share/doc/edgeallow/third-party-licences.gz"
}

# licences: the licence texts of the libraries inside the binary, each text once.
licences() {
    cargo tree --locked --edges normal,no-proc-macro --prefix none --format '{p}|{l}' |
        sed -e 's/ v\([0-9]\)/-\1/' -e 's/ (\*)$//' |
        grep -v '^edgeallow-' | sort -u >"$stage/crates"
    echo 'edgeallow holds these libraries, written in Rust. Their licences, and below the texts that come with them:'
    echo
    sed 's/|/: /' "$stage/crates"
    cut -d'|' -f1 "$stage/crates" | cut -d' ' -f1 | while read -r crate; do
        find "$cargo_home"/registry/src/*/"$crate" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' \
            -o -iname 'notice*' -o -iname 'copyright*' \) -exec sha256sum {} + | sed "s|\$| $crate|"
    done | sort -k3,3 -k1,1 >"$stage/texts"
    cut -d' ' -f1 "$stage/texts" | awk '!seen[$1]++' | while read -r sum; do
        printf '\n──── %s\n\n' "$(awk -v sum="$sum" '$1 == sum { print $3 }' "$stage/texts" | sort -u | xargs)"
        cat "$(awk -v sum="$sum" '$1 == sum { print $2; exit }' "$stage/texts")"
    done
}

# The SBOM names the folder that it was made in, and is written beside Cargo.toml.
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename edgeallow.cdx
sed "s|path+file://$PWD|path+file:///usr/src/edgeallow|g" edgeallow.cdx.json >"$stage/edgeallow.cdx.json"
rm edgeallow.cdx.json
licences >"$stage/third-party-licences"

# ── .deb
deb=$stage/deb
mkdir -p "$deb/etc/edgeallow" "$deb/usr/lib/systemd/system" "$deb/usr/share/lintian/overrides"
common "$deb" /usr zsh/vendor-completions changelog.gz
units /usr "$deb/usr/lib/systemd/system"
packaging/config.sh >"$deb/etc/edgeallow/config.toml"
gzip -9nc CHANGELOG.md >"$deb/usr/share/doc/edgeallow/changelog.gz"
cp packaging/deb/lintian-overrides "$deb/usr/share/lintian/overrides/edgeallow"

# scripts FROM TO: maintainer scripts, told which units there are. What isn't a oneshot may be running.
all=$(cd "$deb/usr/lib/systemd/system" && ls)
running=$(cd "$deb/usr/lib/systemd/system" && grep -L '^Type=oneshot' ./* | sed 's|^\./||')
scripts() {
    mkdir -p "$2"
    for script in "$1"/*; do
        sed -e "s/@UNITS@/$(echo "$all" | xargs)/g" -e "s/@RUNNING@/$(echo "$running" | xargs)/g" "$script" \
            >"$2/$(basename "$script")"
    done
}
scripts packaging/deb "$stage/deb-scripts"
rm "$stage/deb-scripts/changelog" "$stage/deb-scripts/copyright" "$stage/deb-scripts/lintian-overrides"

# ── .rpm
rpm=$stage/rpm
mkdir -p "$rpm/etc/edgeallow" "$rpm/usr/lib/systemd/system" "$rpm/usr/share/licenses/edgeallow"
common "$rpm" /usr zsh/site-functions CHANGELOG.md
units /usr "$rpm/usr/lib/systemd/system"
packaging/config.sh >"$rpm/etc/edgeallow/config.toml"
cp CHANGELOG.md "$rpm/usr/share/doc/edgeallow/"
cp LICENSE "$rpm/usr/share/licenses/edgeallow/"
scripts packaging/rpm "$stage/rpm-scripts"

# ── Tarball: laid out as below /usr/local.
tree=edgeallow-$version-$machine-linux
mkdir -p "$stage/$tree/bin" "$stage/$tree/lib/systemd/system" "$stage/$tree/etc/edgeallow"
common "$stage/$tree" '' zsh/site-functions CHANGELOG.md
install -m755 "$stage/edgeallow-static" "$stage/$tree/bin/edgeallow"
units /usr/local "$stage/$tree/lib/systemd/system"
packaging/config.sh >"$stage/$tree/etc/edgeallow/config.toml"
cp README.md LICENSE CHANGELOG.md "$stage/$tree/"
cp CHANGELOG.md "$stage/$tree/share/doc/edgeallow/"
cp packaging/INSTALL.md "$stage/$tree/INSTALL.md"

# ── Pack.
# What is to be run lies apart, because a mode is said for whole folders.
for root in "$deb" "$rpm"; do
    mkdir "$root-executable"
    (cd "$root" && find . -name '*.sh' -exec cp --parents {} "$root-executable" \; -exec rm {} +)
done
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
cargo deb --quiet --no-build --no-strip --locked --output "$out"
cargo generate-rpm --target-dir "$target" --auto-req builtin --output "$out"
# An upgrade for packaging/test.sh.
cargo generate-rpm --target-dir "$target" --auto-req builtin --set-metadata 'release = "2"' --output "$stage"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$stage" -cf - "$tree" |
    gzip -9n >"$out/$tree.tar.gz"
gzip -9nc "$stage/edgeallow.cdx.json" >"$out/edgeallow-$version.cdx.json.gz"
cd "$out"
sha256sum -- *.deb *.rpm *.gz >SHA256SUMS
ls -l -- *.deb *.rpm *.gz SHA256SUMS
