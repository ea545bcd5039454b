# SPDX-License-Identifier: Apache-2.0
# talk.sh NAME=HOST...: talks to port 8080 of each host, over one connection that stays open and over new ones, and writes
# a line for each exchange into /log/NAME.kept and /log/NAME.new: milliseconds since 1970 and `ok`, `open` or `lost`.
# Nothing is forked in the loops: they are many, and run while the machine has other things to do.
trap '' PIPE
exec 4<> <(:)

say() {
    local time=${EPOCHREALTIME/[.,]/}
    echo "${time%???} $1"
}

pause() { read -r -t "$1" -u 4; }

connect() { { exec 3<>"/dev/tcp/$1/8080"; } 2>/dev/null; }

# One question on the connection, and its whole answer.
ask() {
    local line length=
    printf 'GET /hostname HTTP/1.1\r\nHost: server\r\n\r\n' >&3 || return 1
    while read -r -t 20 -u 3 line; do
        line=${line%$'\r'}
        case $line in
            Content-Length:*) length=${line#*: } ;;
            '') break ;;
        esac
    done
    [ -n "$length" ] && read -r -t 20 -N "$length" -u 3 line
} 2>/dev/null

keep() {
    while :; do
        if connect "$1"; then
            say open
            while ask; do
                say ok
                pause 0.2
            done
            exec 3>&-
        fi
        say lost
        pause 0.5
    done
}

renew() {
    while :; do
        if connect "$1" && ask; then say ok; else say lost; fi
        exec 3>&-
        pause 0.4
    done
}

for target; do
    keep "${target#*=}" >"/log/${target%%=*}.kept" &
    renew "${target#*=}" >"/log/${target%%=*}.new" &
done
wait
