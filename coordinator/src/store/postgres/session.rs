//! Where a database is, how a connection to it is made and set up, and what its errors mean.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, PgPool};

use super::Options;
use crate::store::StoreError;

/// In a URL: behind a pooler that gives whole transactions only.
const POOLED: &str = "statement-cache-capacity=0";

/// A query with its arguments.
pub(super) type Query = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// A database and how to use it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    connect: PgConnectOptions,
    pub(super) options: Options,
    /// Sessions are somebody else's: nothing may outlive a transaction in them.
    pub(super) pooled: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connect = &self.connect;
        let database = connect
            .get_database()
            .unwrap_or_else(|| connect.get_username());
        match connect.get_socket() {
            Some(folder) => write!(f, "Postgres database {database} at {}", folder.display()),
            None => {
                let (host, port) = (connect.get_host(), connect.get_port());
                write!(f, "Postgres database {database} at {host}:{port}")
            }
        }
    }
}

impl Place {
    /// The place `url` names; nothing is connected yet.
    pub(super) fn new(url: &str, options: Options) -> Result<Self, StoreError> {
        // The URL may hold a password: errors do not show it.
        let wrong = |why: String| {
            StoreError::Foreign(format!(
                "the database's URL is not understood ({why}); write postgres://USER@HOST/DATABASE"
            ))
        };
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(wrong("it names no Postgres".into()));
        }
        let connect = PgConnectOptions::from_str(url).map_err(|error| wrong(error.to_string()))?;
        let pooled = url
            .split(['?', '&'])
            .skip(1)
            .any(|parameter| parameter == POOLED);
        let connect = connect
            .application_name("halfmoon")
            .disable_statement_logging();
        Ok(Self {
            connect: if pooled {
                connect.extra_float_digits(None)
            } else {
                connect
            },
            options,
            pooled,
        })
    }

    /// Connects; the session is set up unless it belongs to a pooler.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.in_time(async {
            let mut connection = self.connect.connect().await?;
            if !self.pooled {
                self.set_up(&mut connection).await?;
            }
            Ok(connection)
        })
        .await
    }

    /// Connections for reading, made when they are needed.
    pub(super) fn readers(&self) -> PgPool {
        let place = self.clone();
        PgPoolOptions::new()
            .max_connections(self.options.readers.max(1))
            .acquire_timeout(self.options.answer_time)
            // A server that was started again has ended every connection: a ping is cheaper than a failed read.
            .test_before_acquire(true)
            .after_connect(move |connection, _| {
                let place = place.clone();
                Box::pin(async move {
                    if place.pooled {
                        return Ok(());
                    }
                    place.set_up(connection).await
                })
            })
            .connect_lazy_with(self.connect.clone())
    }

    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let sql = self.settings(false);
        connection.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }

    /// What a transaction begins with that sees the database as it is at one moment, and changes nothing.
    pub(super) fn begin_reading(&self) -> String {
        self.beginning("REPEATABLE READ READ ONLY")
    }

    /// What a transaction of ours begins with: `READ COMMITTED` said aloud, since the default is the database's to set. In a
    /// session of our own the rest is set already.
    pub(super) fn begin(&self) -> String {
        self.beginning("READ COMMITTED READ WRITE")
    }

    fn beginning(&self, level: &str) -> String {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        if self.pooled {
            format!("{begin}; {}", self.settings(true))
        } else {
            begin
        }
    }

    /// One statement with what a session, or a transaction, is to be like.
    fn settings(&self, in_transaction: bool) -> String {
        let ms = |time: Duration| time.as_millis().max(1).to_string();
        let Options {
            lock_wait,
            statement_time,
            ..
        } = self.options;
        // The planner's switches keep a plan that was made for empty tables good for full ones; they raise estimated costs,
        // which compiling statements (jit) would take at their word.
        let settings = [
            ("lock_timeout", ms(lock_wait)),
            ("statement_timeout", ms(statement_time)),
            ("idle_in_transaction_session_timeout", ms(statement_time)),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("client_min_messages", "warning".to_owned()),
            ("jit", "off".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "2".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "15000".to_owned()),
        ];
        let mut sql =
            "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                       WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, "
                .to_owned();
        sql.push_str(&format!("{in_transaction})"));
        for (name, value) in settings {
            sql.push_str(&format!(
                ", set_config('{name}', '{value}', {in_transaction})"
            ));
        }
        sql
    }

    /// The outcome of `work`, or an error once nobody has answered for too long. Whatever was sent may still take effect.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        match tokio::time::timeout(self.options.answer_time, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }
}

/// SQLSTATE, if Postgres said no.
pub(super) fn state(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Whether Postgres will never take what it was given: data exceptions, violated constraints, limits of the program.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    state(error).is_some_and(|state| {
        ["21", "22", "23", "54"]
            .iter()
            .any(|class| state.starts_with(class))
    })
}

/// The error of reading or connecting, by what it means.
pub(super) fn read_error(error: &sqlx::Error) -> StoreError {
    match state(error) {
        Some(state) if state.starts_with("XX") => StoreError::Damaged(text(error)),
        _ => StoreError::Unavailable(text(error)),
    }
}

/// What an error says, on one line.
pub(super) fn text(error: &sqlx::Error) -> String {
    let text = match (error, error.as_database_error()) {
        (_, Some(error)) => error.message().to_owned(),
        (sqlx::Error::PoolTimedOut, None) => "no answer in time".to_owned(),
        (error, None) => error.to_string(),
    };
    text.replace('\n', " ")
}
