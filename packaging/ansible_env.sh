#!/bin/sh
# ansible_env.sh FOLDER test|lint ...
# Makes the virtual environments that the tests and linters of examples/ansible run from, each with the pinned packages
# of a file in tests/ansible: FOLDER/floor (the oldest ansible-core that is supported), FOLDER/newest, FOLDER/lint.
# Does nothing where they are there already.
set -eu

[ $# -ge 2 ] || { echo 'usage: ansible_env.sh FOLDER test|lint ...' >&2; exit 2; }
folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../tests/ansible"

# The first of these Pythons that is there and can make virtual environments.
python() {
    for candidate; do
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "none of $* can make virtual environments: apt-get install python3-venv" >&2
    exit 1
}

make_one() { # NAME PYTHON
    requirements=$1.txt
    made=$folder/$1/made_from
    { cat "$requirements"; "$2" --version; } >"$folder/$1.wanted"
    if cmp -s "$folder/$1.wanted" "$made"; then
        rm "$folder/$1.wanted"
        return
    fi
    echo "making $folder/$1 with $2"
    rm -rf "${folder:?}/$1"
    "$2" -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements" || {
        echo "ansible_env.sh: pip can't install what tests/ansible/$requirements names; is there a network?" >&2
        exit 1
    }
    mv "$folder/$1.wanted" "$made"
}

for purpose; do
    case $purpose in
    test)
        # ansible-core 2.16 knows Python up to 3.12, the newest wants at least that.
        oldest=$(python python3.12 python3.11 python3.10 /usr/bin/python3 python3)
        newest=$(python python3.14 python3.13 python3.12 /usr/bin/python3 python3)
        make_one floor "$oldest"
        make_one newest "$newest"
        ;;
    lint) make_one lint "$(python python3.14 python3.13 python3.12 /usr/bin/python3 python3)" ;;
    *) echo "ansible_env.sh: unknown purpose $purpose" >&2 && exit 2 ;;
    esac
done
