#!/usr/bin/env bash
# EST (RFC 7030) at the region authority, seen by an independent client: openssl makes the keys, requests and checks,
# curl speaks. HIE_PROGRAM names the program. Prints one line for each check; ends with 1 at the first that fails.
set -euo pipefail
hie=${HIE_PROGRAM:-target/debug/hie}
folder=$(mktemp -d)
port=$((20000 + $$ % 10000))
address=127.0.0.1:$port
est=https://$address/.well-known/est
region=$folder/region
authority=
cleanup() {
    [ -z "$authority" ] || kill "$authority" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT

check() { echo "ok   $1"; }
fail() {
    echo "FAIL $1"
    exit 1
}

"$hie" --json authority init --dir "$region" --name Checked --address "$address" >"$folder/init.json"
root=$(sed 's/.*"root":"\([0-9a-f]*\)".*/\1/' "$folder/init.json")
"$hie" authority serve --dir "$region" --listen "$address" >"$folder/serve.log" 2>&1 &
authority=$!
for _ in $(seq 100); do
    (echo >"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
done

# cacerts: nothing is trusted before the fingerprint is the one that the region office gave.
curl -sS --insecure "$est/cacerts" | base64 -d >"$folder/cacerts.p7"
openssl pkcs7 -inform DER -in "$folder/cacerts.p7" -print_certs -out "$folder/root.pem"
found=$(openssl x509 -in "$folder/root.pem" -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1)
[ "$found" = "$root" ] || fail "cacerts: the root has another fingerprint"
check "cacerts: PKCS#7 that openssl reads, root with the region's fingerprint"

ca=(--cacert "$folder/root.pem" -sS)
curl "${ca[@]}" "$est/cacerts" >/dev/null || fail "the server's chain does not verify under the root"
check "the server's chain and name verify under the root"

# simpleenroll with the invitation as the password.
"$hie" invite --dir "$region" --name Guest --organisation urn:oid:2.999.8.1 --out "$folder/1.hie" 2>/dev/null
openssl genpkey -algorithm ed25519 -out "$folder/key.pem" 2>/dev/null
openssl req -new -key "$folder/key.pem" -subj "/CN=anything" -outform DER | base64 >"$folder/request.b64"
openssl genpkey -algorithm ed25519 -out "$folder/other.pem" 2>/dev/null
openssl req -new -key "$folder/other.pem" -subj "/CN=x" -outform DER | base64 >"$folder/other.b64"
ask() { curl "${ca[@]}" -o "$folder/answer" -D "$folder/head" -w '%{http_code}' -H 'Content-Type: application/pkcs10' "$@"; }
demand() {
    local wanted=$1 what=$2 code
    shift 2
    code=$(ask "$@")
    [ "$code" = "$wanted" ] || fail "$what: $code instead of $wanted"
}
first=(--data-binary "@$folder/request.b64")
other=(--data-binary "@$folder/other.b64")
demand 401 "simpleenroll without a password" "${first[@]}" "$est/simpleenroll"
grep -qi '^www-authenticate: basic' "$folder/head" || fail "no WWW-Authenticate"
check "simpleenroll without a password: 401 with WWW-Authenticate"
demand 403 "simpleenroll with a wrong secret" -u x:00000000000000000000000000000000 "${first[@]}" "$est/simpleenroll"
check "simpleenroll with a wrong secret: 403"
guest=(-u "guest:$(cat "$folder/1.hie")")
demand 202 "simpleenroll before the approval" "${guest[@]}" "${first[@]}" "$est/simpleenroll"
grep -qi '^retry-after: [0-9]' "$folder/head" || fail "no Retry-After"
check "simpleenroll before the approval: 202 with Retry-After"
"$hie" authority approve --dir "$region" 1 >/dev/null 2>&1
demand 200 "simpleenroll after the approval" "${guest[@]}" "${first[@]}" "$est/simpleenroll"
grep -qi '^content-type: application/pkcs7-mime; smime-type=certs-only' "$folder/head" || fail "another content type"
take() { base64 -d "$folder/answer" | openssl pkcs7 -inform DER -print_certs -out "$1"; }
take "$folder/leaf.pem"
openssl verify -CAfile "$folder/root.pem" -purpose sslclient "$folder/leaf.pem" >/dev/null || fail "the leaf does not verify"
openssl x509 -in "$folder/leaf.pem" -noout -ext subjectAltName | grep -q urn:oid:2.999.8.1 || fail "the leaf names another"
ends=$(date -d "$(openssl x509 -in "$folder/leaf.pem" -noout -enddate | cut -d= -f2)" +%s)
[ $(((ends - $(date +%s) + 3600) / 86400)) = 7 ] || fail "the leaf does not live 7 days"
check "simpleenroll after the approval: 200, a leaf of 7 days that openssl verifies for TLS clients"
demand 403 "the same secret with another key" "${guest[@]}" "${other[@]}" "$est/simpleenroll"
check "the secret of an invitation works for one key only"

# simplereenroll over mutual TLS.
demand 401 "simplereenroll without a certificate" "${first[@]}" "$est/simplereenroll"
check "simplereenroll without a certificate: 401"
mtls=(--cert "$folder/leaf.pem" --key "$folder/key.pem")
demand 200 "simplereenroll with the same key" "${mtls[@]}" "${first[@]}" "$est/simplereenroll"
take "$folder/fresh.pem"
openssl verify -CAfile "$folder/root.pem" "$folder/fresh.pem" >/dev/null || fail "the fresh leaf does not verify"
serial() { openssl x509 -in "$1" -noout -serial; }
[ "$(serial "$folder/leaf.pem")" != "$(serial "$folder/fresh.pem")" ] || fail "the serial number is the same"
check "simplereenroll with the same key: 200 at once, a fresh leaf"
demand 202 "simplereenroll with a new key" "${mtls[@]}" "${other[@]}" "$est/simplereenroll"
"$hie" authority approve --dir "$region" 2 >/dev/null 2>&1
demand 200 "simplereenroll with an approved new key" "${mtls[@]}" "${other[@]}" "$est/simplereenroll"
check "simplereenroll with a new key: 202, and 200 once approved"
demand 400 "a body that is no base64" "${mtls[@]}" --data-binary 'not base64 at all!' "$est/simplereenroll"
demand 403 "a random request" "${mtls[@]}" --data-binary "$(head -c 300 /dev/urandom | base64)" "$est/simplereenroll"
check "broken bodies: 400 and 403"

# A member that is out renews nothing.
out() { "$hie" authority "$1" --dir "$region" urn:oid:2.999.8.1 >/dev/null 2>&1; }
out suspend
demand 403 "simplereenroll while suspended" "${mtls[@]}" "${first[@]}" "$est/simplereenroll"
out reinstate
demand 200 "simplereenroll after the return" "${mtls[@]}" "${first[@]}" "$est/simplereenroll"
out revoke
demand 403 "simplereenroll after the revocation" "${mtls[@]}" "${first[@]}" "$est/simplereenroll"
check "suspended 403, reinstated 200, revoked 403"
echo "all checks passed"
