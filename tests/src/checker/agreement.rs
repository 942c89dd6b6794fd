//! Log and SQL: every half message has its row, every decision its record, once, in order, and nothing more.

use std::collections::{HashMap, HashSet};

use super::facts::{
    COMMITTED, COORDINATOR, FINAL, HALF, Log, MOVED, Mark, Message, PARKED, PREPARED, ROLLBACK,
    ROLLED_BACK, Record, Row, World, step,
};
use super::{Phase, Promise, Report, forgotten};

pub(super) fn check(world: &World, phase: Phase, report: &mut Report) {
    log_is_sound(&world.log, report);
    within_the_log(world, report);
    let rows = one_row_each(world, report);
    earlier(world, &rows, report);
    let decisions = numbered(world, report);
    halves(world, phase, report);
    copies(world, report);
    records(world, &rows, report);
    published(world, phase, &decisions, report);
    order(world, report);
    if phase == Phase::Healed {
        settled(world, report);
    }
}

/// A database that nobody has taken over belongs only to a log in which the coordinator has written nothing.
pub(super) fn unowned(world: &World, report: &mut Report) {
    let ours = world.log.records.iter().filter_map(|record| record.mark);
    let ours = ours.filter(|mark| mark.owner == COORDINATOR).count();
    if ours > 0 || world.log.stamped > 0 {
        report.add(
            Promise::SqlWithinTheLog,
            format!("the log has {ours} record(s) of the coordinator, the database has no owner"),
        );
    }
    earlier(world, &HashMap::new(), report);
}

fn log_is_sound(log: &Log, report: &mut Report) {
    let mut last = None;
    let mut next: HashMap<(&str, u32), u64> = HashMap::new();
    for record in &log.records {
        let position = record.position;
        if last.is_some_and(|last| last >= position) || position >= log.end {
            report.add(
                Promise::LogIsSound,
                format!("the record at {position} is out of order"),
            );
        }
        last = Some(position);
        let Some(message) = &record.message else {
            continue;
        };
        let place = format!(
            "the record at {position} ({}/{})",
            message.topic, message.queue
        );
        if message.position != position {
            let says = message.position;
            report.add(
                Promise::LogIsSound,
                format!("{place} says it stands at {says}"),
            );
        }
        if !message.body_intact {
            report.add(
                Promise::LogIsSound,
                format!("{place}: the body does not match its checksum"),
            );
        }
        let offset = message.queue_offset;
        let expected = next.insert((&message.topic, message.queue), offset + 1);
        // What stood in deleted segments is not known.
        let expected = expected.unwrap_or(if log.trimmed { offset } else { 0 });
        if offset != expected {
            report.add(
                Promise::LogIsSound,
                format!("{place} has queue offset {offset}, not {expected}"),
            );
        }
    }
}

fn within_the_log(world: &World, report: &mut Report) {
    let (log, owner) = (&world.log, &world.sql.owner);
    let mut wrong = |what: String| report.add(Promise::SqlWithinTheLog, what);
    if owner.log != log.id {
        wrong(format!(
            "SQL belongs to log {:032X}, this is {:032X}",
            owner.log, log.id
        ));
    }
    if owner.watermark > log.end {
        wrong(format!(
            "the watermark {} is behind the log's end {}",
            owner.watermark, log.end
        ));
    }
    if log.stamped > owner.seq {
        wrong(format!(
            "the log knows of batch {}, SQL ends with {}",
            log.stamped, owner.seq
        ));
    }
    for row in world.sql.rows.iter().filter(|row| row.position >= log.end) {
        wrong(format!(
            "{} stands at {}, behind the log's end {}",
            name(row),
            row.position,
            log.end
        ));
    }
}

fn one_row_each<'a>(world: &'a World, report: &mut Report) -> HashMap<u128, &'a Row> {
    let mut rows: HashMap<u128, &Row> = HashMap::new();
    for row in &world.sql.rows {
        if let Some(other) = rows.insert(row.id, row) {
            let both = format!(
                "{} has rows at {} and {}",
                name(row),
                other.position,
                row.position
            );
            report.add(Promise::OneDecision, both);
        }
        let decided = matches!(row.state, COMMITTED | ROLLED_BACK);
        if decided != row.decision.is_some() || decided != row.decided_at.is_some() {
            let what = format!(
                "{} is in state {} with decision {:?}",
                name(row),
                row.state,
                row.decision
            );
            report.add(Promise::OneDecision, what);
        }
    }
    rows
}

/// What an earlier look has found decided is decided so now, or forgotten.
fn earlier(world: &World, rows: &HashMap<u128, &Row>, report: &mut Report) {
    let forgotten = forgotten::told(world).decisions;
    for (id, was) in &world.decided {
        let row = rows.get(id);
        let now = row.map(|row| (row.state, row.decision));
        let state = if was.committed {
            COMMITTED
        } else {
            ROLLED_BACK
        };
        let stands = match now {
            Some(now) => now == (state, Some(was.number)),
            None => was.number <= forgotten,
        };
        if !stands {
            let what = format!("{id:032X} was {was:?}, its state and decision are {now:?}");
            report.add(Promise::OneDecision, what);
        }
    }
}

fn numbered<'a>(world: &'a World, report: &mut Report) -> HashMap<u64, &'a Row> {
    let mut decisions: HashMap<u64, &Row> = HashMap::new();
    for row in &world.sql.rows {
        let Some(number) = row.decision else { continue };
        if let Some(other) = decisions.insert(number, row) {
            let both = format!(
                "decision {number} belongs to {} and {}",
                name(other),
                name(row)
            );
            report.add(Promise::DecisionsAreNumbered, both);
        }
    }
    let last = world.sql.owner.last_decision;
    for number in forgotten::told(world).decisions + 1..=last {
        if !decisions.contains_key(&number) {
            report.add(
                Promise::DecisionsAreNumbered,
                format!("decision {number} of {last} is nobody's"),
            );
        }
    }
    for number in decisions
        .keys()
        .filter(|number| **number > last || **number == 0)
    {
        report.add(
            Promise::DecisionsAreNumbered,
            format!("decision {number}, the last is {last}"),
        );
    }
    if world.sql.owner.published > last {
        let what = format!(
            "published {} of {last} decisions",
            world.sql.owner.published
        );
        report.add(Promise::DecisionsAreNumbered, what);
    }
    decisions
}

fn ours(log: &Log, kind: u8) -> impl Iterator<Item = (&Record, Mark)> {
    log.records.iter().filter_map(move |record| {
        let mark = record.mark?;
        (mark.owner == COORDINATOR && mark.kind == kind).then_some((record, mark))
    })
}

fn halves(world: &World, phase: Phase, report: &mut Report) {
    let at: HashMap<u64, &Row> = world
        .sql
        .rows
        .iter()
        .map(|row| (row.position, row))
        .collect();
    let mut seen = HashSet::new();
    for (record, mark) in ours(&world.log, HALF) {
        let position = record.position;
        seen.insert(position);
        let Some(row) = at.get(&position) else {
            if position < world.sql.owner.watermark || phase == Phase::Healed {
                let what = format!(
                    "the half message of {:032X} at {position} has no row",
                    mark.key
                );
                report.add(Promise::HalfHasRow, what);
            }
            continue;
        };
        let Some(message) = &record.message else {
            report.add(
                Promise::HalfHasRow,
                format!("the half message at {position} is no message"),
            );
            continue;
        };
        let told = (
            mark.key,
            message.queue_offset,
            message.body_len,
            message.property("PGROUP"),
            message.property("REAL_TOPIC"),
            record.at,
        );
        let kept = (
            row.id,
            row.queue_offset,
            row.body_len,
            Some(row.group.as_str()),
            Some(row.topic.as_str()),
            row.prepared_at,
        );
        if told != kept {
            report.add(
                Promise::HalfHasRow,
                format!("at {position} the log tells {told:?}, the row {kept:?}"),
            );
        }
    }
    let kept = |row: &&Row| (world.log.start..world.log.end).contains(&row.position);
    for row in world.sql.rows.iter().filter(kept) {
        if !seen.contains(&row.position) {
            let what = format!(
                "no half message stands at {}, where {} says it is",
                row.position,
                name(row)
            );
            report.add(Promise::SqlWithinTheLog, what);
        }
    }
}

/// Copies of half messages: each is of its transaction's one, and what is open and deleted where it stood first has one.
fn copies(world: &World, report: &mut Report) {
    let rows: HashMap<u128, &Row> = world.sql.rows.iter().map(|row| (row.id, row)).collect();
    let mut carried = HashSet::new();
    for (record, mark) in ours(&world.log, MOVED) {
        let what = format!("the copy of {:032X} at {}", mark.key, record.position);
        carried.insert((mark.key, mark.number));
        let Some(copy) = &record.carried else {
            report.add(Promise::HalfHasRow, format!("{what} is no message"));
            continue;
        };
        if copy.position != mark.number || !copy.body_intact {
            report.add(
                Promise::HalfHasRow,
                format!("{what} is not what stood at {}", mark.number),
            );
        }
        // Without a row it was decided and forgotten.
        let told = (mark.number, copy.queue_offset, copy.body_len);
        let kept = rows
            .get(&mark.key)
            .map(|row| (row.position, row.queue_offset, row.body_len));
        if kept.is_some_and(|kept| kept != told) {
            report.add(
                Promise::HalfHasRow,
                format!("{what} tells {told:?}, the row {kept:?}"),
            );
        }
    }
    for row in world.sql.rows.iter().filter(|row| row.decision.is_none()) {
        if row.position < world.log.start && !carried.contains(&(row.id, row.position)) {
            let what = format!(
                "{} is open, deleted at {}, and has no copy",
                name(row),
                row.position
            );
            report.add(Promise::AckedHalfIsKept, what);
        }
    }
}

/// Finals and echoes: each belongs to a decision in SQL, and a final is its half message.
fn records(world: &World, rows: &HashMap<u128, &Row>, report: &mut Report) {
    let copies = ours(&world.log, MOVED);
    let copies = copies.filter_map(|(record, mark)| Some((mark.key, record.carried.as_ref()?)));
    let halves: HashMap<u128, &Message> = ours(&world.log, HALF)
        .filter_map(|(record, mark)| Some((mark.key, record.message.as_ref()?)))
        .chain(copies)
        .collect();
    let mut finals: HashMap<u128, u64> = HashMap::new();
    let forgotten = forgotten::told(world).decisions;
    for (kind, state, word) in [(FINAL, COMMITTED, "final"), (ROLLBACK, ROLLED_BACK, "echo")] {
        for (record, mark) in ours(&world.log, kind) {
            let what = format!("the {word} of {:032X} at {}", mark.key, record.position);
            match rows.get(&mark.key) {
                Some(row) if row.state == state && row.decision == Some(mark.number) => {}
                Some(row) => report.add(
                    Promise::DecisionBeforeRecord,
                    format!(
                        "{what} has number {}, the row state {} and number {:?}",
                        mark.number, row.state, row.decision
                    ),
                ),
                None if mark.number <= forgotten => {}
                None => report.add(Promise::DecisionBeforeRecord, format!("{what} has no row")),
            }
            if kind != FINAL {
                continue;
            }
            if let Some(first) = finals.insert(mark.key, record.position) {
                report.add(
                    Promise::OneFinal,
                    format!("{what} is the second, the first stands at {first}"),
                );
            }
            if let Some(half) = halves.get(&mark.key)
                && let Some(difference) = difference(half, record.message.as_ref())
            {
                report.add(Promise::FinalIsTheHalf, format!("{what}: {difference}"));
            }
        }
    }
}

/// Properties that the server keeps for itself: a final may lack them.
const SERVERS_OWN: [&str; 2] = ["HM_MARKER", "HM_SENDER"];
/// Flag bits that say what part of a transaction a message is, and their value in a final.
const PART_MASK: i32 = 0xC;
const PART_FINAL: i32 = 0x8;

fn difference(half: &Message, copy: Option<&Message>) -> Option<String> {
    let Some(copy) = copy else {
        return Some("it is no message".to_owned());
    };
    if (half.body_len, half.body_hash) != (copy.body_len, copy.body_hash) {
        return Some("the body is another".to_owned());
    }
    let queue = copy.queue.to_string();
    let there = (half.property("REAL_TOPIC"), half.property("REAL_QID"));
    if there != (Some(copy.topic.as_str()), Some(queue.as_str())) {
        return Some(format!(
            "it stands in {}/{queue}, it was meant for {there:?}",
            copy.topic
        ));
    }
    if copy.prepared_position != half.position {
        return Some(format!(
            "it names {} as its half message",
            copy.prepared_position
        ));
    }
    if copy.sys_flag & PART_MASK != PART_FINAL {
        return Some(format!("its flag bits are {:#x}", copy.sys_flag));
    }
    for (name, value) in &half.properties {
        if !SERVERS_OWN.contains(&name.as_str()) && copy.property(name) != Some(value) {
            return Some(format!(
                "the property {name} is {:?}, was {value:?}",
                copy.property(name)
            ));
        }
    }
    None
}

/// Every decision up to the published number has its record, or its row says why not.
fn published(world: &World, phase: Phase, decisions: &HashMap<u64, &Row>, report: &mut Report) {
    let recorded: HashSet<u64> = [FINAL, ROLLBACK]
        .iter()
        .flat_map(|kind| ours(&world.log, *kind))
        .map(|(_, mark)| mark.number)
        .collect();
    let owner = &world.sql.owner;
    let until = match phase {
        Phase::Anytime => owner.published,
        Phase::Healed => owner.last_decision,
    };
    for number in 1..=until {
        let Some(row) = decisions.get(&number) else {
            continue;
        };
        let kept = row.position >= world.log.start;
        if kept && row.unpublished.is_none() && !recorded.contains(&number) {
            let what = format!("decision {number} ({}) has no record in the log", name(row));
            report.add(Promise::OneFinal, what);
        }
    }
}

fn order(world: &World, report: &mut Report) {
    // A final that could not be published at first comes later than its number says.
    let late: HashSet<u128> = world
        .sql
        .events
        .iter()
        .filter(|event| matches!(event.to, step::UNPUBLISHED | step::PUBLISHED))
        .map(|event| event.id)
        .collect();
    let mut last: HashMap<(&str, u32), u64> = HashMap::new();
    for (record, mark) in ours(&world.log, FINAL) {
        let Some(message) = &record.message else {
            continue;
        };
        if late.contains(&mark.key) {
            continue;
        }
        let before = last.insert((&message.topic, message.queue), mark.number);
        if let Some(before) = before.filter(|before| *before >= mark.number) {
            let place = format!("{}/{}", message.topic, message.queue);
            let what = format!(
                "in {place} decision {} at {} follows {before}",
                mark.number, record.position
            );
            report.add(Promise::DecisionOrder, what);
        }
    }
}

fn settled(world: &World, report: &mut Report) {
    let owner = &world.sql.owner;
    for row in &world.sql.rows {
        if row.state == PREPARED {
            report.add(
                Promise::EverythingIsSettled,
                format!("{} is still open", name(row)),
            );
        }
        if row.state != PARKED && row.unpublished.is_some() {
            report.add(
                Promise::EverythingIsSettled,
                format!("{} is not published", name(row)),
            );
        }
    }
    if owner.published != owner.last_decision {
        let what = format!(
            "published {} of {} decisions",
            owner.published, owner.last_decision
        );
        report.add(Promise::EverythingIsSettled, what);
    }
}

/// A transaction as witnesses name it.
fn name(row: &Row) -> String {
    format!("{:032X}", row.id)
}
