#!/usr/bin/env bash
# A private Postgres server for tests: in a new folder, on a Unix socket in it, without TCP, as an ordinary user.
#
#   tests/postgres.sh          starts one, prints its URL, stops it and removes the folder when standard input ends
#   tests/postgres.sh --keep   starts one that stays, prints its URL
#   tests/postgres.sh --need   only sees to it that Postgres is installed
#   tests/postgres.sh --programs   prints the folder of its programs and the user that runs them
#
# Everything but the URL goes to standard error. Exit status 2: there is no Postgres here; the last line says what to do.
set -uo pipefail
# Whoever is put in charge of the server below may be unable to read the current directory.
cd /

oldest=14
cannot() {
    printf 'postgres for tests: %s\n' "$*" >&2
    exit 2
}

# Sets `bin` to the folder of the newest server programs.
find_programs() {
    local found
    bin=
    for found in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin \
        2>/dev/null | sort -t/ -k5 -V -r) $(dirname "$(command -v initdb 2>/dev/null)" 2>/dev/null); do
        if [ -x "$found/initdb" ] && [ -x "$found/postgres" ]; then
            bin=$found
            return 0
        fi
    done
    return 1
}

# Installs the server on Debian as root, without the cluster that Debian would make and start.
install_programs() {
    local install="apt-get install -y postgresql"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        cannot "no Postgres server here (initdb, postgres; version $oldest or newer). Install one, on Debian: sudo $install"
    fi
    {
        echo "== no Postgres: $install"
        apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-common &&
            mkdir -p /etc/postgresql-common/createcluster.d &&
            echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/no-cluster.conf &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql
    } >&2
    find_programs || cannot "Postgres could not be installed. Install it by hand, on Debian: $install"
}

find_programs || install_programs
version=$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
[ "${version:-0}" -ge "$oldest" ] || cannot "Postgres $version in $bin is too old; install version $oldest or newer"
[ "${1-}" = --need ] && exit 0

# Postgres refuses to run as root.
user=$(id -un)
if [ "$(id -u)" = 0 ]; then
    user=nobody
    id postgres >/dev/null 2>&1 && user=postgres
fi
[ "${1-}" = --programs ] && printf '%s %s\n' "$bin" "$user" && exit 0

# The socket's path has to fit into some hundred bytes.
folder=$(mktemp -d "${TMPDIR:-/tmp}/halfmoon-postgres.XXXXXX") || cannot "cannot create a folder in ${TMPDIR:-/tmp}"
data=$folder/data
server=

as_user=()
if [ "$(id -u)" = 0 ]; then
    chown "$user" "$folder"
    as_user=(runuser -u "$user" --)
fi

stop() {
    if [ -f "$data/postmaster.pid" ]; then
        "${as_user[@]}" "$bin/pg_ctl" stop -D "$data" -m immediate -w >/dev/null 2>&1
    fi
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP

say() {
    "${as_user[@]}" "$@" >>"$folder/said" 2>&1 </dev/null || {
        cat "$folder/said" "$folder/log" >&2 2>/dev/null
        cannot "$(basename "$1") failed, see above"
    }
}

: >"$folder/said"
: >"$folder/log"
[ ${#as_user[@]} -eq 0 ] || chown "$user" "$folder/said" "$folder/log"
say "$bin/initdb" -D "$data" -U halfmoon -A trust -E UTF8 --locale=C --no-instructions
cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$folder'
unix_socket_permissions = 0700
fsync = on
max_connections = 300
max_prepared_transactions = 0
logging_collector = off
CONF
# A session of its own: what ends the tests from a keyboard reaches the trap above, not the server.
say setsid "$bin/pg_ctl" start -D "$data" -l "$folder/log" -w -t 60
# In the user's place it would be percent-encoded; as a parameter the path stands as it is.
printf 'postgres://halfmoon@localhost/postgres?host=%s\n' "$folder"

if [ "${1-}" = --keep ]; then
    trap - EXIT
    printf 'stop it with: %s%s/pg_ctl stop -D %s; then remove %s\n' "${as_user[*]:+${as_user[*]} }" "$bin" "$data" "$folder" >&2
    exit 0
fi
exec >&-
cat >/dev/null
