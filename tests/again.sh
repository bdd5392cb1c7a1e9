#!/bin/sh
# Runs the tests that failed in a log of `make test` once more, each alone.
#
# Packets, daemons and timers are tested in real time: a machine that stands still for a second makes one of some
# thousand connections late. What fails alone too is broken. What passes is told, with what it had said, and is a
# fault of the test to be looked into. A build that failed, a test that took its whole process down, or more than three
# failures at once are no accidents, and are not tried again.
set -eu
log=$(realpath "$1")
# Where cargo runs the tests, and what it names them by.
cd "$(dirname "$0")/.."
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT

# The failed tests of each program, a line each. What a program says after `failures:` is theirs, whatever it looks like,
# up to the line before cargo goes on: how many have failed. Every program must say that, or it did not end by itself.
# shellcheck disable=SC2016  # awk has variables of its own
if ! awk '
    function close_program() {
        if (program != "" && (result !~ /^test result: / || named != number + 0)) { wrong = 1 }
    }
    function open_program(name) {
        close_program()
        program = name; result = ""; named = 0; number = 0; listing = 1
    }
    { gsub(/\033\[[0-9;]*m/, "") }
    /^     Running .*\)$/ { name = $NF; gsub(/[()]/, "", name); open_program(name); next }
    /^   Doc-tests / { open_program("doc-tests"); next }
    /^failures:$/ { listing = 0 }
    listing && /^test .* \.\.\. FAILED$/ { print program "\t" $2; named++ }
    /^test result: .* [0-9]+ failed; / { result = $0; number = $0; sub(/ failed; .*/, "", number); sub(/.* /, "", number) }
    END { close_program(); exit wrong || program == "" }
' "$log" >"$failed"; then
    exit 1
fi
count=$(grep -c . "$failed" || true)
if [ "$count" -eq 0 ] || [ "$count" -gt 3 ]; then
    exit 1
fi
tab=$(printf '\t')
while IFS=$tab read -r program name; do
    # Those of the documentation have no program of their own.
    [ -x "$program" ] || exit 1
    echo "── once more, alone: $name"
    said=$("$program" --exact "$name" </dev/null 2>&1) || { echo "$said" && exit 1; }
    echo "$said"
    case $said in *'test result: ok. 1 passed;'*) ;; *) exit 1 ;; esac
done <"$failed"
echo "── passed only when run once more:"
cut -f 2 "$failed"
