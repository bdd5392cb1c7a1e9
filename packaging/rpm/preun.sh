# shellcheck shell=sh disable=SC2086  # lists of words
units='@UNITS@'
running='@RUNNING@'
# While this is there nothing is applied, so that no cron job that starts or has been waiting puts back what is taken out.
# postun takes it away, or post where the package stays.
leaving=/run/edgeallow.leaving
# $1 is the number of versions that stay: 0 is a removal, 1 an upgrade, which leaves the rules alone.
if [ "$1" = 0 ]; then
    touch "$leaving" 2>/dev/null || :
    active=
    if [ -d /run/systemd/system ]; then
        for unit in $running; do
            ! systemctl --quiet is-active "$unit" || active="$active $unit"
        done
        # First of all, or they would put back what is taken out.
        systemctl --no-reload stop $units >/dev/null 2>&1 || :
    fi
    status=0
    /usr/bin/edgeallow remove --lock-timeout 60 || status=$?
    if [ "$status" != 0 ]; then
        # 75: another edgeallow is still at work, and it may be the first one.
        if [ -e /var/lib/edgeallow/state.json ] || [ "$status" = 75 ]; then
            rm -f "$leaving"
            [ -z "$active" ] || systemctl start $active >/dev/null 2>&1 || :
            echo 'edgeallow: what it put into the firewalls could not all be taken out, so the package stays.' >&2
            echo 'edgeallow: mend what is named above and remove the package again. To leave the rules behind on' >&2
            echo 'edgeallow: purpose, delete /var/lib/edgeallow/state.json first.' >&2
            exit 1
        fi
        echo 'edgeallow: nothing counts as applied here, so what is named above is left as it is.' >&2
    fi
    # Figures of a tool that isn't there any more would be an alert for ever. A file that isn't edgeallow's own stays.
    metrics=$(sed -n "s/^[[:space:]]*metrics[[:space:]]*=[[:space:]]*[\"']\([^\"']*\).*/\1/p" /etc/edgeallow/config.toml \
        2>/dev/null || true)
    for file in /var/lib/prometheus/node-exporter/edgeallow.prom "$metrics"; do
        if [ -f "$file" ] && head -n 1 "$file" | grep -q '^# HELP edgeallow_'; then
            rm -f "$file" || true
        fi
    done
    # The links go while systemd can still read which ones the units asked for.
    if [ -x /usr/bin/systemctl ]; then
        systemctl --no-reload disable $units >/dev/null 2>&1 || :
    fi
fi
