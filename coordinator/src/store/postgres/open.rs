//! Opening a database: what kind of server it is, whose the schema is, how old its tables are, and bringing them up to date.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use super::session::{Place, state, text};
use crate::store::StoreError;

/// The oldest Postgres that is used: the oldest that still gets corrections.
const OLDEST_POSTGRES: i32 = 14;

/// The comment on `halfmoon.migration` by which a schema is known to be ours.
const MARK: &str = "Halfmoon: transactions, their history and its seals";

/// Keeps two programs that open the same new database apart: "HMtx".
const OPENING: i64 = 0x484D_7478;

/// The changes to the tables, oldest first; `halfmoon.migration` names those a database has.
const MIGRATIONS: [(&str, &str); 4] = [
    (
        "0001_transactions",
        include_str!("../../../../sql/postgres/0001_transactions.sql"),
    ),
    (
        "0002_moved",
        include_str!("../../../../sql/postgres/0002_moved.sql"),
    ),
    (
        "0003_forgotten",
        include_str!("../../../../sql/postgres/0003_forgotten.sql"),
    ),
    (
        "0004_fingerprints",
        include_str!("../../../../sql/postgres/0004_fingerprints.sql"),
    ),
];

/// Whose the schema is.
enum Found {
    /// There is none, or nothing in it.
    Empty,
    /// Ours, with so many migrations.
    Ours(usize),
}

/// What the server says of itself.
struct Server {
    version: i32,
    is_standby: bool,
    is_read_only: bool,
    encoding: String,
    fsync: String,
}

/// Makes sure that the database has today's tables of ours and that its server keeps promises.
pub(super) async fn prepare(place: &Place) -> Result<(), StoreError> {
    let mut connection = connect(place).await?;
    let server = ask(place, &mut connection).await?;
    refuse_server(place, &server)?;
    let done = match look(place, &mut connection).await? {
        Found::Ours(done) => done,
        Found::Empty => 0,
    };
    if done < MIGRATIONS.len() {
        migrate(place, &mut connection).await?;
    }
    // An error while closing a connection that has nothing open changes nothing.
    let _ = connection.close().await;
    Ok(())
}

/// Makes sure that the database has today's tables of ours, and changes nothing.
pub(super) async fn inspect(place: &Place) -> Result<(), StoreError> {
    let mut connection = connect(place).await?;
    let found = look(place, &mut connection).await?;
    // As above.
    let _ = connection.close().await;
    let known = MIGRATIONS.len();
    match found {
        Found::Ours(done) if done == known => Ok(()),
        Found::Ours(done) => Err(foreign(
            place,
            &format!(
                "has tables of version {done}, this program reads {known}; start it once, which brings them up to date"
            ),
        )),
        Found::Empty => Err(foreign(
            place,
            "has no tables of ours; it gets them when it is first opened for writing",
        )),
    }
}

async fn connect(place: &Place) -> Result<PgConnection, StoreError> {
    place.connect().await.map_err(|error| {
        let why = text(&error);
        // No such database, or nobody who may use it: trying again does not help.
        let wrong = state(&error).is_some_and(|state| state == "3D000" || state.starts_with("28"));
        if wrong {
            foreign(
                place,
                &format!("cannot be opened: {why}; correct the URL or create it"),
            )
        } else {
            unusable(place, &error)
        }
    })
}

async fn ask(place: &Place, connection: &mut PgConnection) -> Result<Server, StoreError> {
    let facts = "SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), \
                 current_setting('default_transaction_read_only') = 'on', current_setting('server_encoding'), \
                 current_setting('fsync')";
    let row = first(place, connection, facts).await?;
    Ok(Server {
        version: row.get(0),
        is_standby: row.get(1),
        is_read_only: row.get(2),
        encoding: row.get(3),
        fsync: row.get(4),
    })
}

fn refuse_server(place: &Place, server: &Server) -> Result<(), StoreError> {
    let version = server.version;
    if version < OLDEST_POSTGRES {
        let why = format!("is Postgres {version}; use {OLDEST_POSTGRES} or newer");
        return Err(foreign(place, &why));
    }
    if server.is_standby {
        return Err(foreign(place, "is a standby; give the URL of the primary"));
    }
    if server.is_read_only {
        return Err(foreign(
            place,
            "is read-only; set default_transaction_read_only = off for this user and database",
        ));
    }
    if server.encoding != "UTF8" {
        let why = format!("is encoded as {}; create one as UTF8", server.encoding);
        return Err(foreign(place, &why));
    }
    if server.fsync != "on" {
        return Err(foreign(
            place,
            "runs with fsync=off, so that a power cut could undo decisions; set fsync = on",
        ));
    }
    Ok(())
}

/// Reads whose the schema is, without changing it.
async fn look(place: &Place, connection: &mut PgConnection) -> Result<Found, StoreError> {
    let things = "SELECT count(*), obj_description(to_regclass('halfmoon.migration'), 'pg_class') FROM pg_class \
                  WHERE relnamespace = to_regnamespace('halfmoon')";
    let row = first(place, connection, things).await?;
    let (things, mark): (i64, Option<String>) = (row.get(0), row.get(1));
    if things == 0 {
        return Ok(Found::Empty);
    }
    if mark.as_deref() != Some(MARK) {
        return Err(foreign(
            place,
            "has a schema halfmoon of another application; give a database of its own for Halfmoon",
        ));
    }
    let row = first(place, connection, "SELECT count(*) FROM halfmoon.migration").await?;
    let version: i64 = row.get(0);
    match usize::try_from(version) {
        Ok(done) if done <= MIGRATIONS.len() => Ok(Found::Ours(done)),
        _ => {
            let known = MIGRATIONS.len();
            let why = format!(
                "has tables of version {version}, this program knows {known}; run a newer program"
            );
            Err(foreign(place, &why))
        }
    }
}

/// Applies what is missing, all or nothing.
async fn migrate(place: &Place, connection: &mut PgConnection) -> Result<(), StoreError> {
    run(place, connection, place.begin()).await?;
    // Another process may have been faster since we looked; whoever has the lock ends first.
    run(
        place,
        connection,
        format!("SELECT pg_advisory_xact_lock({OPENING})"),
    )
    .await?;
    let done = match look(place, connection).await? {
        Found::Ours(done) => done,
        Found::Empty => {
            create_schema(place, connection).await?;
            0
        }
    };
    for ((name, sql), number) in MIGRATIONS.iter().zip(1..).skip(done) {
        run(place, connection, (*sql).to_owned()).await?;
        let noted = format!("INSERT INTO halfmoon.migration VALUES ({number}, '{name}')");
        run(place, connection, noted).await?;
    }
    run(place, connection, "COMMIT".to_owned()).await
}

async fn create_schema(place: &Place, connection: &mut PgConnection) -> Result<(), StoreError> {
    // Who may not create schemas can be given an empty one.
    let there = "SELECT to_regnamespace('halfmoon') IS NOT NULL";
    if !first(place, connection, there).await?.get::<bool, _>(0) {
        run(place, connection, "CREATE SCHEMA halfmoon".to_owned()).await?;
    }
    let table = "CREATE TABLE halfmoon.migration (number integer PRIMARY KEY, name text NOT NULL)";
    run(place, connection, table.to_owned()).await?;
    let mark = format!("COMMENT ON TABLE halfmoon.migration IS '{MARK}'");
    run(place, connection, mark).await
}

async fn first(
    place: &Place,
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<sqlx::postgres::PgRow, StoreError> {
    // As plain text, so that nothing is prepared in a session that may be a pooler's.
    let asked = place.in_time(connection.fetch_one(sqlx::raw_sql(sql)));
    asked.await.map_err(|error| unusable(place, &error))
}

async fn run(place: &Place, connection: &mut PgConnection, sql: String) -> Result<(), StoreError> {
    let ran = place.in_time(async {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await
    });
    let ran = ran.await.map_err(|error| match state(&error).as_deref() {
        Some("42501") => {
            let why = format!(
                "cannot be given tables: {}; let its user create a schema, or create an empty schema halfmoon for it",
                text(&error)
            );
            foreign(place, &why)
        }
        Some("25006") => foreign(place, "is read-only; give one that can be written"),
        _ => unusable(place, &error),
    });
    ran.map(|_| ())
}

fn foreign(place: &Place, why: &str) -> StoreError {
    StoreError::Foreign(format!("{place} {why}"))
}

fn unusable(place: &Place, error: &sqlx::Error) -> StoreError {
    StoreError::Unavailable(format!("{place}: {}", text(error)))
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    #[test]
    fn a_server_that_keeps_no_promises_is_refused() {
        let place = Place::new("postgres://u@h/d", Options::default()).unwrap();
        let good = || Server {
            version: 14,
            is_standby: false,
            is_read_only: false,
            encoding: "UTF8".into(),
            fsync: "on".into(),
        };
        assert_eq!(refuse_server(&place, &good()), Ok(()));
        let (mut old, mut standby, mut careless) = (good(), good(), good());
        old.version = 13;
        standby.is_standby = true;
        careless.fsync = "off".into();
        for (server, why) in [
            (old, "use 14 or newer"),
            (standby, "is a standby"),
            (careless, "fsync=off"),
        ] {
            let error = refuse_server(&place, &server).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("d at h:5432"),
                "{error}"
            );
        }
    }
}
