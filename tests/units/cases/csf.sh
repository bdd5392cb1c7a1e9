# shellcheck shell=bash disable=SC2015,SC2034  # $wants is read by the script that reads this
# CSF, by the stand-in of the other tests, on legacy iptables: its folders are closed even to their owner.

prepare() {
    for program in iptables ip6tables; do
        for part in '' -save -restore; do
            ln -sf "/usr/sbin/$program-legacy$part" "/etc/alternatives/$program$part"
        done
    done
    install -m700 /mnt/units/csf_stand_in.sh /usr/sbin/csf
    mkdir -p /etc/csf /var/lib/csf
    echo 15.10 >/etc/csf/version.txt
    for setting in ETH_DEVICE= ETH6_DEVICE= LF_IPSET=0 MESSENGER=0 CT_SUBNET_LIMIT=0 DOCKER=0 WATCH_MODE=0 TESTING=0 \
        IPV6=1 TCP_IN=22 TCP6_IN=22 UDP_IN= UDP6_IN= FASTSTART=1; do
        echo "${setting%%=*} = \"${setting#*=}\""
    done >/etc/csf/csf.conf
    echo 192.0.2.2 >/etc/csf/csf.allow
    echo 127.0.0.1 >/etc/csf/csf.ignore
    : >/etc/csf/csf.deny
    chmod 600 /etc/csf/* && chmod 600 /etc/csf /var/lib/csf
    cat >/etc/systemd/system/csf.service <<'UNIT'
[Unit]
Description=stands in for CSF
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/csf --initup
ExecStop=/usr/sbin/csf --stop
UNIT
    printf '[source]\ntimeout = "1s"\nconnect_timeout = "1s"\n' >/etc/edgeallow/config.toml
    wants=csf.service
    systemctl --quiet enable edgeallow-restore-late.service
}

open() { iptables-save | grep -q -- '-s 173.245.48.0/20' && ip6tables-save | grep -q -- '-s 2400:cb00::/32'; }

checks() {
    iptables-save | grep -q -- '-j LOCALINPUT' || fail 'CSF is not loaded'
    systemctl start edgeallow-apply.service && fail 'without the drop-in it says that it is done'
    open && fail 'without the drop-in it is done'
    say 'without the drop-in edgeallow-apply.service fails'
    with_drop_in csf edgeallow edgeallow-apply edgeallow-restore-late edgeallow-keep
    systemctl reset-failed edgeallow-apply.service
    systemctl start edgeallow-apply.service || fail 'edgeallow-apply.service with the drop-in'
    expect_open 'with its drop-in edgeallow-apply.service serves CSF'
    grep -qi edgeallow /etc/csf/csf.allow || fail 'nothing was stored'
    systemctl restart csf.service || fail 'restart of csf'
    expect_open 'after systemctl restart csf it is there'
    # What is gone from the list comes back after the restart that loads it.
    echo 192.0.2.2 >/etc/csf/csf.allow
    systemctl restart csf.service || fail 'restart of csf'
    expect_open 'with its drop-in edgeallow-restore-late.service puts back what was removed'
    systemctl start edgeallow-keep.service || fail 'edgeallow-keep.service'
    echo 192.0.2.2 >/etc/csf/csf.allow && csf -r >/dev/null
    expect_open 'with its drop-in edgeallow-keep.service puts it back after csf -r'
    systemctl stop edgeallow-keep.service
    [ "$(systemctl show -p Result --value edgeallow-keep.service)" = success ] || fail 'the keeper did not end cleanly'
}
