//! How far the orders are: counted in the databases, shown on a terminal, and when all is quiet.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Result, bail};
use coordinator::engine::Coordinator;
use coordinator::engine::status::Health;
use indicatif::{ProgressBar, ProgressStyle};
use mq_core::clock::{Clock, SystemClock};

use super::databases::Databases;
use super::kinds::{Kind, sql};

/// How often the databases are asked.
const LOOK: Duration = Duration::from_millis(100);
/// After so long without any change the wait is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the orders are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Placed, and not ended.
    pub open: u64,
    /// Ended: accepted.
    pub accepted: u64,
    /// Ended: cancelled for stock.
    pub no_stock: u64,
    /// Ended: cancelled because the payment was refused.
    pub not_paid: u64,
    /// Ended: rejected by a rule, rolled back.
    pub rejected: u64,
    /// Of those cancelled for the payment, how many have their stock released.
    pub released: u64,
}

impl Count {
    /// Counts in every database.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn read<DB: Kind>(databases: &Databases<DB>) -> Result<Self> {
        const ORDERS: &str = "SELECT count(*) FILTER (WHERE status = 'placed'), \
                                     count(*) FILTER (WHERE status = 'accepted'), \
                                     count(*) FILTER (WHERE reason = 'stock'), \
                                     count(*) FILTER (WHERE reason = 'payment'), \
                                     (SELECT count(*) FROM rejected_order) FROM orders";
        const RELEASED: &str = "SELECT count(*) FROM reservation WHERE status = 'released'";
        let mut sum = Self::default();
        for pool in &databases.orders {
            let mut connection = pool.acquire().await?;
            let counted: Vec<(i64, i64, i64, i64, i64)> =
                DB::fetch(&mut connection, sql(ORDERS)).await?;
            let [(open, accepted, no_stock, not_paid, rejected)] = counted[..] else {
                bail!("orders cannot be counted");
            };
            sum.open += open.unsigned_abs();
            sum.accepted += accepted.unsigned_abs();
            sum.no_stock += no_stock.unsigned_abs();
            sum.not_paid += not_paid.unsigned_abs();
            sum.rejected += rejected.unsigned_abs();
        }
        for pool in &databases.stock {
            let mut connection = pool.acquire().await?;
            let released: i64 = DB::value(&mut connection, sql(RELEASED)).await?;
            sum.released += released.unsigned_abs();
        }
        Ok(sum)
    }

    /// Orders in an end state.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.accepted + self.no_stock + self.not_paid + self.rejected
    }

    /// The end states in words.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "{} accepted, {} without stock, {} unpaid, {} rejected",
            self.accepted, self.no_stock, self.not_paid, self.rejected
        )
    }
}

/// Waits until `total` orders have ended, what is to be released is released, and the coordinator has nothing open; shows
/// how far it is on the way.
///
/// # Errors
/// The coordinator has failed, a database cannot be read, or nothing has changed for a minute: then it says what is open.
pub async fn wait_until_quiet<DB: Kind>(
    databases: &Databases<DB>,
    coordinator: &Coordinator,
    total: u64,
) -> Result<Count> {
    let clock = SystemClock::new();
    let mut shown = Shown::new(total);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last, mut since) = (None, clock.monotonic());
    loop {
        look.tick().await;
        if let Health::Failed(why) = coordinator.status().health() {
            bail!("the coordinator has failed: {why}");
        }
        let count = Count::read(databases).await?;
        shown.update(&count);
        let ended = count.ended() >= total && count.open == 0 && count.released == count.not_paid;
        let open = if ended { open(coordinator).await? } else { 0 };
        if ended && open == 0 {
            shown.finish();
            return Ok(count);
        }
        let now = (count, open);
        if last != Some(now) {
            (last, since) = (Some(now), clock.monotonic());
        } else if clock.monotonic().saturating_sub(since) > PATIENCE {
            bail!(
                "nothing has changed for {PATIENCE:?}: {} of {total} orders have ended, {} are open, {} wait for their \
                 stock to be released, {open} transactions are open",
                count.ended(),
                count.open,
                count.not_paid.saturating_sub(count.released),
            );
        }
    }
}

/// Transactions that are not decided, or committed and not published.
async fn open(coordinator: &Coordinator) -> Result<u64> {
    coordinator.write_held().await.map_err(anyhow::Error::msg)?;
    let topics = coordinator.reader().open_topics().await?;
    Ok(topics.iter().map(|(_, open)| open).sum())
}

/// A bar on a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub struct Shown(Display);

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines { total: u64, next: u64 },
}

impl Shown {
    /// Nothing yet of `total` orders.
    #[must_use]
    pub fn new(total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(Display::Lines { total, next: 0 });
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} orders  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(Display::Bar(ProgressBar::new(total).with_style(style)))
    }

    /// Shows how far the orders are now.
    pub fn update(&mut self, count: &Count) {
        match &mut self.0 {
            Display::Bar(bar) => {
                bar.set_position(count.ended());
                bar.set_message(count.words());
            }
            Display::Lines { total, next } if count.ended() >= *next => {
                eprintln!("{} of {total} orders: {}", count.ended(), count.words());
                *next = count.ended() + (*total / 5).max(1);
            }
            Display::Lines { .. } => {}
        }
    }

    /// Says something else in between.
    pub fn say(&self, line: &str) {
        match &self.0 {
            Display::Bar(bar) => bar.println(line),
            Display::Lines { .. } => eprintln!("{line}"),
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Display::Bar(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}
