# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# Hooks and metrics from within the units, and the drop-ins that they take.

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
[on_change]
command = ["touch", "/run/told-by-command"]
webhook = "http://127.0.0.1:8099/hook"
timeout = "60s"
CONFIG
    install -d -o nobody /var/lib/prometheus/node-exporter
    rm -f /var/lib/prometheus/node-exporter/*
    wants=nftables.service
    systemctl --quiet enable nftables.service
}

open() { nft list ruleset | grep -q 'comment "edgeallow'; }
# Our rules with their handles: those that are put back have others.
ours() { nft -a list chain inet filter input | grep 'comment "edgeallow'; }
# Ours goes; loopback stays open for the webhook. A keeper may have mended it before this has ended.
harm() {
    harmed=$(ours)
    nft -f - <<'RULES'
flush chain inet filter input
add rule inet filter input iif lo accept
RULES
}
mended() { open && [ "$(ours)" != "$harmed" ]; }
listens() { ss -Hltn 'sport = :8099' | grep -q .; }
told() { grep -q 'edgeallow keep on' /run/told-by-webhook 2>/dev/null; }
measured() { grep -q 'edgeallow_last_run_exit_status{command="keep"} 0' "$metrics" 2>/dev/null; }

checks() {
    metrics=/var/lib/prometheus/node-exporter/edgeallow.prom
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service'
    expect_open 'edgeallow-apply.service does its work where hooks and metrics fail'
    logged edgeallow-apply.service 'the on_change webhook was not told'
    logged edgeallow-apply.service 'the metrics could not be kept'
    [ -e /run/told-by-command ] && [ ! -e "$metrics" ] || fail 'the command was not run, or the metrics were written'
    say 'without drop-ins the command is run, and it says that webhook and metrics were not'
    rm /run/told-by-command
    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
    harm
    expect mended 'edgeallow-keep.service heals where hooks and metrics fail'
    logged edgeallow-keep.service 'the on_change webhook failed'
    logged edgeallow-keep.service 'metrics-failed'
    [ -e /run/told-by-command ] || fail 'the command was not run'
    systemctl stop edgeallow-keep.service

    with_drop_in webhook edgeallow-keep
    with_drop_in metrics edgeallow-keep edgeallow-apply edgeallow
    cd / && /usr/bin/python3 - <<'SERVER' &
import http.server
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open("/run/told-by-webhook", "wb").write(body)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8099), Hook).handle_request()
SERVER
    expect listens 'a webhook can be told'
    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service with drop-ins'
    harm
    expect mended 'with its drop-in edgeallow-keep.service heals'
    expect told 'and tells the webhook'
    expect measured 'and writes metrics'
    systemctl stop edgeallow-keep.service
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with the drop-in'
    grep -q 'edgeallow_last_run_exit_status{command="sync"} 0' "$metrics" || fail 'no metrics of the sync'
    say 'with the drop-in both write metrics into a folder of another user'
}
