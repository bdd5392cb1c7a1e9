# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# Native nftables; then ufw, and mod_evasive with its drop-in. Order of boot, both processes, restore and keep.

prepare() {
    cat >/etc/nftables.conf <<'RULES'
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        tcp dport 22 accept
    }
}
RULES
    # Nothing is stored, so that whatever comes back was brought by these units and not by nftables.service.
    printf '[nftables]\npersist = "none"\n[source]\ntimeout = "1s"\nconnect_timeout = "1s"\n' >/etc/edgeallow/config.toml
    wants=nftables.service
    for unit in nftables.service edgeallow-restore.service edgeallow-restore-late.service; do
        systemctl --quiet enable "$unit"
    done
}

open() { nft list ruleset | grep -q 'comment "edgeallow'; }
# What systemd starts by the way is open before its run has ended.
applied() { [ "$(state ActiveState edgeallow-apply.service)" != activating ]; }
restored() { [ "$(state ActiveState edgeallow-restore.service)" = active ]; }
not_restored() { [ "$(state ActiveState edgeallow-restore.service)" = failed ]; }
reloaded() { [ "$(state ActiveState edgeallow-reload.service)" = active ]; }
# systemd starts nftables a few times in a row and no more, unless it is told to forget them.
with_nftables() {
    systemctl reset-failed nftables.service
    systemctl "$1" nftables.service || fail "$1"
}
# Not when it waits to be started again.
given_up() { [ "$(state ActiveState edgeallow-keep.service)" = failed ]; }
keeps_watch() { state StatusText edgeallow-keep.service | grep 'keeping watch' >/dev/null; }

checks() {
    time_of() { systemctl show -p "$2" --value "$1"; }
    before=$(time_of nftables.service ActiveEnterTimestampMonotonic)
    restored=$(time_of edgeallow-restore.service ActiveEnterTimestampMonotonic)
    network=$(time_of network-pre.target ActiveEnterTimestampMonotonic)
    [ "$before" -gt 0 ] && [ "$before" -le "$restored" ] && [ "$restored" -le "$network" ] ||
        fail "order of boot: nftables $before, restore $restored, network-pre $network"
    say 'at boot the restore comes after nftables and before the network'
    logged edgeallow-restore.service nothing-applied
    open && fail 'a boot with an empty state folder'
    say 'with an empty state folder it puts nothing back and says so'

    systemctl start edgeallow-fetch.service || fail 'edgeallow-fetch.service'
    grep -q '"command": "fetch"' /var/lib/edgeallow-fetch/list.json || fail 'nothing was saved'
    [ "$(stat -Lc %U /var/lib/edgeallow-fetch/list.json)" != root ] || fail 'it fetched as root'
    say 'edgeallow-fetch.service saves a list as nobody in particular'
    expect_open 'edgeallow-apply.service follows, and applies without network and with few capabilities'
    until_it applied && [ "$(systemctl show -p Result --value edgeallow-apply.service)" = success ] || fail 'edgeallow-apply.service'

    for verb in restart reload; do
        systemctl "$verb" nftables.service || fail "$verb"
        expect_open "after systemctl $verb nftables it is put back"
        # systemd reloads nothing that is only just being started.
        expect restored "and edgeallow-restore.service has ended"
    done
    systemctl stop nftables.service
    open && fail 'stopping nftables leaves our rules'
    systemctl start nftables.service
    expect_open 'after systemctl stop and start of nftables it is put back'
    expect restored 'and edgeallow-restore.service has ended again'

    # A firewall that nobody uses: what is stopped with it is started again with the next one, and not missed till then.
    systemctl start ufw.service || fail 'ufw.service, which is not enabled in its own settings'
    with_nftables restart
    systemctl stop ufw.service
    expect_open 'what a restart of nftables has started is not cut off by systemctl stop of another firewall'
    restored && fail 'edgeallow-restore.service is not stopped with a firewall'
    for verb in reload restart reload; do
        with_nftables "$verb"
        expect_open "after systemctl stop of another firewall and $verb of nftables it is put back"
        expect reloaded 'and edgeallow-reload.service has ended'
        [ "$verb" = reload ] || expect restored 'and edgeallow-restore.service has ended'
    done

    # A restore that ends with something else than 0 keeps nothing from being put back.
    cp /etc/edgeallow/config.toml /mnt/config.toml
    echo 'ports = oops' >/etc/edgeallow/config.toml
    for verb in restart reload; do
        with_nftables "$verb"
        expect_open "where the configuration can't be read, after systemctl $verb nftables it is put back"
        expect not_restored 'and edgeallow-restore.service has failed'
        expect reloaded 'and edgeallow-reload.service has ended'
    done
    mv /var/lib/edgeallow/applied.toml /mnt/applied.toml
    systemctl start edgeallow-keep.service && fail 'the keeper runs without any configuration'
    expect given_up 'without a copy of it the keeper ends, once and for all'
    systemctl reset-failed edgeallow-keep.service
    mv /mnt/applied.toml /var/lib/edgeallow/applied.toml
    mv /mnt/config.toml /etc/edgeallow/config.toml
    for verb in reload restart; do
        with_nftables "$verb"
        expect_open "with the configuration mended, after systemctl $verb nftables it is put back"
        expect reloaded 'and edgeallow-reload.service has ended'
    done
    expect restored 'and edgeallow-restore.service has ended well'

    nft flush chain inet filter input
    systemctl start edgeallow.service || fail 'edgeallow.service'
    expect_open 'edgeallow.service heals too, with no network but with the last good copy'

    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
    [ "$(systemctl show -p ActiveState --value edgeallow-keep.service)" = active ] || fail 'the keeper is not active'
    nft flush chain inet filter input
    expect_open 'edgeallow-keep.service puts back what is flushed past systemd'
    systemctl reload edgeallow-keep.service || fail 'reload of the keeper'
    expect keeps_watch 'it tells its status'
    systemctl stop edgeallow-keep.service
    [ "$(systemctl show -p Result --value edgeallow-keep.service)" = success ] || fail 'the keeper did not end cleanly'
    say 'it starts, reloads, tells how it is and ends as systemd wants it'

    # With the rules stored: the rehearsal in a namespace of its own and the drop-in work under the same restrictions.
    # A restore goes by the configuration of the last sync, so that comes first; it may not rehearse, and says so.
    rm /etc/edgeallow/config.toml
    systemctl start edgeallow.service || fail 'a sync that may not store'
    systemctl restart edgeallow-restore.service || fail 'storing'
    [ -e /etc/systemd/system/nftables.service.d/edgeallow.conf ] && [ -e /etc/edgeallow/nftables ] ||
        fail "nftables' rules were not stored"
    say 'the restore may store what nftables loads at boot'

    # ufw, whose rules are files of its own and iptables: no more than the same privileges.
    sed -i 's/ENABLED=no/ENABLED=yes/' /etc/ufw/ufw.conf
    systemctl stop nftables.service
    systemctl enable --quiet --now ufw.service || fail 'ufw.service'
    systemctl start edgeallow-apply.service || fail 'applying to ufw'
    in_ufw() { iptables-save | grep -q -- '-A ufw-user-input -s 173.245.48.0/20' && ip6tables-save | grep -q 2400:cb00; }
    in_ufw || fail 'ufw got nothing'
    iptables -F ufw-user-input
    systemctl restart ufw.service
    in_ufw && say 'ufw is served, and after systemctl restart ufw it has what it had' || fail 'after a restart of ufw'

    # Apache's own test chowns, raises limits and reads what is closed to others: that takes the drop-in.
    chmod 755 /usr/sbin/apachectl /usr/sbin/apache2ctl
    with_drop_in apache edgeallow-apply
    systemctl start edgeallow-apply.service || fail 'applying to mod_evasive with the drop-in'
    [ -e /etc/apache2/conf-enabled/edgeallow-evasive.conf ] || fail 'mod_evasive got nothing'
    say 'with its drop-in, mod_evasive is served too'
}
