#!/bin/sh
# Runs the tests that failed in a log of `make test` once more, each alone.
#
# Packets, daemons and timers are tested in real time: a machine that stands still for a second makes one of some
# thousand connections late. What fails alone too is broken. What passes is told, with what it had said, and is a
# fault of the test to be looked into. A build that failed, a test that took its whole process down, or more than three
# failures at once are no accidents, and are not tried again.
set -eu
log=$1

# Every test program says how it ended, or it did not end by itself.
started=$(grep -cE '^     Running |^   Doc-tests ' "$log" || true)
ended=$(grep -c '^test result: ' "$log" || true)
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
awk '/^     Running .*\)$/ { program = $NF; gsub(/[()]/, "", program) }
     /^   Doc-tests / { program = "" }
     /^test .* \.\.\. FAILED$/ { print program "\t" $2 }' "$log" >"$failed"
count=$(grep -c . "$failed" || true)

if [ "$started" -eq 0 ] || [ "$started" -ne "$ended" ] || [ "$count" -eq 0 ] || [ "$count" -gt 3 ]; then
    exit 1
fi
tab=$(printf '\t')
while IFS=$tab read -r program name; do
    echo "── once more, alone: $name"
    said=$("$program" --exact "$name" </dev/null 2>&1) || { echo "$said" && exit 1; }
    echo "$said"
    case $said in *'test result: ok. 1 passed;'*) ;; *) exit 1 ;; esac
done <"$failed"
echo "── passed only when run once more:"
cut -f 2 "$failed"
