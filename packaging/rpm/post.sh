# shellcheck shell=sh
# Nothing is enabled or started: when a firewall is first changed is the operator's word.
# A removal that did not come to its end leaves it.
rm -f /run/edgeallow.leaving
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi
