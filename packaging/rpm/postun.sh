# shellcheck shell=sh disable=SC2086  # lists of words
running='@RUNNING@'
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart $running >/dev/null 2>&1 || :
    fi
fi
if [ "$1" = 0 ]; then
    # There is no program any more that would heed it.
    rm -f /run/edgeallow.leaving
    # What is left of it after the rules are out: lists and the record of what was done with them.
    rm -rf /var/lib/edgeallow /var/lib/private/edgeallow-fetch /var/lib/edgeallow-fetch
    # Folders that no package owns: they stay otherwise.
    for folder in /usr/share/doc/edgeallow /usr/share/licenses/edgeallow /etc/edgeallow; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -empty -delete
    done
    rmdir /etc/systemd/system/nftables.service.d 2>/dev/null || :
fi
