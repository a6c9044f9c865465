#!/usr/bin/env bash
# Shows the kiosk full screen: waits for the server, then runs Chromium until it ends (systemd starts it again).
#
#   launch.sh [URL]      default http://127.0.0.1:8000/kiosk/   (options: kiosk.js)
#   CHROMIUM=...         another browser; PROFILE=... where it keeps its state; KIOSK_FLAGS=... more flags
set -euo pipefail

url=${1:-http://127.0.0.1:8000/kiosk/}
browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
profile=${PROFILE:-${XDG_STATE_HOME:-$HOME/.local/state}/parley-kiosk}
if [ -z "$browser" ]; then
  echo "parley-kiosk: no Chromium here. Install it (Debian: apt-get install chromium) or set CHROMIUM." >&2
  exit 1
fi

# Until the server answers there is nothing to show but a browser's error page.
base=$(printf '%s' "$url" | sed -E 's#^(https?://[^/]+).*#\1#')
until curl --silent --fail --max-time 5 --output /dev/null "$base/healthz"; do
  echo "parley-kiosk: waiting for $base" >&2
  sleep 2
done

mkdir -p "$profile"
flags=(
  --kiosk --user-data-dir="$profile" --no-first-run --no-default-browser-check --noerrdialogs
  --disable-session-crashed-bubble --hide-crash-restore-bubble --disable-features=Translate --disable-pinch
  --overscroll-history-navigation=0 --password-store=basic
  --autoplay-policy=no-user-gesture-required # the reply is heard, even when a camera woke the kiosk
  --use-fake-ui-for-media-stream             # microphone and camera are allowed; nobody is there to ask (real devices)
)
read -r -a more <<<"${KIOSK_FLAGS:-}"
exec "$browser" "${flags[@]}" "${more[@]}" "$url"
