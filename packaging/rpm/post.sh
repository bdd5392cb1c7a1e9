# shellcheck shell=sh
# Nothing is enabled or started: when a firewall is first changed is the operator's word.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi
