#!/bin/sh
# Installs the real servers that the tests run against (tests/backends.py starts them): what is missing, when this is root
# on Debian or Ubuntu, and otherwise it names the command. Fails only under PENSTOCK_REQUIRE_BACKENDS=1.
set -eu

# Debian keeps PostgreSQL's servers off the PATH.
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | paste -sd : -)"

has() { command -v "$1" >/dev/null 2>&1; }

missing() {
  has initdb || echo postgresql
  has redis-server || echo redis-server
  has chromium || has chromium-browser || has google-chrome || ls "$HOME"/.cache/ms-playwright/chromium* >/dev/null 2>&1 || echo chromium
}

packages=$(missing | paste -sd ' ' -)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && has apt-get; then
  echo "Installing for the tests: $packages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || true
  for package in $packages; do
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null || true
  done
  PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | paste -sd : -)"
  packages=$(missing | paste -sd ' ' -)
fi
[ -n "$packages" ] || exit 0
echo "Not installed: $packages. The tests that need them are skipped." >&2
echo "  Debian, Ubuntu: sudo apt-get install $packages" >&2
echo "  macOS: brew install postgresql@17 redis; Chromium anywhere: python -m playwright install chromium" >&2
[ "${PENSTOCK_REQUIRE_BACKENDS:-0}" != 1 ]
