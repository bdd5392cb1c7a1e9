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
ExecStartPost=/bin/sh -c 'until ss -Hltn "sport = :80" | grep -q .; do sleep 0.1; done'
UNIT
    mkdir -p /etc/systemd/system/edgeallow-watch.service.d
    # It tells that it lives twice in this time. A machine that stands still for a while is no death.
    printf '[Unit]\nAfter=site.service\n[Service]\nWatchdogSec=20s\n' \
        >/etc/systemd/system/edgeallow-watch.service.d/watchdog.conf
    wants='site.service edgeallow-watch.service'
}

open() { ss -Hltn 'sport = :80' | grep -q .; }
is_well() { state StatusText edgeallow-watch | grep 'all is well; 1 watched' >/dev/null; }
is_killed() { ! kill -0 "$server" 2>/dev/null; }
is_restarted() { [ "$(state MainPID site)" != "$server" ] && open; }
has_told_again() { [ "$(state WatchdogTimestampMonotonic edgeallow-watch)" != "$beat" ]; }

checks() {
    expect_open 'the server is up'
    [ "$(systemctl show -P ActiveState edgeallow-watch)" = active ] || fail 'the watch is not active'
    expect is_well 'it tells systemd that all is well'
    server=$(state MainPID site)
    systemctl kill --signal=KILL site.service
    expect is_killed 'the server was killed'
    expect is_restarted 'the watch has restarted the server, out of its hardened unit'
    logged edgeallow-watch "the origin fails in a way that gives Cloudflare's error 521"
    logged edgeallow-watch 'running the on-fail command: systemctl restart site.service'
    logged edgeallow-watch 'is up again after'
    # The first sign of life comes with the start, the next in its time.
    beat=$(state WatchdogTimestampMonotonic edgeallow-watch)
    expect has_told_again 'it tells systemd that it lives'
    [ "$(state NRestarts edgeallow-watch)" = 0 ] || fail 'it was restarted'
    systemctl reload edgeallow-watch
    logged edgeallow-watch 'asked to look again'
    # It is the machine that is slow where one of these is slow.
    for try in 1 2 3 4 5; do
        systemctl start edgeallow-watch
        before=$(date +%s%N)
        systemctl stop edgeallow-watch
        took=$((($(date +%s%N) - before) / 1000000))
        [ "$(state Result edgeallow-watch)" = success ] || fail 'it did not end well'
        [ "$took" -ge 3000 ] || break
    done
    [ "$took" -lt 3000 ] || fail "it took $took ms to end"
    say 'it ends at once'
    journalctl --sync
    journalctl -q -u edgeallow-watch | grep -q secret && fail 'the query is in the log'
    return 0
}
