# shellcheck shell=bash
# The operator's pages, with the server that server.sh started. Sourced, not run.
# shellcheck disable=SC2154 # set by the script that this is sourced by

evil='<script>alert(1)</script>"><img src=x onerror=alert(2)>&'"'"'); DROP TABLE event; --'
user_add() { printf 'correct horse\n' | "$fleet" user add "$1" --role "$2" --database "$database"; }
check 'an operator is made' user_add olga operator
check 'a viewer is made' user_add vera viewer
refuses 1 '8 to 200' 'a short password is refused' "$fleet" user add olga --role viewer --database "$database"
refuses 1 'no name' 'a name with markup in it is refused' "$fleet" user add '<b>' --role viewer --database "$database"

# page WHO PATH [CURL ARGUMENT...]: with the session of WHO.
page() {
    local who=$1 path=$2
    shift 2
    curl -s --max-time 60 --cacert fleet-data/ca.pem -b "$who.cookies" -c "$who.cookies" -D headers -o body \
        -w '%{http_code}' "$@" "$url$path" >status
}
shows() { # CODE WORD SENTENCE WHO PATH...: as `answers`, for a page
    local code=$1 word=$2 sentence=$3
    shift 3
    page "$@"
    check "$sentence" page_shown "$code" "$word"
}
page_shown() {
    [ "$(cat status)" = "$1" ] || { echo "status $(cat status), not $1"; head -c 900 body; return 1; }
    [ -z "$2" ] || grep -qE -- "$2" body || { echo "nothing of '$2' in:"; head -c 3000 body; return 1; }
}
form_token() { page "$1" /devices; grep -oE 'name="form_token" value="[0-9a-f]+"' body | head -n 1 | grep -oE '[0-9a-f]{32}'; }
escaped() { # no text of a camera is markup, and it is there as text
    ! grep -qiE '<script|<img src=x|onerror=alert\(2\)>' body && grep -qF '&lt;script&gt;alert(1)' body ||
        { grep -oiE '.{60}(<script|<img src=x).{60}' body; echo "not escaped, or not there"; return 1; }
}

shows 303 '' 'a page is shown to nobody who is not logged in' nobody /events
check 'but leads to the login' header_is location /login
shows 303 '' 'nor is evidence' nobody "/evidence/$picture"
shows 401 'wrong' 'a wrong password does not get in' olga /login --data-urlencode name=olga --data-urlencode password=wrong
shows 401 'wrong' 'nor does an unknown name' olga /login --data-urlencode "name=$evil" --data-urlencode password=wrong
shows 303 '' 'the right one does' olga /login --data-urlencode name=olga --data-urlencode 'password=correct horse'
check 'with a cookie that only this server gets back' header_matches set-cookie '^__Host-.*Secure; HttpOnly; SameSite=Strict'
page vera /login --data-urlencode name=vera --data-urlencode 'password=correct horse'

TEXT=$evil PICTURE=$picture events "$alpha" 00000000000000fe 1 >batch.json
answers 200 '"committed":1' 'markup and SQL in every text of an event are taken' as alpha batch batch.json
shows 200 'front door' 'the events are listed' vera '/events?words=alert'
check 'with every text escaped' escaped
check 'and a policy that lets nothing else in' header_matches content-security-policy "^default-src 'none'; style-src 'self'; img-src 'self'"
page vera /events/"$alpha"/000000fe00000001
check 'an event is shown' page_shown 200 'Is someone there'
check 'with every text of it escaped' escaped
check 'its sentence, level and score are there' page_shown 200 'Someone fell'
check 'and every step' page_shown 200 'anomalous; fall'
check 'and its picture' page_shown 200 "<img src=\"/evidence/$picture\""
shows 200 '' 'the picture is served' vera "/evidence/$picture"
check 'as what it is' header_is content-type image/jpeg
check 'and as nothing else' header_is x-content-type-options nosniff
check 'byte by byte' cmp body picture
shows 404 'nothing here' 'what is no object is not' vera /evidence/..%2f..%2fca-key.pem
shows 404 'nothing here' 'what is no event is said' vera /events/0000000000000000/0000000000000000

search() { page vera "/events" -G "$@"; grep -o 'href="/events/' body | wc -l; }
finds() { local n=$1; shift; [ "$(search "$@")" = "$n" ] || { cat status; head -c 2000 body; return 1; }; }
check 'a search by words finds it' finds 1 --data-urlencode words='alert fell' --data-urlencode camera="front door$evil"
check 'a search by a device finds its own' finds 1 --data-urlencode device="$(cat gamma.id)"
check 'a search by level and kind finds those' finds 1 -d kind=health -d level=alert
check 'a search by time finds nothing before' finds 0 -d until=2026-11-03
check 'and everything after' [ "$(search -d from=2026-11-03T12:00)" = 100 ]
check 'a page further there is the rest' [ "$(search -d from=2026-11-03 -d page=1)" -gt 90 ]
check 'SQL in the words finds what holds it and breaks nothing' finds 2 --data-urlencode "words=x'); DROP TABLE event; --"
shows 400 'no time' 'a time that is none is said' vera '/events?from=soon'
shows 400 'level' 'and what is no level' vera '/events?level=%22%3E%3Cscript%3E'

shows 200 'front &lt;b&gt;door' 'the devices are listed, their names escaped' vera /devices
check 'with those that are revoked' page_shown 200 'revoked'
shows 200 'whole up to seq' 'a device is shown with what has come' vera "/devices/$alpha"
check 'and no button for a viewer' bash -c '! grep -q "Revoke this" body'
check 'a new device joins' enrol delta "$(token)"
delta=$(cat delta.id)
token_of_vera=$(form_token vera) token_of_olga=$(form_token olga)
shows 403 'operator' 'a viewer cannot revoke' vera "/devices/$delta/revoke" -d "form_token=$token_of_vera"
shows 403 'session' 'a form of another session cannot' olga "/devices/$delta/revoke" -d "form_token=$token_of_vera"
shows 403 'session' 'nor one without its token' olga "/devices/$delta/revoke" -d form_token=
is 'and then it is not revoked' f "SELECT revoked IS NOT NULL FROM device WHERE id = '$delta'"
shows 303 '' 'an operator revokes' olga "/devices/$delta/revoke" -d "form_token=$token_of_olga"
answers 403 'revoked' 'and the device is shut out' as delta get "/v1/events/committed?epoch=$epoch"
is 'which is in the audit log' 'olga|revoked' "SELECT person, action FROM audit WHERE subject = '$delta' AND action <> 'enrolled'"
shows 200 "$delta" 'and on its page' vera /audit
check 'where names that were tried are escaped' escaped
shows 413 '' 'a form that is too large is refused' olga /login -d "name=$(head -c 20000 /dev/zero | tr '\0' x)"
page olga /logout -d "form_token=$token_of_olga"
shows 303 '' 'after logging out there is no session' olga /devices
wrong_passwords() { for _ in $(seq 11); do page eve /login -d name=vera -d password=guess; done; }
wrong_passwords
check 'after ten wrong passwords a name is locked for a while' page_shown 429 'too many'
