#!/bin/sh
# The real servers that the tests run against. "path" prints folders to add to PATH; "install" installs what is missing
# when this is root on Debian or Ubuntu, and otherwise names the command. Fails only under PENSTOCK_REQUIRE_BACKENDS=1.
set -eu

# Debian keeps PostgreSQL's servers off the PATH; the newest version wins.
path() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | paste -sd : -; }

has() { PATH="$PATH:$(path)" command -v "$1" >/dev/null 2>&1; }

missing() {
  has initdb || echo postgresql
  has redis-server || echo redis-server
  has chromium || has chromium-browser || has google-chrome || ls "$HOME"/.cache/ms-playwright/chromium* >/dev/null 2>&1 || echo chromium
}

install() {
  packages=$(missing | paste -sd ' ' -)
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" = 0 ] && has apt-get; then
    echo "Installing for the tests: $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || true
    for package in $packages; do
      apt-get install -y -qq --no-install-recommends "$package" >/dev/null || true
    done
    packages=$(missing | paste -sd ' ' -)
    [ -n "$packages" ] || return 0
  fi
  echo "Not installed: $packages. The tests that need them are skipped." >&2
  echo "  Debian, Ubuntu: sudo apt-get install $packages" >&2
  echo "  macOS: brew install postgresql@17 redis; Chromium anywhere: python -m playwright install chromium" >&2
  [ "${PENSTOCK_REQUIRE_BACKENDS:-0}" != 1 ]
}

case "${1:-}" in
  path) path ;;
  install) install ;;
  *) echo "usage: sh tests/backends.sh path|install" >&2; exit 2 ;;
esac
