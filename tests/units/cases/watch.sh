# shellcheck shell=bash disable=SC2034  # $wants is read by the script that reads this
# The watch within its unit: it mends a server that fell over with `systemctl restart`, tells systemd that it lives, and
# goes at once when it is told to.

prepare() {
    cat >/etc/edgeallow/config.toml <<'CONFIG'
[watch]
urls = ["http://shop.example/?key=secret"]
origin = "127.0.0.1"
every = "1s"
fail_after = 2
on_fail = ["systemctl", "restart", "site.service"]
CONFIG
    printf '127.0.0.1 localhost shop.example\n' >/etc/hosts
    cat >/etc/systemd/system/site.service <<'UNIT'
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /mnt/units 80
UNIT
    mkdir -p /etc/systemd/system/edgeallow-watch.service.d
    printf '[Service]\nWatchdogSec=2s\n' >/etc/systemd/system/edgeallow-watch.service.d/watchdog.conf
    wants='site.service edgeallow-watch.service'
}

open() { ss -Hltn 'sport = :80' | grep -q .; }
logged() {
    for try in $(seq 150); do
        journalctl -q -u edgeallow-watch | grep -qF -- "$1" && return
        sleep 0.1
    done
    fail "the watch does not say: $1"
}

checks() {
    expect_open 'the server is up'
    [ "$(systemctl show -P ActiveState edgeallow-watch)" = active ] || fail 'the watch is not active'
    for try in $(seq 100); do
        systemctl show -P StatusText edgeallow-watch | grep -q 'all is well; 1 watched' && break
        sleep 0.1
    done
    systemctl show -P StatusText edgeallow-watch | grep -q 'all is well; 1 watched' || fail 'it does not say that all is well'
    say 'it tells systemd that all is well'
    systemctl kill --signal=KILL site.service
    for try in $(seq 50); do
        open || break
        sleep 0.1
    done
    open && fail 'the server was not killed'
    expect_open 'the watch has restarted the server, out of its hardened unit'
    logged "the origin fails in a way that gives Cloudflare's error 521"
    logged 'running the on-fail command: systemctl restart site.service'
    logged 'is up again after'
    # The watchdog would have ended it by now.
    sleep 3
    [ "$(systemctl show -P NRestarts edgeallow-watch)" = 0 ] || fail 'it was restarted'
    say 'it tells systemd that it lives'
    systemctl reload edgeallow-watch
    logged 'asked to look again'
    before=$(date +%s%N)
    systemctl stop edgeallow-watch
    took=$((($(date +%s%N) - before) / 1000000))
    [ "$took" -lt 3000 ] || fail "it took $took ms to end"
    [ "$(systemctl show -P Result edgeallow-watch)" = success ] || fail 'it did not end well'
    say 'it ends at once'
    journalctl -q -u edgeallow-watch | grep -q secret && fail 'the query is in the log'
    return 0
}
