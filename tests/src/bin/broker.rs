//! A broker and a coordinator that listen on one port: `broker FOLDER [STEP[:N]]`. Its first line is its address.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coordinator::embedded::{self, Embedded};
use mq_core::remoting::listener::Listener;
use mq_core::serving::{BrokerService, Presence};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("FOLDER is missing")?);
    if let Some(step) = arguments.next() {
        coordinator::steps::arm(&step)?;
    }
    let mut settings = embedded::Settings::default();
    let check_back = &mut settings.coordinator.check_back;
    check_back.immunity = Duration::from_secs(2);
    check_back.longest_wait = Duration::from_secs(3);
    check_back.budget = 4;
    let halfmoon = Embedded::open(folder, settings).await?;
    let listener = Listener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).await?;
    let SocketAddr::V4(advertised) = listener.address()? else {
        bail!("the listener is not where it was bound");
    };
    let presence = Presence {
        cluster: "DefaultCluster".into(),
        name: "broker-a".into(),
        advertised,
    };
    println!("{advertised}");
    let service = BrokerService::new(halfmoon.broker().clone(), presence);
    let (_stop, stopped) = watch::channel(false);
    listener.serve(service, stopped).await;
    Ok(())
}
