# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# What gets out of the units: metrics into node_exporter's folder, and mail by a unit that isn't closed in.

prepare() {
    cat >/etc/nftables.conf <<'RULES'
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
    }
}
RULES
    cat >/etc/edgeallow/config.toml <<'CONFIG'
metrics = "/var/lib/prometheus/node-exporter/edgeallow.prom"
[nftables]
persist = "none"
[source]
timeout = "1s"
connect_timeout = "1s"
CONFIG
    rm -rf /var/lib/prometheus/node-exporter
    mkdir -p /var/lib/prometheus/node-exporter
    # Here mail is a file.
    printf '#!/bin/sh\n{ echo "$*"; cat; } >>/var/told\n' >/usr/bin/mail
    chmod 755 /usr/bin/mail
    install -m644 /mnt/hooks/edgeallow-tell@.service /etc/systemd/system/
    wants=nftables.service
    systemctl --quiet enable nftables.service
}

open() { nft list ruleset | grep -q 'comment "edgeallow'; }
expect_told() {
    until_it is_told "$@" && say "$3" && return
    cat /var/told || true
    fail "$3"
}
is_told() { grep -q "$1" /var/told 2>/dev/null && grep -q "$2" /var/told; }

checks() {
    metrics=/var/lib/prometheus/node-exporter/edgeallow.prom
    for unit in edgeallow edgeallow-apply edgeallow-restore edgeallow-restore-firewalld edgeallow-restore-late \
        edgeallow-reload edgeallow-reload-late; do
        systemctl start "$unit.service" || fail "$unit.service"
        [ "${unit#edgeallow-reload}" = "$unit" ] || systemctl reload "$unit.service" || fail "reload of $unit.service"
        grep -q '^edgeallow_last_run_exit_status{command="sync"} 0' "$metrics" || fail "no metrics by $unit"
        rm "$metrics"
    done
    say 'every unit that applies writes metrics to where node_exporter looks for them'
    chown nobody "${metrics%/*}"
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service'
    [ ! -e "$metrics" ] || fail 'a folder of somebody else'
    logged edgeallow-apply.service CAP_DAC_OVERRIDE EDGEALLOW_ID=metrics-failed
    say 'to a folder of somebody else it takes a drop-in, and that is said'

    cp /etc/edgeallow/config.toml /mnt/config.toml
    cat >>/etc/edgeallow/config.toml <<'CONFIG'
[on_change]
command = ["systemctl", "start", "--no-block", "edgeallow-tell@change.service"]
CONFIG
    nft flush chain inet filter input
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with a hook'
    expect_told 'edgeallow: change' 'sync done' 'a hook starts what may mail, and it tells the whole story'
    with_drop_in tell edgeallow-fetch
    echo nonsense >/etc/edgeallow/config.toml
    systemctl start edgeallow-fetch.service && fail 'a broken configuration'
    expect_told 'edgeallow: edgeallow-fetch' 'fetch failed: ' 'a fetch that fails is told of'
}
