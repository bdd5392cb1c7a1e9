#!/bin/sh
# Stands in for CSF where no release of it is at hand: what it does to chains, files and its lock, as far as a list
# of allowed addresses is concerned. Written from observation of the program's effects; nothing of it is in here.
etc=/etc/csf
var=/var/lib/csf

setting() { sed -n "s/^$1 *= *\"\(.*\)\"/\1/p" $etc/csf.conf; }

stop() {
    for ip in iptables ip6tables; do
        printf '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n' | $ip-restore
    done
}

# The lines of a list and of all that it includes. A blank behind the path belongs to the path.
entries() {
    tr -d '\r' <"$1" | while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            Include*) included=${line#Include}; included=${included#"${included%%[! 	]*}"}
                [ -e "$included" ] && entries "$included" ;;
            \#* | *Include* | '') ;;
            *) echo "${line%%[ 	]*}" ;;
        esac
    done
}

# rules FAMILY VERB TARGET IN OUT: reads entries, writes rules of that family into the chains IN and OUT.
rules() {
    tr '[:upper:]' '[:lower:]' | while IFS= read -r entry; do
        case $entry in
            *'|'*) address=${entry##*=} ;;
            *) address=$entry ;;
        esac
        # What is no address is passed over without a word.
        case $address in *[!0-9a-f.:/]* | *:*.* | *.*:*) continue ;; *:*) six=6 ;; *.*.*.*) six=4 ;; *) continue ;; esac
        [ "$six" = "$1" ] || continue
        case $entry in
            *'|'*)
                protocol=${entry%%|*}; rest=${entry#*|}; way=${rest%%|*}; rest=${rest#*|}; ports=${rest%%|*}; ports=${ports#*=}
                case $ports in *,*) m='-m multiport' ;; *) m="-m $protocol" ;; esac
                if [ "$way" = in ]; then
                    echo "$2 $4 $DEVICE_IN -p $protocol -s $address $m --dport $ports -j $3"
                else
                    echo "$2 $5 $DEVICE_OUT -p $protocol -d $address $m --sport $ports -j $3"
                fi ;;
            *)
                echo "$2 $4 $DEVICE_IN -s $address -j $3"
                echo "$2 $5 $DEVICE_OUT -d $address -j $3" ;;
        esac
    done
}

start() {
    rm -f $etc/csf.error
    device=$(setting ETH_DEVICE)
    DEVICE_IN='! -i lo'; DEVICE_OUT='! -o lo'
    [ -z "$device" ] || { DEVICE_IN="-i $device"; DEVICE_OUT="-o $device"; }
    accept=ACCEPT; watch=
    [ "$(setting WATCH_MODE)" != 1 ] || { accept=LOGACCEPT; watch=':LOGACCEPT - [0:0]'; }
    for family in 4 6; do
        [ $family = 4 ] || [ "$(setting IPV6)" = 1 ] || continue
        if [ $family = 4 ]; then ip=iptables open=$(setting TCP_IN) icmp=icmp; else ip=ip6tables open=$(setting TCP6_IN) icmp=ipv6-icmp; fi
        {
            echo '*filter'
            for chain in INPUT FORWARD OUTPUT; do echo ":$chain DROP [0:0]"; done
            for chain in ALLOWIN ALLOWOUT DENYIN DENYOUT INVALID INVDROP LOCALINPUT LOCALOUTPUT LOGDROPIN LOGDROPOUT; do
                echo ":$chain - [0:0]"
            done
            [ -z "$watch" ] || printf '%s\n-A LOGACCEPT -j ACCEPT\n' "$watch"
            echo "-A INPUT $DEVICE_IN -j LOCALINPUT"
            echo "-A INPUT -i lo -j $accept"
            echo "-A INPUT $DEVICE_IN -p tcp -j INVALID"
            echo "-A INPUT $DEVICE_IN -p $icmp -j $accept"
            echo "-A INPUT $DEVICE_IN -m conntrack --ctstate RELATED,ESTABLISHED -j $accept"
            for port in $(echo "$open" | tr , ' '); do
                echo "-A INPUT $DEVICE_IN -p tcp -m conntrack --ctstate NEW -m tcp --dport $port -j $accept"
            done
            echo "-A INPUT $DEVICE_IN -j LOGDROPIN"
            echo "-A OUTPUT $DEVICE_OUT -j LOCALOUTPUT"
            echo "-A OUTPUT -o lo -j $accept"
            echo "-A OUTPUT $DEVICE_OUT -p tcp -j INVALID"
            echo "-A OUTPUT $DEVICE_OUT -p $icmp -j $accept"
            echo "-A OUTPUT $DEVICE_OUT -m conntrack --ctstate RELATED,ESTABLISHED -j $accept"
            echo "-A OUTPUT $DEVICE_OUT -j LOGDROPOUT"
            echo '-A INVALID -m conntrack --ctstate INVALID -j INVDROP'
            echo '-A INVDROP -j DROP'
            echo '-A LOGDROPIN -j DROP'
            echo '-A LOGDROPOUT -j REJECT'
            echo "-A LOCALINPUT $DEVICE_IN -j ALLOWIN"
            echo "-A LOCALINPUT $DEVICE_IN -j DENYIN"
            echo "-A LOCALOUTPUT $DEVICE_OUT -j ALLOWOUT"
            echo "-A LOCALOUTPUT $DEVICE_OUT -j DENYOUT"
            entries $etc/csf.deny | rules $family -A DROP DENYIN DENYOUT
            # `time|address|ports|way|seconds|why`
            [ ! -e $var/csf.tempban ] || cut -d '|' -f 2 $var/csf.tempban | rules $family -A DROP DENYIN DENYOUT
            entries $etc/csf.allow | rules $family -I $accept ALLOWIN ALLOWOUT
            echo COMMIT
        } >/run/csf.rules
        if ! $ip-restore -n </run/csf.rules 2>/run/csf.complaint; then
            # One bad line, and all of the firewall is gone.
            stop
            echo "Error: $(head -1 /run/csf.complaint), at line 1 in /usr/sbin/csf" >$etc/csf.error
            return
        fi
    done
}

# denied VERB ADDRESS: its two rules.
denied() {
    case $2 in *:*) ip=ip6tables ;; *) ip=iptables ;; esac
    $ip "$1" DENYIN ! -i lo -s "$2" -j DROP
    $ip "$1" DENYOUT ! -o lo -d "$2" -j DROP
}

exec 9<>$var/csf.lock
lock() { flock -n 9 || { echo 'Error: csf is being restarted, try again in a moment'; exit 0; }; }

case $1 in
    -r | -s) [ ! -e $etc/csf.disable ] && lock && stop && start ;;
    -f | --stop) lock; stop ;;
    -x) lock; : >$etc/csf.disable; stop ;;
    -e) rm -f $etc/csf.disable; lock; start ;;
    -a) printf '%s # added by hand\n' "$2" >>$etc/csf.allow ;;
    -dr)
        # Out of the list, and out of the chains; what is in another list stays.
        grep -q "^$2\( .*\)\{0,1\}\$" $etc/csf.deny || { echo "csf: $2 not found in csf.deny"; exit 0; }
        sed -i "\\|^$2\\( .*\\)\\{0,1\\}\$|d" $etc/csf.deny
        denied -D "$2" ;;
    -td)
        printf '%s|%s||inout|3600|Manually added\n' "$(date +%s)" "$2" >>$var/csf.tempban
        denied -A "$2" ;;
    -tr)
        grep -qF "|$2|" $var/csf.tempban || { echo "csf: $2 not found in temporary bans"; exit 0; }
        sed -i "\\#|$2|#d" $var/csf.tempban
        denied -D "$2" ;;
    --initdown) iptables-save >$var/csf.4.saved; ip6tables-save >$var/csf.6.saved ;;
    --initup)
        lock
        if [ -e $var/csf.4.saved ] && [ -e $var/csf.6.saved ]; then
            iptables-restore <$var/csf.4.saved; ip6tables-restore <$var/csf.6.saved
            rm -f $var/csf.4.saved $var/csf.6.saved
        else
            stop; start
        fi ;;
esac
exit 0
