//! The SQL writer: the one task that speaks to the store, and the only order in which decisions happen.
//!
//! It collects what arrived while the previous commit was running, plans a batch with the [`Ledger`], commits it, hands the
//! decisions to the log and only then answers whoever waits.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mq_core::clock::Clock;
use mq_core::log::{Log, Position};
use mq_core::random::Random;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::check_at::CheckAt;
use super::command::{Command, Pending, Reply};
use super::feed::{Durable, Feed};
use super::forget::Forget;
use super::half::OWNER;
use super::holds::Holds;
use super::impostors;
use super::ledger::{Ledger, Now, Plan, Request, Slot, What};
use super::publish::{self, Decided, Final};
use super::recovery;
use super::retry::{Failed, Retrying};
use super::status::{Health, Status};
use crate::check_back::sweep;
use crate::check_back::sweep::Attempts;
use crate::steps;
use crate::store::{Half, Row, TxReader, TxWriter};
use crate::transaction::{Actor, Decision};

/// What a writer works with.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The wall clock of batches.
    pub clock: Arc<dyn Clock>,
    /// Reads beside the writer.
    pub reader: Arc<dyn TxReader>,
    /// Batch ids.
    pub random: Arc<dyn Random>,
    /// What became durable.
    pub feed: Arc<Feed>,
    /// One permit for each half message whose row may still be missing.
    pub slots: Arc<Semaphore>,
    /// Number of all slots.
    pub all_slots: usize,
    /// Topics that half messages wait for.
    pub holds: Holds,
    /// Wakes the sweep when a row was written that is due soon.
    pub wake: Arc<Notify>,
    /// Learns what needs no asking any more.
    pub attempts: Arc<Attempts>,
    /// Told when the store is gone for good.
    pub status: Status,
    /// How long rows are held back.
    pub hold: Duration,
    /// Most requests in a batch.
    pub batch: usize,
    /// When an undecided transaction whose row is written now is due.
    pub check_at: CheckAt,
}

/// Watermark moves of fewer bytes than this are not worth a batch of their own.
const WATERMARK_STEP: u64 = 4 << 20;

/// Longest time without a look at what there is to do.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The writer.
#[derive(Debug)]
pub struct Writer {
    parts: Parts,
    store: Retrying,
    ledger: Ledger,
    news: Vec<Durable>,
    /// What the writer itself has to say: finals that could not be published, or were after all.
    own: Vec<Pending>,
    /// Decisions that are with the log and of which the feed has not told yet.
    in_flight: usize,
    /// Numbers of decisions that are published again, until their rows say so.
    again: HashSet<u64>,
}

/// Why the writer stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Something was said or became durable.
    News,
    /// Nothing happened for a while.
    Silence,
    /// Nobody can say anything any more.
    Closed,
}

/// Lets everybody go first who has something to do now, for as long as that brings more commands: a batch costs about the
/// same whatever is in it. Nothing waits for a clock, and with nothing else to do this returns at once.
async fn gather(commands: &mut mpsc::Receiver<Command>, into: &mut Vec<Command>, most: usize) {
    let mut before = 0;
    while into.len() > before && into.len() < most {
        before = into.len();
        tokio::task::yield_now().await;
        while into.len() < most
            && let Ok(command) = commands.try_recv()
        {
            into.push(command);
        }
    }
}

impl Writer {
    /// A writer that continues where `ledger` stands, with `in_flight` decisions already handed to the log.
    #[must_use]
    pub fn new(parts: Parts, store: Box<dyn TxWriter>, ledger: Ledger, in_flight: usize) -> Self {
        let store = Retrying::new(store, parts.status.clone());
        Self {
            parts,
            store,
            ledger,
            news: Vec::new(),
            own: Vec::new(),
            in_flight,
            again: HashSet::new(),
        }
    }

    /// Works until all senders of `commands` are gone or the store is. Everything that was accepted is answered, or dropped
    /// when its outcome cannot be known.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let worked = self.work(&mut commands).await;
        self.store.close().await;
        match worked {
            Ok(()) => self.parts.status.set(Health::Stopped),
            Err(Failed) => {
                commands.close();
                while commands.recv().await.is_some() {}
            }
        }
    }

    async fn work(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), Failed> {
        let mut waiting = Vec::with_capacity(self.parts.batch);
        loop {
            let woken = self.wait(commands, &mut waiting).await;
            gather(commands, &mut waiting, self.parts.batch).await;
            let open = woken != Woken::Closed;
            self.take_news();
            let (mut pending, mut flushes) = (std::mem::take(&mut self.own), Vec::new());
            for command in waiting.drain(..) {
                match command {
                    Command::Say(one) => pending.push(*one),
                    Command::WriteHeld(reply) => flushes.push(reply),
                    Command::PublishAgain(rows) => self.publish_again(rows).await,
                    Command::Forget(forget, reply) => {
                        if let Some(count) = self.forget(forget).await? {
                            // Nobody waits any more: fine.
                            let _ = reply.send(count);
                        }
                    }
                }
            }
            let all = !flushes.is_empty() || !open;
            let hold = if all { Duration::ZERO } else { self.parts.hold };
            let now = self.parts.log.now();
            let due = self
                .ledger
                .oldest_held()
                .is_some_and(|oldest| oldest.after(hold) <= now);
            if !pending.is_empty() || due || (all && self.ledger.lags()) {
                self.batch(pending, hold).await?;
            } else if woken == Woken::Silence {
                self.idle().await?;
            }
            for reply in flushes {
                // Nobody waits any more: fine.
                let _ = reply.send(());
            }
            if !open {
                return Ok(());
            }
        }
    }

    /// Waits for work.
    async fn wait(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        into: &mut Vec<Command>,
    ) -> Woken {
        if !self.own.is_empty() {
            return Woken::News;
        }
        let restless = self.ledger.held() > 0 || self.ledger.lags();
        let pause = if restless {
            self.parts.hold
        } else {
            LONGEST_WAIT
        };
        tokio::select! {
            biased;
            count = commands.recv_many(into, self.parts.batch) => if count > 0 { Woken::News } else { Woken::Closed },
            () = self.parts.feed.arrived() => Woken::News,
            () = tokio::time::sleep(pause) => Woken::Silence,
        }
    }

    fn take_news(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        self.parts.feed.take(&mut news);
        for one in news.drain(..) {
            match one {
                Durable::Half { .. } | Durable::Known(_) => {}
                Durable::Moved { ref half, to } => self.own.push(Pending {
                    request: Request {
                        half: half.clone(),
                        what: What::Move { to },
                        actor: Actor::Recovery,
                        source: "".into(),
                        evidence: String::new(),
                    },
                    copy: None,
                    reply: Reply::Nobody,
                }),
                Durable::Decision { .. } => self.in_flight = self.in_flight.saturating_sub(1),
                Durable::Republished {
                    ref half, number, ..
                } => {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.own.push(about_publishing(half.clone(), number, None));
                }
                Durable::Unpublished {
                    ref half,
                    number,
                    ref reason,
                } => {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    if !self.again.contains(&number) {
                        self.parts.holds.hold(&half.topic, 1);
                    }
                    self.again.remove(&number);
                    self.own
                        .push(about_publishing(half.clone(), number, Some(reason.clone())));
                }
            }
            if self.ledger.take_in(one) == Slot::Free {
                self.parts.slots.add_permits(1);
            }
        }
        self.news = news;
    }

    /// With nothing to say: moves the watermark on, so that a start need not read what others wrote into the log.
    async fn idle(&mut self) -> Result<(), Failed> {
        let end = self.parts.log.range().end;
        // A record of ours that is not reflected yet holds a slot, is held back or is in flight.
        let quiet = self.in_flight == 0
            && self.ledger.held() == 0
            && self.parts.slots.available_permits() == self.parts.all_slots;
        if !quiet {
            return Ok(());
        }
        if end.0
            > self
                .ledger
                .owner()
                .watermark
                .0
                .saturating_add(WATERMARK_STEP)
        {
            self.ledger.take_in(Durable::Known(end));
        }
        if self.ledger.lags() {
            self.batch(Vec::new(), self.parts.hold).await?;
        }
        Ok(())
    }

    /// One SQL batch with the rows held for longer than `hold`, and everything that follows from it; several if the database
    /// refuses something in it.
    async fn batch(&mut self, pending: Vec<Pending>, hold: Duration) -> Result<(), Failed> {
        let mut waiting = vec![(pending, hold)];
        while let Some((pending, hold)) = waiting.pop() {
            let (mut requests, mut rest) = (
                Vec::with_capacity(pending.len()),
                Vec::with_capacity(pending.len()),
            );
            for Pending {
                request,
                copy,
                reply,
            } in pending
            {
                requests.push(request);
                rest.push((copy, reply));
            }
            let rows = self.store.rows(&self.unheld(&requests)).await?;
            let now = self.now();
            let plan = self.ledger.plan(now, &requests, rows, hold, |half, asked| {
                self.parts.check_at.of(half, asked)
            });
            if !plan.is_empty() || self.ledger.lags() {
                steps::reach("decision.before_commit");
                if let Err(why) = self.store.commit(&plan.batch).await? {
                    let pending = requests
                        .into_iter()
                        .zip(rest)
                        .map(|(request, (copy, reply))| Pending {
                            request,
                            copy,
                            reply,
                        });
                    self.split(pending.collect(), hold, &why, &mut waiting)
                        .await?;
                    continue;
                }
                steps::reach("decision.committed");
                self.reflect(&plan, &requests);
                self.publish(&plan, &requests, &mut rest).await;
            }
            self.note_moved(&requests);
            let answered = requests.iter().map(|request| request.half.position);
            self.parts.attempts.written(answered);
            for ((_, reply), answer) in rest.into_iter().zip(plan.answers) {
                reply.send(answer);
            }
            steps::reach("decision.answered");
        }
        Ok(())
    }

    /// Has the history say how far it is forgotten, if it is to, and removes a little. `None` when that cannot be done now.
    async fn forget(&mut self, forget: Forget) -> Result<Option<u64>, Failed> {
        if forget.tell {
            let now = self.now();
            let plan = self.ledger.plan_forgetting(now, &forget.far);
            if let Err(why) = self.store.commit(&plan.batch).await? {
                tracing::error!(why, "the database refuses to note what is forgotten");
                return Ok(None);
            }
            self.reflect(&plan, &[]);
            steps::reach("forget.told");
        }
        let Forget {
            far, kept, limit, ..
        } = forget;
        match self.store.forget(far, kept, limit).await {
            Ok(count) => {
                if count > 0 {
                    steps::reach("forget.removed");
                }
                Ok(Some(count))
            }
            Err(error) => {
                tracing::debug!(%error, "nothing is forgotten now");
                Ok(None)
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.parts.log.now(),
            wall_ms: self.parts.clock.wall_ms(),
            batch: self.parts.random.next_u128(),
        }
    }

    /// The database refuses something in a batch: makes smaller ones of it, down to the culprit, whose caller learns nothing.
    async fn split(
        &mut self,
        mut pending: Vec<Pending>,
        hold: Duration,
        why: &str,
        waiting: &mut Vec<(Vec<Pending>, Duration)>,
    ) -> Result<(), Failed> {
        let held_too = hold < Duration::MAX;
        tracing::error!(
            why,
            requests = pending.len(),
            "the database refuses a batch"
        );
        match (pending.len(), held_too) {
            (0, _) => {
                self.give_up_impostors(why).await?;
                waiting.push((Vec::new(), hold));
            }
            (1, false) => drop(pending),
            (1, true) => {
                waiting.push((Vec::new(), hold));
                waiting.push((pending, Duration::MAX));
            }
            (count, _) => {
                let later = pending.split_off(count / 2);
                waiting.push((later, hold));
                waiting.push((pending, Duration::MAX));
            }
        }
        Ok(())
    }

    /// The database refuses rows of half messages, for the reason `why`: it may if they carry ids of others.
    async fn give_up_impostors(&mut self, why: &str) -> Result<(), Failed> {
        let given_up = impostors::give_up(&mut self.ledger, &*self.parts.reader).await;
        let given_up = given_up.unwrap_or_else(|error| {
            tracing::error!(%error, "half messages with ids of others cannot be looked for");
            Vec::new()
        });
        if given_up.is_empty() {
            self.parts.status.fail(&format!(
                "the database refuses rows of half messages: {why}"
            ));
            return Err(Failed);
        }
        self.parts.slots.add_permits(given_up.len());
        for half in given_up {
            self.parts.holds.release(&half.topic);
        }
        Ok(())
    }

    /// What the requests are about and the ledger does not hold, each once.
    fn unheld(&self, requests: &[Request]) -> Vec<Position> {
        let mut positions: Vec<Position> = requests
            .iter()
            .map(|r| r.half.position)
            .filter(|p| !self.ledger.holds(*p))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Takes note that the plan's batch is in SQL.
    fn reflect(&mut self, plan: &Plan, requests: &[Request]) {
        let freed = self.ledger.committed(plan);
        self.parts.slots.add_permits(freed);
        let soon = self.parts.log.now().after(sweep::HORIZON);
        if plan
            .batch
            .new
            .iter()
            .any(|row| row.check_at.is_some_and(|at| at <= soon))
        {
            self.parts.wake.notify_one();
        }
        for request in requests {
            match &request.what {
                What::Unpublished {
                    number,
                    reason: Some(_),
                } => self.ledger.publish(*number),
                What::Unpublished {
                    number,
                    reason: None,
                } => {
                    self.again.remove(number);
                    self.ledger.admitted(*number);
                    self.parts.holds.release(&request.half.topic);
                }
                What::Decide(_)
                | What::Rebuild { .. }
                | What::Unknown { .. }
                | What::AskAgain { .. }
                | What::Move { .. } => {}
            }
        }
        self.parts.log.stamp(OWNER, self.ledger.owner().seq);
    }

    /// Takes note of the half messages whose rows say now where they were carried, or are gone.
    fn note_moved(&mut self, requests: &[Request]) {
        for request in requests {
            if let What::Move { to } = request.what
                && self.ledger.moved(to)
            {
                self.parts.slots.add_permits(1);
            }
        }
    }

    async fn publish(
        &mut self,
        plan: &Plan,
        requests: &[Request],
        rest: &mut [(Option<Final>, Reply)],
    ) {
        let mut decisions = Vec::with_capacity(plan.decisions.len());
        for (index, decision, number) in &plan.decisions {
            let (Some(request), Some((copy, _))) = (requests.get(*index), rest.get_mut(*index))
            else {
                continue;
            };
            let copy = if *decision == Decision::Commit {
                copy.take()
            } else {
                None
            };
            decisions.push(Decided {
                half: request.half.clone(),
                number: *number,
                copy,
                again: false,
            });
        }
        self.in_flight += decisions.len();
        publish::hand_over(
            &self.parts.log,
            &self.parts.feed,
            &self.parts.status,
            decisions,
        )
        .await;
        for (index, _, _) in &plan.decisions {
            if let Some(request) = requests.get(*index) {
                self.parts.holds.release(&request.half.topic);
            }
        }
        steps::reach("decision.published");
    }

    /// Hands finals to the log that it could not take before; each once, until its row says how that ended.
    async fn publish_again(&mut self, rows: Vec<Row>) {
        let mut decisions = Vec::new();
        for row in rows {
            let Some(decided) = row
                .decided
                .filter(|decided| self.again.insert(decided.number))
            else {
                continue;
            };
            match recovery::decided_from_log(&self.parts.log, row, decided.number, true) {
                Ok(decision) => decisions.push(decision),
                Err(error) => {
                    tracing::error!(%error, "a final cannot be made again");
                    self.again.remove(&decided.number);
                }
            }
        }
        self.in_flight += decisions.len();
        publish::hand_over(
            &self.parts.log,
            &self.parts.feed,
            &self.parts.status,
            decisions,
        )
        .await;
    }
}

fn about_publishing(half: Half, number: u64, reason: Option<String>) -> Pending {
    let evidence = reason.clone().unwrap_or_default();
    let request = Request {
        half,
        what: What::Unpublished { number, reason },
        actor: Actor::Recovery,
        source: "".into(),
        evidence,
    };
    Pending {
        request,
        copy: None,
        reply: Reply::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_takes_along_what_others_are_about_to_say() {
        let (sender, mut commands) = mpsc::channel(8);
        for _ in 0..3 {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(Command::PublishAgain(Vec::new())).await });
        }
        let mut batch = vec![Command::PublishAgain(Vec::new())];
        gather(&mut commands, &mut batch, 3).await;
        assert_eq!(batch.len(), 3, "no more than a batch holds");
        gather(&mut commands, &mut batch, 8).await;
        assert_eq!(batch.len(), 4);
        gather(&mut commands, &mut batch, 8).await;
        assert_eq!(batch.len(), 4, "and nobody waits for more");
    }
}
