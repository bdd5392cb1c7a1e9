# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# firewalld as systemd runs it, with the bus it needs: no drop-in.

prepare() {
    sed -i 's/^DefaultZone=.*/DefaultZone=public/' /etc/firewalld/firewalld.conf
    rm -f /etc/firewalld/zones/* /etc/firewalld/ipsets/* /etc/firewalld/policies/*
    printf '[source]\ntimeout = "1s"\nconnect_timeout = "1s"\n' >/etc/edgeallow/config.toml
    wants='dbus.service firewalld.service'
    for unit in firewalld.service edgeallow-restore.service; do
        systemctl --quiet enable "$unit"
    done
}

stored() { [ -e /etc/firewalld/ipsets/edgeallow-v4.xml ]; }
at_rest() {
    [ "$(state ActiveState edgeallow-restore-firewalld.service)" = active ] &&
        [ "$(state ActiveState edgeallow-reload.service)" = active ] && [ -z "$(systemctl list-jobs --no-legend)" ]
}
# Both families in the kernel's own sets.
open() { nft list ruleset | grep -q 173.245.48.0/20 && nft list ruleset | grep -q 2400:cb00::/32; }

checks() {
    firewall-cmd --state | grep -q running || fail 'firewalld does not run'
    open && fail 'it is open before anything was done'
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service'
    expect_open 'edgeallow-apply.service serves firewalld, with no drop-in'
    stored || fail 'nothing was stored'
    for verb in restart reload; do
        systemctl "$verb" firewalld.service || fail "$verb"
        expect_open "after systemctl $verb firewalld it is there"
    done

    # What is lost from the running firewalld and from its files comes back with its restart, and with its reload.
    for verb in restart reload; do
        expect at_rest 'nothing is at work'
        firewall-cmd -q --permanent --delete-ipset=edgeallow-v4 --delete-policy=edgeallow 2>/dev/null || true
        rm -f /etc/firewalld/ipsets/edgeallow-v4.xml /etc/firewalld/policies/edgeallow*.xml
        systemctl "$verb" firewalld.service || fail "$verb with its files gone"
        expect stored "what was removed is stored again after systemctl $verb firewalld"
        expect_open 'and it is open'
    done
    expect at_rest 'nothing is at work'

    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
    firewall-cmd -q --ipset=edgeallow-v4 --remove-entry=173.245.48.0/20 || fail 'removing an entry'
    expect_open 'edgeallow-keep.service puts back an entry that was removed past systemd'
    systemctl stop edgeallow-keep.service
    systemctl start edgeallow.service || fail 'edgeallow.service'
    for unit in edgeallow edgeallow-apply edgeallow-restore edgeallow-restore-firewalld edgeallow-keep; do
        [ "$(systemctl show -p Result --value $unit.service)" = success ] || fail "$unit.service"
    done
    say 'every unit ends well'
}
