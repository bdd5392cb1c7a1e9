#!/bin/sh
# demo.sh BINARY: the real edgeallow in a throwaway host whose firewall drops by default.
# The host is made of namespaces and dies with this script; the machine it runs on is not changed.
set -eu

edge=173.245.48.29
edge6=2400:cb00::9
stranger=203.0.113.9
server=192.0.2.1
server6=2001:db8:2::1

if [ "${1:-}" != --inside ]; then
    binary=$(realpath "${1:?usage: demo.sh BINARY}")
    if [ "$(id -u)" != 0 ]; then
        echo 'the demo makes a throwaway host of namespaces, which takes root: sudo make demo' >&2
        exit 1
    fi
    exec unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc --propagation private \
        -- "$(realpath "$0")" --inside "$binary"
fi
binary=$2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# ── The throwaway host: /etc and /var are overlays in memory, /run is empty.
mount -t tmpfs -o mode=755 tmpfs /mnt
: >/mnt/edgeallow
mount --bind "$binary" /mnt/edgeallow
for folder in etc var; do
    mkdir -p "/mnt/$folder/upper" "/mnt/$folder/work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work" overlay "/$folder"
done
rm -rf /etc/edgeallow /var/lib/edgeallow
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /mnt/bin
ln -s /mnt/edgeallow /mnt/bin/edgeallow
PATH=$PATH:/mnt/bin
echo demo >/proc/sys/kernel/hostname

# ── The internet: a second network namespace at the other end of a wire.
: >/mnt/internet
unshare --net=/mnt/internet true
ip -batch - <<END
link set lo up
link add s0 type veth peer name c0 netns /mnt/internet
addr add $server/24 dev s0
addr add $server6/64 dev s0 nodad
link set s0 up
END
nsenter --net=/mnt/internet ip -batch - <<END
link set lo up
link set c0 up
addr add 192.0.2.2/24 dev c0
addr add 2001:db8:2::2/64 dev c0 nodad
addr add $edge/32 dev c0
addr add $stranger/32 dev c0
addr add $edge6/128 dev c0 nodad
END
ip -batch - <<END
route add $edge/32 via 192.0.2.2 dev s0
route add $stranger/32 via 192.0.2.2 dev s0
route add $edge6/128 via 2001:db8:2::2 dev s0
END

# Something that answers on port 443. perl-base is part of every Debian.
perl -MIO::Socket::IP -e '
    my $listener = IO::Socket::IP->new(LocalHost => "::", LocalPort => 443, Listen => 16, ReuseAddr => 1, V6Only => 0)
        or die "cannot listen: $@";
    while (my $connection = $listener->accept) { print $connection "."; close $connection }
' &
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    ss -Hltn 'sport = :443' | grep -q . && break
    sleep 0.1
done

# connect FROM TO: how a TCP connection to port 443 ends
connect() {
    # shellcheck disable=SC2016  # perl has variables of its own
    nsenter --net=/mnt/internet perl -MIO::Socket::IP -e '
        my ($from, $to) = @ARGV;
        my $socket = IO::Socket::IP->new(LocalHost => $from, PeerHost => $to, PeerPort => 443, Timeout => 1.5);
        print defined $socket && sysread($socket, my $byte, 1) ? "accepted" : "refused";
    ' "$1" "$2"
}

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
