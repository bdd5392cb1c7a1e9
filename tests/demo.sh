#!/bin/sh
# demo.sh BINARY: the real edgeallow in a throwaway host whose firewall drops by default.
# The host is made of namespaces and dies with this script; the machine it runs on is not changed.
set -eu

# shellcheck source=tests/throwaway.sh
. "$(dirname "$0")/throwaway.sh"

if [ "${1:-}" != --inside ]; then
    binary=$(realpath "${1:?usage: demo.sh BINARY}")
    if [ "$(id -u)" != 0 ]; then
        echo 'the demo makes a throwaway host of namespaces, which takes root: sudo make demo' >&2
        exit 1
    fi
    throwaway "$0" "$binary"
fi
binary=$2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# ── The throwaway host, and an internet for it.
make_host demo etc var
: >/mnt/edgeallow
mount --bind "$binary" /mnt/edgeallow
mkdir /mnt/bin
ln -s /mnt/edgeallow /mnt/bin/edgeallow
PATH=$PATH:/mnt/bin
make_internet

failures=0
expect() {
    result=$(connect "$2" "$3")
    printf '   %-24s %-18s %s\n' "$1" "$2" "$result"
    [ "$result" = "$4" ] || { echo "   expected: $4"; failures=$((failures + 1)); }
}

everybody() {
    expect 'Cloudflare' $edge $server "$1"
    expect 'Cloudflare, IPv6' $edge6 $server6 "$1"
    expect 'a stranger' $stranger $server refused
}

say() { printf '\n── %s\n' "$*"; }
type_in() {
    printf '\n$ %s\n' "$*"
    status=0
    if [ -t 1 ]; then
        "$@" || status=$?
    else
        "$@" >/mnt/said 2>&1 || status=$?
        fold -s -w 80 /mnt/said
    fi
    [ "$status" = 0 ] || { echo "   exit status $status"; failures=$((failures + 1)); }
}

say 'A host whose firewall drops by default and lets in ssh only'
cat >/etc/nftables.conf <<'END'
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
    }
}
END
cat /etc/nftables.conf
nft -f /etc/nftables.conf
nft -s list ruleset >/mnt/before

say 'Who reaches port 443?'
everybody refused

say 'edgeallow lets Cloudflare in (this host has no network, so it uses what it knows)'
type_in edgeallow sync

say 'Who reaches port 443 now?'
everybody accepted

say 'Once more: there is nothing to change'
type_in edgeallow sync --offline

say 'Does everything agree?'
type_in edgeallow status --offline

say 'The rules are loaded anew, as at boot: Cloudflare stays in'
type_in nft -f /etc/nftables.conf
everybody accepted

say 'Everything is taken out again'
type_in edgeallow remove
everybody refused
nft -s list ruleset | cmp -s - /mnt/before || { echo '   the rules differ from before'; failures=$((failures + 1)); }

if [ "$failures" = 0 ]; then
    say 'Done. The host is gone with this line; your machine was not changed.'
else
    say "$failures of the expectations above were not met"
    exit 1
fi
