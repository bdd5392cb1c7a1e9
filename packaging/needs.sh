#!/bin/sh
# needs.sh build|test|demo|lint|package|clean-names ...
# Sees to it that what the named purposes need is there: installs it where it can (Debian, Ubuntu, root), otherwise
# says what is missing. Asks for nothing and installs nothing when nothing is missing.
set -eu

# Rust 1.88 is what Cargo.toml asks for.
rust_minor=88

packages() {
    case $1 in
    build) echo gcc libc6-dev pkg-config libnftnl-dev libmnl-dev ;;
    test) echo nftables iptables ipset ufw iproute2 util-linux mount hostname ca-certificates \
        fail2ban apache2 apache2-utils libapache2-mod-evasive nginx php-fpm openssl curl firewalld dbus systemd
        # mod_evasive wants some mailer; the smallest will do where there is none, and none is replaced.
        [ -x /usr/sbin/sendmail ] || echo msmtp-mta ;;
    demo) echo nftables iproute2 util-linux mount perl-base ;;
    lint) echo shellcheck python3-venv ;;
    package) echo binutils cpio dpkg-dev lintian man-db rpm rpm2cpio ;;
    *) echo "needs.sh: unknown purpose $1" >&2 && exit 2 ;;
    esac
}

check_rust() {
    if ! command -v cargo >/dev/null; then
        cat >&2 <<'END'
There is no Rust toolchain (cargo) here. Install one of:
  rustup:            follow https://rustup.rs, then open a new shell
  Debian 14, Ubuntu 25.10 or newer:  apt-get install cargo rustc
END
        exit 1
    fi
    minor=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    if [ -n "$minor" ] && [ "$minor" -lt "$rust_minor" ]; then
        echo "$(rustc --version) is too old: edgeallow needs 1.$rust_minor. With rustup: rustup update stable" >&2
        exit 1
    fi
}

# No file may name a place on a developer's machine.
clean_names() {
    # The words are put together here so that this file doesn't hold them.
    pattern="/ho""me/[a-z]|/ro""ot/[a-z.]|/wo""rk/(main|shared)|/tmp/w""t-"
    if git grep -nIE "$pattern" -- . ':!Cargo.lock'; then
        echo 'the files above name a place on some machine' >&2
        exit 1
    fi
    if grep -n '^source = "registry' Cargo.lock | grep -v 'registry+https://github.com/rust-lang/'; then
        echo "Cargo.lock names another registry than Rust's own" >&2
        exit 1
    fi
}

missing=
for purpose; do
    if [ "$purpose" = clean-names ]; then
        clean_names
        continue
    fi
    [ "$purpose" != build ] || check_rust
    for package in $(packages "$purpose"); do
        if ! command -v dpkg-query >/dev/null; then
            missing="$missing $package"
        elif [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing="$missing $package"
        fi
    done
done
[ -n "$missing" ] || exit 0

if ! command -v dpkg-query >/dev/null; then
    # Another distribution: its packages have other names, and may well be there.
    echo "not Debian or Ubuntu: please see to it that the counterparts of these are installed:$missing" >&2
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    printf 'missing packages:%s\nas root: apt-get install%s\n' "$missing" "$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# What is installed for the tests runs in their throwaway hosts only: no service is started here.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
# The package lists of a fresh image may be absent or old; they are read only if the first try fails.
# shellcheck disable=SC2086  # a list of words
apt-get install -qq -y --no-remove --no-install-recommends $missing >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq -y --no-remove --no-install-recommends $missing >/dev/null; }

# Nor at the next boot: a firewall that somebody installed to run tests must not lock him out.
if command -v systemctl >/dev/null; then
    for service in ufw fail2ban apache2 nginx firewalld php-fpm:php8.2-fpm openssh-server:ssh; do
        case "$missing " in
        *" ${service%:*} "*) systemctl disable "${service#*:}" >/dev/null 2>&1 || true ;;
        esac
    done
fi
