#!/bin/sh
# config.sh: the configuration that is installed: every key of the example, commented out, under its section.
set -eu
cd "$(dirname "$0")/.."
echo '# edgeallow configuration. What is commented out is the default.'
sed -e '1,2d' -e 's/^[^#[]/#&/' examples/config.toml
