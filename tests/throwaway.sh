# shellcheck shell=sh
# A throwaway host for scripts, made of namespaces, which dies with the script. Sourced by tests/demo.sh and
# packaging/test.sh. The tests in Rust have tests/lab, which can do more.

# The addresses on both sides of the wire: two of Cloudflare's, somebody else's, and the host's own.
edge=173.245.48.29
edge6=2400:cb00::9
stranger=203.0.113.9
server=192.0.2.1
server6=2001:db8:2::1

# throwaway SCRIPT ARGUMENT...: runs the script again, in namespaces of its own, with --inside before its arguments
throwaway() {
    script=$(realpath "$1")
    shift
    exec unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc --propagation private \
        -- "$script" --inside "$@"
}

# make_host NAME FOLDER...: /run is empty, the folders are overlays whose changes live in memory, below /mnt
make_host() {
    echo "$1" >/proc/sys/kernel/hostname
    shift
    mount -t tmpfs -o mode=755 tmpfs /mnt
    for folder; do
        mkdir -p "/mnt/$folder/upper" "/mnt/$folder/work"
        mount -t overlay -o "lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work" overlay "/$folder"
    done
    rm -rf /etc/edgeallow /var/lib/edgeallow
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock
}

# make_internet: a second network namespace at the other end of a wire, and something that answers on port 443
make_internet() {
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
    # perl-base is part of every Debian.
    perl -MIO::Socket::IP -e '
        my $listener = IO::Socket::IP->new(LocalHost => "::", LocalPort => 443, Listen => 16, ReuseAddr => 1, V6Only => 0)
            or die "cannot listen: $@";
        while (my $connection = $listener->accept) { print $connection "."; close $connection }
    ' &
    # Whatever else the machine has to do.
    for _ in $(seq 600); do
        ss -Hltn 'sport = :443' | grep -q . && break
        sleep 0.1
    done
}

# connect FROM TO: how a TCP connection to port 443 ends
connect() {
    # shellcheck disable=SC2016  # perl has variables of its own
    nsenter --net=/mnt/internet perl -MIO::Socket::IP -e '
        my ($from, $to) = @ARGV;
        my $socket = IO::Socket::IP->new(LocalHost => $from, PeerHost => $to, PeerPort => 443, Timeout => 1.5);
        print defined $socket && sysread($socket, my $byte, 1) ? "accepted" : "refused";
    ' "$1" "$2"
}
