#!/usr/bin/env bash
# Installs the Debian packages the tests use, where it may; says which are missing where it may not.
set -euo pipefail

# command -> package
declare -A wanted=(
  [espeak-ng]=espeak-ng
  [flite]=flite
  [festival]=festival
  [sox]=sox
  [baresip]=baresip-core
  [sipp]=sip-tester
  [kamailio]=kamailio-tls-modules
  [twinkle-console]=twinkle-console
  [chromium]=chromium
  [turnserver]=coturn
  [npm]=npm
  [docker-compose]=docker-compose
)

missing=()
for command in "${!wanted[@]}"; do
  command -v "$command" >/dev/null 2>&1 || missing+=("${wanted[$command]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "The tests need: ${missing[*]} (Debian's names). This is not Debian: install them your way, then run make test again." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    echo "The tests need Debian packages and I may not install them. Run: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
# The tests start a kamailio of their own; a service beside it would take the SIP port of this machine.
if [[ " ${missing[*]} " == *kamailio* ]] && [ -d /run/systemd/system ]; then
  "${as_root[@]}" systemctl mask --quiet kamailio.service
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
