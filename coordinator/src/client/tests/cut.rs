//! A connection to Postgres that breaks in the middle of COMMIT: before the server has it, or before the service hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::on_postgres::{Service, place_order, service_over};
use crate::client::half::Settled;
use crate::marker::Marker;
use crate::transaction::Resolution;

const PASS: u8 = 0;
const CUT_BEFORE: u8 = 1;
const CUT_BEHIND: u8 = 2;

/// Stands between a service and its database.
struct Line(Arc<AtomicU8>);

impl Line {
    /// A line to the database that `options` lead to, and how to reach it through the line.
    async fn lay(options: PgConnectOptions) -> (Self, PgConnectOptions) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let through = PgConnectOptions::new()
            .host("127.0.0.1")
            .port(port)
            .username(options.get_username())
            .database(options.get_database().unwrap())
            .ssl_mode(PgSslMode::Disable);
        let cut = Arc::new(AtomicU8::new(PASS));
        let line = Self(cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (options, cut) = (options.clone(), cut.clone());
                tokio::spawn(async move {
                    // An end is an end, whichever side it comes from.
                    let _ = match options.get_socket() {
                        Some(folder) => {
                            let name = format!(".s.PGSQL.{}", options.get_port());
                            let server = UnixStream::connect(folder.join(name)).await.unwrap();
                            carry(client, server, &cut).await
                        }
                        None => {
                            let place = (options.get_host(), options.get_port());
                            let server = TcpStream::connect(place).await.unwrap();
                            carry(client, server, &cut).await
                        }
                    };
                });
            }
        });
        (line, through)
    }

    fn set(&self, cut: u8) {
        self.0.store(cut, Ordering::SeqCst);
    }
}

/// Carries bytes both ways until one side ends, or a COMMIT comes and the line is to be cut there.
async fn carry(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    cut: &AtomicU8,
) -> std::io::Result<()> {
    let (mut to_server, mut to_client) = ([0; 8192], [0; 8192]);
    loop {
        tokio::select! {
            count = client.read(&mut to_server) => {
                let bytes = &to_server[..count?];
                let commits = bytes.windows(6).any(|word| word == b"COMMIT");
                match cut.load(Ordering::SeqCst) {
                    CUT_BEFORE if commits => return Ok(()),
                    CUT_BEHIND if commits => {
                        server.write_all(bytes).await?;
                        return server.read(&mut to_client).await.map(|_| ());
                    }
                    _ if bytes.is_empty() => return Ok(()),
                    _ => server.write_all(bytes).await?,
                }
            }
            count = server.read(&mut to_client) => {
                let bytes = &to_client[..count?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

async fn service() -> (Line, Service) {
    let (line, through) = Line::lay(private_postgres::database().await).await;
    let pool = PgPoolOptions::new().max_connections(4);
    let pool = pool.connect_with(through).await.unwrap();
    (line, service_over(pool).await)
}

#[tokio::test]
async fn story_7_a_line_that_breaks_in_the_commit_says_nothing_and_the_marker_decides() {
    let (line, service) = service().await;
    for (cut, resolution, marker, orders) in [
        (CUT_BEHIND, Resolution::Commit, Marker::Committed, 1),
        (CUT_BEFORE, Resolution::RollBack, Marker::Tombstone, 1),
    ] {
        let mut tx = service.begin().await;
        let id = tx.id();
        if cut == CUT_BEHIND {
            place_order(&mut tx).await.unwrap();
        } else {
            sqlx::raw_sql("INSERT INTO orders VALUES (10249)")
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        line.set(cut);
        let settled = tx.commit().await.unwrap();
        line.set(PASS);
        assert!(matches!(settled, Settled::Deferred(_)), "{settled:?}");
        assert_eq!(service.said_about(id), [], "neither COMMIT nor ROLLBACK");
        // As long as the server has not noticed, the row is locked.
        let mut answer = service.check(id).await;
        while answer == Resolution::InFlight {
            answer = service.check(id).await;
        }
        assert_eq!(answer, resolution);
        assert_eq!(service.store.read(id).await, Ok(Some(marker)));
        assert_eq!(service.orders().await, orders);
    }
}
