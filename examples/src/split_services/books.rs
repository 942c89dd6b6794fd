//! What the databases and the audit say in the end: the books of the shop, and who decided the transactions how fast.

use anyhow::Result;
use coordinator::store::database::Database;

use crate::shop::catalog::Order;
use crate::shop::databases::Layout;
use crate::shop::kinds::{Kind, sql};
use crate::shop::reconcile::{Books, Check, Summary};
use crate::shop::report;

/// The books of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The numbers.
    pub summary: Summary,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Who decided, and how fast.
    pub deciders: Vec<Decider>,
}

/// The transactions that one kind of actor has decided, and the time they were open, in µs of the server's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// Who: `producer`, `marker` (a check-back that read the marker), and so on.
    pub actor: String,
    /// How many.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: i64,
    /// Nine of ten took no longer.
    pub p90: i64,
    /// 99 of 100 took no longer.
    pub p99: i64,
}

impl Outcome {
    /// Reads everything.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn read<DB: Kind>(
        shops: (&DB::Home, Layout),
        coordinator: &Database,
        asked: impl Iterator<Item = Order>,
    ) -> Result<Self> {
        const OPEN: &str = "SELECT d.actor, t.open_us FROM decisions d \
                            JOIN halfmoon.tx_view t ON t.id = d.id ORDER BY d.actor, t.open_us";
        let mut books = Books::<DB>::open(shops, coordinator, asked).await?;
        let open: Vec<(String, i64)> = DB::fetch(books.connection(), sql(OPEN)).await?;
        let outcome = Self {
            summary: books.summary().await?,
            checks: books.check().await?,
            deciders: open
                .chunk_by(|(one, _), (other, _)| one == other)
                .filter_map(decider)
                .collect(),
        };
        books.close().await?;
        Ok(outcome)
    }

    /// Everything in words; the last line sums it up.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = "Decided by      count     p50 ms     p90 ms     p99 ms\n".to_owned();
        for decider in &self.deciders {
            let ms = |us: i64| format!("{}.{:03}", us / 1000, us % 1000);
            out.push_str(&format!(
                "{:<12}{:>9}{:>11}{:>11}{:>11}\n",
                decider.actor,
                decider.count,
                ms(decider.p50),
                ms(decider.p90),
                ms(decider.p99)
            ));
        }
        out.push_str("(from prepared to decided; a marker is read by a check-back)\n\n");
        out + &report::text(&self.summary, &self.checks)
    }
}

/// One actor's decisions, the fastest first.
fn decider(decisions: &[(String, i64)]) -> Option<Decider> {
    let at = |percent: usize| {
        let rank = (decisions.len() * percent).div_ceil(100).max(1);
        decisions.get(rank - 1).map(|(_, open)| *open)
    };
    Some(Decider {
        actor: decisions.first()?.0.clone(),
        count: decisions.len(),
        p50: at(50)?,
        p90: at(90)?,
        p99: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let open = |count: i64| -> Vec<_> { (1..=count).map(|us| ("marker".into(), us)).collect() };
        let of = |count| decider(&open(count)).map(|d| (d.count, d.p50, d.p90, d.p99));
        assert_eq!(of(100), Some((100, 50, 90, 99)));
        assert_eq!(of(10), Some((10, 5, 9, 10)));
        assert_eq!(of(1), Some((1, 1, 1, 1)));
        assert_eq!(of(0), None);
    }
}
