//! What is started for the shop and where it listens: free ports of this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::POSTGRES;
use super::processes::Plan;

/// Folder of the server inside the data folder.
pub const SERVER_FOLDER: &str = "server";
/// What people call the server.
pub const SERVER: &str = "the server";

/// What is started, in this order: over `folder`, with every table in the Postgres database if there is one.
///
/// # Errors
/// The folder's path is not UTF-8, or no port is free.
pub fn plans(folder: &Path, postgres: Option<&str>) -> Result<Vec<Plan>> {
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("the folder's path is not UTF-8")
    };
    let (nameserver, broker) = (free_port()?, free_broker_port()?);
    let nameserver = SocketAddr::from((Ipv4Addr::LOCALHOST, nameserver)).to_string();
    let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, broker)).to_string();
    // Not as arguments: everybody on the machine may read those, and a URL may hold a password.
    let database = |name| postgres.map(|url| (name, url.to_owned()));
    let server = Plan {
        name: SERVER,
        arguments: vec![
            "server".into(),
            "--data".into(),
            path(&folder.join(SERVER_FOLDER))?,
        ],
        variables: [
            ("HALFMOON_NAMESERVER_LISTEN", nameserver.clone()),
            ("HALFMOON_BROKER_LISTEN", broker),
        ]
        .into_iter()
        .chain(database("HALFMOON_DATABASE"))
        .collect(),
    };
    let folder = path(folder)?;
    let service = |name, command: &str| {
        let mut arguments = vec![command.to_owned(), "--with-parent".into()];
        arguments.extend([
            "--data".into(),
            folder.clone(),
            "-n".into(),
            nameserver.clone(),
        ]);
        if command == "order" {
            arguments.extend(["--listen".into(), "127.0.0.1:0".into()]);
        }
        Plan {
            name,
            arguments,
            variables: database(POSTGRES).into_iter().collect(),
        }
    };
    Ok(vec![
        server,
        service("the stock service", "stock"),
        service("the payment service", "payment"),
        service("the order service's first instance", "order"),
        service("the order service's second instance", "order"),
    ])
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A free port whose neighbour two below is free as well: old clients of RocketMQ go there.
fn free_broker_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        if port > 2 && TcpListener::bind((Ipv4Addr::LOCALHOST, port - 2)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port with a free one two below it")
}
