//! A Postgres server for one test run, and a new database in it for each test.
//!
//! `tests/run` starts one server for everything it runs and names it in [`VARIABLE`]. Without that variable the first test of
//! a process that asks starts one, which ends with the process, however that ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

/// Names the server that `tests/run` has started, or one of the developer's own that tests may fill with databases.
pub const VARIABLE: &str = "HALFMOON_TEST_POSTGRES";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../postgres.sh");

/// A server of this process.
struct Server {
    url: String,
    /// The server stops when its standard input ends, which is when this process does.
    _running: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A new, empty database.
///
/// # Panics
/// When there is no Postgres; standard error says what to install.
pub async fn database() -> PgConnectOptions {
    let server = options();
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_{}_{number}", std::process::id());
    let mut connection = server.connect().await.expect("the test server is running");
    for sql in [
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("CREATE DATABASE {name}"),
        // Wherever the user has the name of a schema, tables would be made there.
        format!("ALTER DATABASE {name} SET search_path TO public"),
    ] {
        connection
            .execute(AssertSqlSafe(sql))
            .await
            .expect("the test server lets its user create databases");
    }
    connection.close().await.expect("the server is running");
    server.database(&name)
}

/// A pool of four connections to a new, empty database.
///
/// # Panics
/// As [`database`].
pub async fn pool() -> PgPool {
    PgPoolOptions::new()
        .max_connections(4)
        .connect_with(database().await)
        .await
        .expect("the test server is running")
}

/// The URL of the server.
///
/// # Panics
/// As [`database`].
pub fn url() -> &'static str {
    &SERVER.get_or_init(start).url
}

/// The URL of the database `options` lead to.
#[must_use]
pub fn url_of(options: &PgConnectOptions) -> String {
    let name = options.get_database().unwrap_or("postgres");
    url().replacen("/postgres?", &format!("/{name}?"), 1)
}

fn options() -> PgConnectOptions {
    let options: PgConnectOptions = url().parse().expect("the URL of a Postgres server");
    options.disable_statement_logging()
}

fn start() -> Server {
    if let Ok(url) = std::env::var(VARIABLE) {
        return Server {
            url,
            _running: None,
        };
    }
    let mut running = Command::new(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/postgres.sh can be run");
    let mut url = String::new();
    let said = running.stdout.take().expect("it is piped");
    BufReader::new(said)
        .read_line(&mut url)
        .expect("what it says is text");
    let url = url.trim().to_owned();
    assert!(
        !url.is_empty(),
        "these tests need Postgres; standard error says what to install"
    );
    Server {
        url,
        _running: Some(running),
    }
}
