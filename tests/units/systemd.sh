#!/bin/bash
# systemd.sh EDGEALLOW UNITS: the units under a real systemd, which is pid 1 of a throwaway host: namespaces, overlays
# over /etc, /var and /usr, an empty /run. Says what it proves, one line each; ends with 0 when all of it holds.
set -eu

if [ "${1-}" != --inside ]; then
    edgeallow=$(realpath "$1") units=$(realpath "$2") self=$(realpath "$0")
    # systemd wants a control group of its own to rule over.
    root=$(findmnt -nt cgroup2 -o TARGET | head -n 1)
    [ -n "$root" ] || { echo 'systemd.sh: there is no cgroup2 mount here' >&2 && exit 1; }
    group=$root/edgeallow-lab-$$
    mkdir "$group"
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
            bash "$self" --inside "$edgeallow" "$units" 3>"$status") &
    # systemd ends with its host, by a signal; how the checks ended is in the file.
    wait $! || true
    grep -qx 'all of it' "$status" || { echo 'systemd.sh: not all of it holds' >&2 && exit 1; }
    exit 0
fi
edgeallow=$2 units=$3

mount -t tmpfs -o mode=755,size=1g tmpfs /mnt
mkdir /mnt/units && cp -r "$units/." /mnt/units
cp "$edgeallow" /mnt/edgeallow
cp "$units/../examples/hooks/edgeallow-tell@.service" /mnt
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
cat >/etc/nftables.conf <<'END'
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        tcp dport 22 accept
    }
}
END
# Nothing is stored, so that whatever comes back was brought by these units and not by nftables.service.
mkdir -p /etc/edgeallow
node_exporter=/var/lib/prometheus/node-exporter
mkdir -p "$node_exporter"
printf 'metrics = "%s"\n[nftables]\npersist = "none"\n[source]\ntimeout = "1s"\nconnect_timeout = "1s"\n' \
    "$node_exporter/edgeallow.prom" >/etc/edgeallow/config.toml
# What tells of it outside the sandbox mails; here mail is a file.
printf '#!/bin/sh\n{ echo "$*"; cat; } >>/var/told\n' >/usr/bin/mail
chmod 755 /usr/bin/mail
echo 'prometheus:x:64990:' >>/etc/group
# Nothing but what this is about. Apache comes later.
chmod 644 /usr/bin/fail2ban-client /usr/sbin/apachectl /usr/sbin/apache2ctl
for unit in systemd-udevd systemd-udev-trigger systemd-random-seed systemd-update-utmp apparmor; do
    ln -sf /dev/null "/etc/systemd/system/$unit.service"
done
printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\nWants=nftables.service\nAllowIsolate=yes\n' \
    >/etc/systemd/system/default.target
for unit in nftables.service edgeallow-restore.service edgeallow-restore-late.service; do
    systemctl --quiet enable "$unit"
done

# The checks run beside systemd, which becomes pid 1.
cat >/mnt/checks <<'END'
set -eu
say() { echo "ok: $*"; }
fail() {
    echo "FAILED: $*"
    systemctl --no-pager --failed || true
    journalctl --no-pager -q -n 60 || true
    nft list ruleset
    end
    exit 1
}
end() { systemctl poweroff --force --force; }
open() { nft list ruleset | grep -q 'comment "edgeallow'; }
expect_open() {
    for try in $(seq 100); do
        open && say "$1" && return
        sleep 0.1
    done
    fail "$1"
}
for try in $(seq 300); do
    state=$(systemctl is-system-running 2>/dev/null || true)
    [ "$state" != running ] || break
    sleep 0.1
done
[ "$state" = running ] || fail "the host is $state, not running"

time_of() { systemctl show -p "$2" --value "$1"; }
before=$(time_of nftables.service ActiveEnterTimestampMonotonic)
restored=$(time_of edgeallow-restore.service ActiveEnterTimestampMonotonic)
network=$(time_of network-pre.target ActiveEnterTimestampMonotonic)
[ "$before" -gt 0 ] && [ "$before" -le "$restored" ] && [ "$restored" -le "$network" ] ||
    fail "order of boot: nftables $before, restore $restored, network-pre $network"
say 'at boot the restore comes after nftables and before the network'
journalctl -q -u edgeallow-restore.service | grep -q nothing-applied && ! open ||
    fail 'a boot with an empty state folder'
say 'with an empty state folder it puts nothing back and says so'

systemctl start edgeallow-fetch.service || fail 'edgeallow-fetch.service'
grep -q '"command": "fetch"' /var/lib/edgeallow-fetch/list.json || fail 'nothing was saved'
[ "$(stat -Lc %U /var/lib/edgeallow-fetch/list.json)" != root ] || fail 'it fetched as root'
say 'edgeallow-fetch.service saves a list as nobody in particular'
expect_open 'edgeallow-apply.service follows, and applies without network and with few capabilities'
for try in $(seq 100); do
    [ "$(systemctl show -p ActiveState --value edgeallow-apply.service)" != activating ] && break
    sleep 0.1
done
[ "$(systemctl show -p Result --value edgeallow-apply.service)" = success ] || fail 'edgeallow-apply.service'

for verb in restart reload; do
    systemctl "$verb" nftables.service || fail "$verb"
    expect_open "after systemctl $verb nftables it is put back"
    # It is open before the run has ended, and systemd reloads nothing that is only just being started.
    until [ "$(systemctl show -p ActiveState --value edgeallow-restore.service)" = active ]; do sleep 0.1; done
done
systemctl stop nftables.service
open && fail 'stopping nftables leaves our rules'
systemctl start nftables.service
expect_open 'after systemctl stop and start of nftables it is put back'

nft flush chain inet filter input
systemctl start edgeallow.service || fail 'edgeallow.service'
expect_open 'edgeallow.service heals too, with no network but with the last good copy'

metrics=/var/lib/prometheus/node-exporter/edgeallow.prom
expect_metrics() {
    grep -q '^edgeallow_last_run_exit_status{command="sync"} 0' "$metrics" || fail "$1"
    rm "$metrics" && say "$1"
}
expect_metrics 'metrics are written to where node_exporter looks for them'
systemctl restart edgeallow-restore.service edgeallow-restore-late.service
expect_metrics 'also by the units that restore'
chown 64990:64990 "${metrics%/*}" && chmod 775 "${metrics%/*}"
systemctl start edgeallow-apply.service
[ ! -e "$metrics" ] && journalctl -q -u edgeallow-apply.service EDGEALLOW_ID=metrics-failed | grep -q SupplementaryGroups= ||
    fail 'a folder of somebody else'
install -Dm644 -t /etc/systemd/system/edgeallow-apply.service.d /mnt/units/drop-ins/metrics.conf
systemctl daemon-reload
systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with its drop-in'
expect_metrics 'with its drop-in also to a folder that belongs to prometheus'

# Told from outside the sandbox: what has changed, and what ran no hook.
install -m644 '/mnt/edgeallow-tell@.service' /etc/systemd/system/
install -Dm644 -t /etc/systemd/system/edgeallow-fetch.service.d /mnt/units/drop-ins/tell.conf
systemctl daemon-reload
cp /etc/edgeallow/config.toml /mnt/config.toml
cat >>/etc/edgeallow/config.toml <<'TOML'
[on_change]
command = ["systemctl", "start", "--no-block", "edgeallow-tell@change.service"]
TOML
expect_told() {
    for try in $(seq 100); do
        grep -q "$1" /var/told 2>/dev/null && grep -q "$2" /var/told && say "$3" && return
        sleep 0.1
    done
    cat /var/told || true
    fail "$3"
}
nft flush chain inet filter input
systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with a hook'
expect_told 'edgeallow: change' 'sync done' 'a hook starts what may mail, and it tells the whole story'
echo nonsense >/etc/edgeallow/config.toml
systemctl start edgeallow-fetch.service && fail 'a broken configuration'
expect_told 'edgeallow: edgeallow-fetch' 'fetch failed: ' 'a fetch that fails is told of'
systemctl reset-failed
mv /mnt/config.toml /etc/edgeallow/config.toml

systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
[ "$(systemctl show -p ActiveState --value edgeallow-keep.service)" = active ] || fail 'the keeper is not active'
nft flush chain inet filter input
expect_open 'edgeallow-keep.service puts back what is flushed past systemd'
systemctl reload edgeallow-keep.service || fail 'reload of the keeper'
systemctl show -p StatusText --value edgeallow-keep.service | grep -q 'keeping watch' || fail 'it tells no status'
systemctl stop edgeallow-keep.service
[ "$(systemctl show -p Result --value edgeallow-keep.service)" = success ] || fail 'the keeper did not end cleanly'
say 'it starts, reloads, tells how it is and ends as systemd wants it'

# With the rules stored: the rehearsal in a namespace of its own and the drop-in work under the same restrictions.
rm /etc/edgeallow/config.toml
systemctl restart edgeallow-restore.service || fail 'storing'
[ -e /etc/systemd/system/nftables.service.d/edgeallow.conf ] && [ -e /etc/edgeallow/nftables ] ||
    fail "nftables' rules were not stored"
say 'the restore may store what nftables loads at boot'

# ufw, whose rules are files of its own and iptables: no more than the same privileges.
sed -i 's/ENABLED=no/ENABLED=yes/' /etc/ufw/ufw.conf
systemctl stop nftables.service
systemctl enable --quiet --now ufw.service || fail 'ufw.service'
systemctl start edgeallow-apply.service || fail 'applying to ufw'
in_ufw() { iptables-save | grep -q -- '-A ufw-user-input -s 173.245.48.0/20' && ip6tables-save | grep -q 2400:cb00; }
in_ufw || fail 'ufw got nothing'
iptables -F ufw-user-input
systemctl restart ufw.service
in_ufw && say 'ufw is served, and after systemctl restart ufw it has what it had' || fail 'after a restart of ufw'

# Apache's own test chowns, raises limits and reads what is closed to others: that takes the drop-in.
chmod 755 /usr/sbin/apachectl /usr/sbin/apache2ctl
install -Dm644 -t /etc/systemd/system/edgeallow-apply.service.d /mnt/units/drop-ins/apache.conf
systemctl daemon-reload
systemctl start edgeallow-apply.service || fail 'applying to mod_evasive with the drop-in'
[ -e /etc/apache2/conf-enabled/edgeallow-evasive.conf ] || fail 'mod_evasive got nothing'
say 'with its drop-in, mod_evasive is served too'

journalctl -q --no-pager | grep -iE 'SIGSYS|ordering cycle' && fail 'a forbidden system call, or a cycle'
say 'no system call was forbidden that was needed, and no cycle was broken'
echo 'all of it' >&3
end
END
(
    for _ in $(seq 200); do
        [ -S /run/systemd/private ] && break
        sleep 0.05
    done
    exec timeout -k 5 150 bash /mnt/checks
) </dev/null &
exec 3>&-
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-target=null --show-status=0
