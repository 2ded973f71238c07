#!/bin/sh
# Signs a user in by another device, such as a phone, and prints the tokens as JSON. Needs curl and jq.
#
#   HELPER    address of the token helper (default: http://127.0.0.1:8181)
#   CLIENT_ID the client, as it is configured there
#   SCOPE     what to ask for (default: openid offline_access)
#   AUDIENCE  the API that the access token is for, at Auth0
#   RESOURCE  the same at WorkOS
set -eu
HELPER=${HELPER:-http://127.0.0.1:8181}

device=$(curl --silent --show-error --fail-with-body "$HELPER/oauth2/device_authorization" \
  --data-urlencode "client_id=$CLIENT_ID" \
  --data-urlencode "scope=${SCOPE:-openid offline_access}" \
  ${AUDIENCE:+--data-urlencode "audience=$AUDIENCE"} \
  ${RESOURCE:+--data-urlencode "resource=$RESOURCE"})
echo "$device" | jq --raw-output '"Open \(.verification_uri) and enter \(.user_code)"' >&2

while :; do
  # The helper asks the provider as often as the provider wants, and answers when the user decided or the minute is over.
  tokens=$(curl --silent --show-error "$HELPER/oauth2/token" \
    --data-urlencode "grant_type=urn:ietf:params:oauth:grant-type:device_code" \
    --data-urlencode "device_code=$(echo "$device" | jq --raw-output .device_code)" \
    --data-urlencode "client_id=$CLIENT_ID" \
    --data "wait=60")
  case $(echo "$tokens" | jq --raw-output '.error // "none"') in
    none)
      echo "$tokens"
      exit 0
      ;;
    authorization_pending | slow_down | temporarily_unavailable) sleep "${PAUSE:-5}" ;;
    *)
      echo "$tokens" >&2
      exit 1
      ;;
  esac
done
