#!/bin/sh
# mail.sh ADDRESS: mails what edgeallow did. For [on_change] and [on_failure] in /etc/edgeallow/config.toml:
#
#   command = ["/usr/local/lib/edgeallow/mail.sh", "root"]
#
# (from cron or by hand; the systemd units can't reach a mail spool: there edgeallow-tell@.service mails.)
#
# The JSON report comes on standard input; what happened is in the environment.
set -eu

exec mail -s "edgeallow: $EDGEALLOW_EVENT on $(uname -n) ($EDGEALLOW_COMMAND, status $EDGEALLOW_EXIT_STATUS)" "$1"
