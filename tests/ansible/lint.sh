#!/bin/sh
# lint.sh ENVIRONMENT: the linters of examples/ansible, from the virtual environment that packaging/ansible_env.sh makes.
set -eu

bin=$(cd "$1/bin" && pwd)
cd "$(dirname "$0")/../../examples/ansible"
# Ansible looks for a collection in a folder of its own name, and keeps caches at home.
HOME=$(mktemp -d)
export HOME ANSIBLE_HOME="$HOME/.ansible" ANSIBLE_COLLECTIONS_PATH="$HOME/collections" PATH="$bin:$PATH" NO_COLOR=1
trap 'rm -rf "$HOME"' EXIT
mkdir -p "$ANSIBLE_COLLECTIONS_PATH/ansible_collections/edgeallow"
ln -s "$PWD" "$ANSIBLE_COLLECTIONS_PATH/ansible_collections/edgeallow/edgeallow"

yamllint --strict .
ansible-lint --offline -q
# What the module says of itself must be readable.
ansible-doc --type module edgeallow.edgeallow.edgeallow >"$HOME/module"
ansible-doc --type role edgeallow.edgeallow.edgeallow >"$HOME/role"
