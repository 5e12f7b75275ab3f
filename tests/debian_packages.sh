#!/bin/sh
# Install Debian packages whose command is missing, where that is allowed; else say which are missing.
# An argument is a package, or package:command where its command has another name.
missing=
for wanted in "$@"; do
  command -v "${wanted#*:}" >/dev/null 2>&1 || missing="$missing ${wanted%%:*}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing Debian packages:$missing"
  # shellcheck disable=SC2086 # a list of names
  if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
    exit 0
  fi
fi
echo "some tests need Debian packages that are not here; install them with: sudo apt-get install$missing"
