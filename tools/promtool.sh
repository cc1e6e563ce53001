#!/bin/sh
# Puts Debian's promtool into bin/, without installing the server that comes
# with it. Does nothing where it is there already, or cannot be had.
set -eu
command -v promtool >/dev/null 2>&1 && exit 0
[ -x bin/promtool ] && exit 0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if (cd "$dir" && apt-get download prometheus && dpkg -x prometheus_*.deb .) >/dev/null 2>&1; then
	mkdir -p bin
	install -m 0755 "$dir/usr/bin/promtool" bin/promtool
else
	echo "SKIPPED: no promtool, and the Debian package prometheus cannot be fetched"
fi
