# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# Legacy iptables, which speaks to the kernel through a raw socket: that takes the drop-in.

prepare() {
    for program in iptables ip6tables; do
        for part in '' -save -restore; do
            ln -sf "/usr/sbin/$program-legacy$part" "/etc/alternatives/$program$part"
        done
        "$program-legacy-restore" <<'RULES'
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
COMMIT
RULES
    done
    printf '[source]\ntimeout = "1s"\nconnect_timeout = "1s"\n' >/etc/edgeallow/config.toml
}

open() {
    iptables-legacy-save | grep -q -- '-s 173.245.48.0/20' && ip6tables-legacy-save | grep -q -- '-s 2400:cb00::/32'
}

checks() {
    iptables --version | grep -q legacy || fail 'this is not legacy iptables'
    systemctl start edgeallow-apply.service && fail 'without the drop-in it says that it is done'
    open && fail 'without the drop-in it is done'
    logged edgeallow-apply.service 'iptables-legacy-save failed: .*Address family not supported'
    say 'without the drop-in edgeallow-apply.service fails and says at what'
    with_drop_in iptables-legacy edgeallow edgeallow-apply edgeallow-restore edgeallow-reload edgeallow-keep
    systemctl reset-failed edgeallow-apply.service
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with the drop-in'
    expect_open 'with its drop-in edgeallow-apply.service serves legacy iptables'
    for unit in edgeallow-restore edgeallow; do
        iptables -F && ip6tables -F
        open && fail 'flushing changes nothing'
        systemctl start "$unit.service" || fail "$unit.service"
        expect_open "with its drop-in $unit.service puts it back"
    done
    iptables -F
    systemctl reload edgeallow-reload.service || fail 'edgeallow-reload.service'
    expect_open 'with its drop-in edgeallow-reload.service puts it back'
    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
    # Nobody is told of this change; a reload makes the keeper look.
    iptables -F
    systemctl reload edgeallow-keep.service
    expect_open 'with its drop-in edgeallow-keep.service puts it back when it is reloaded'
    systemctl stop edgeallow-keep.service
    [ "$(systemctl show -p Result --value edgeallow-keep.service)" = success ] || fail 'the keeper did not end cleanly'
}
