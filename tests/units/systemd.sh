#!/bin/bash
# systemd.sh EDGEALLOW UNITS CASE: the units under a real systemd, which is pid 1 of a throwaway host: namespaces,
# overlays over /etc, /var and /usr, an empty /run. CASE is a file with two functions: `prepare` makes the host what it
# shall be, and says in $wants what starts at boot; `checks` runs when it is up. Says what it proves, one line each; ends
# with 0 when all of it holds.
set -eu

if [ "${1-}" != --inside ]; then
    edgeallow=$(realpath "$1") units=$(realpath "$2") case=$(realpath "$3") self=$(realpath "$0")
    # systemd wants a control group of its own to rule over.
    root=$(findmnt -nt cgroup2 -o TARGET | head -n 1)
    [ -n "$root" ] || { echo 'systemd.sh: there is no cgroup2 mount here' >&2 && exit 1; }
    group=$(mktemp -d "$root/edgeallow-lab-XXXXXX")
    status=$(mktemp)
    # shellcheck disable=SC2317  # it is called by the trap
    clean_up() {
        rm -f "$status"
        # systemd goes last and takes everything along; then the groups are empty.
        for _ in $(seq 50); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
            cat "$group/cgroup.procs" "$group/init.scope/cgroup.procs" 2>/dev/null | while read -r pid; do
                # 0 is a process that can't be seen from here, and to kill(1) something else altogether.
                [ "$pid" -le 1 ] || kill -9 "$pid" 2>/dev/null || true
            done
            sleep 0.1
        done
    }
    trap clean_up EXIT
    (echo "$BASHPID" >"$group/cgroup.procs" &&
        exec unshare --mount --net --uts --ipc --cgroup --pid --fork --kill-child --propagation private \
            bash "$self" --inside "$edgeallow" "$units" "$case" 3>"$status") &
    # systemd ends with its host, by a signal; how the checks ended is in the file.
    wait $! || true
    grep -qx 'all of it' "$status" || { echo 'systemd.sh: not all of it holds' >&2 && exit 1; }
    exit 0
fi
edgeallow=$2 units=$3 case=$4 self=$0

mount -t tmpfs -o mode=755,size=1g tmpfs /mnt
mkdir /mnt/units && cp -r "$units/." /mnt/units
cp "$edgeallow" /mnt/edgeallow
cp "$case" /mnt/case
cp -r "$units/../examples/hooks" /mnt/hooks
cp "$(dirname "$self")/../conformance/csf_stand_in.sh" /mnt/units
for folder in etc var usr; do
    mkdir -p "/mnt/$folder/upper" "/mnt/$folder/work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work" "/$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t proc proc /proc
# The kernel's settings and the devices are the machine's: systemd finds the former read-only, as in any container,
# and of the latter only what every program needs.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t sysfs -o ro sysfs /sys
mkdir /mnt/dev
for device in null zero full random urandom tty; do
    touch "/mnt/dev/$device"
    mount --bind "/dev/$device" "/mnt/dev/$device"
done
mkdir /mnt/dev/pts /mnt/dev/shm /mnt/dev/mqueue
mount --rbind /mnt/dev /dev
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname lab

rm -rf /etc/edgeallow /var/lib/edgeallow /etc/systemd/system/nftables.service.d
install -m755 /mnt/edgeallow /usr/bin/edgeallow
rm -rf /etc/systemd/system/*.wants
: >/etc/fstab
install -m644 /mnt/units/*.service /mnt/units/*.timer /etc/systemd/system/
mkdir -p /etc/edgeallow
chmod 644 /usr/bin/fail2ban-client /usr/sbin/apachectl /usr/sbin/apache2ctl
for unit in systemd-udevd systemd-udev-trigger systemd-random-seed systemd-update-utmp apparmor; do
    ln -sf /dev/null "/etc/systemd/system/$unit.service"
done
# shellcheck source=/dev/null
. /mnt/case
wants=
prepare
# Nothing but what this is about.
printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\nWants=%s\nAllowIsolate=yes\n' "$wants" \
    >/etc/systemd/system/default.target

# The checks run beside systemd, which becomes pid 1.
cat >/mnt/checks <<'END'
set -eu
say() { echo "ok: $*"; }
fail() {
    echo "FAILED: $*"
    systemctl --no-pager --failed || true
    journalctl --no-pager -q -n 60 || true
    nft list ruleset
    exit 1
}
end() { systemctl poweroff --force --force; }
# However the checks end, systemd ends with them.
trap end EXIT
# What "open" means is the case's.
expect_open() { expect open "$1"; }
# until_it CONDITION…: it holds in the end; on a busy machine that takes its time.
until_it() {
    for try in $(seq 600); do
        "$@" && return
        sleep 0.1
    done
    return 1
}
# expect CONDITION WORDS: it holds, if not at once; a unit that systemd starts by the way may still be at work.
expect() {
    until_it "$1" || fail "$2"
    say "$2"
}
# logged UNIT PATTERN [FIELD=VALUE]: the journal has such a line of it; journald writes down later what it is told.
in_the_journal() { journalctl -q --no-pager -u "$1" "${@:3}" | grep -- "$2" >/dev/null; }
logged() { until_it in_the_journal "$@" || fail "$1 does not say: $2"; }
# state PROPERTY UNIT: as systemd has it.
state() { systemctl show -P "$1" "$2"; }
# with_drop_in NAME UNIT…: from now on they have it.
with_drop_in() {
    for unit in "${@:2}"; do
        install -Dm644 -t "/etc/systemd/system/$unit.service.d" "/mnt/units/drop-ins/$1.conf"
    done
    systemctl daemon-reload
}
. /mnt/case
is_up() { [ "$(systemctl is-system-running 2>/dev/null)" = running ]; }
until_it is_up || fail "the host is $(systemctl is-system-running), not running"

checks

journalctl --sync
journalctl -q --no-pager | grep -iE 'SIGSYS|ordering cycle' && fail 'a forbidden system call, or a cycle'
say 'no system call was forbidden that was needed, and no cycle was broken'
echo 'all of it' >&3
END
(
    for _ in $(seq 1200); do
        [ -S /run/systemd/private ] && break
        sleep 0.05
    done
    # Some of them take half a minute where nothing else is at work.
    exec timeout -k 5 900 bash /mnt/checks
) </dev/null &
exec 3>&-
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-target=null --show-status=0
