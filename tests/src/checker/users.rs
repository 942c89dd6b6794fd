//! The users' side: markers, business rows, effects, and what callers were told.

use std::collections::{HashMap, HashSet};

use super::facts::{
    Answer, COMMITTED, COORDINATOR, FORCED, HALF, MARKER, ROLLED_BACK, Row, UserDatabase, World,
};
use super::forgotten::{self, Gone};
use super::{Phase, Promise, Report};

pub(super) fn check(world: &World, phase: Phase, report: &mut Report) {
    let rows: HashMap<u128, &Row> = world.sql.rows.iter().map(|row| (row.id, row)).collect();
    let forgotten = forgotten::transactions(world);
    answers(world, &rows, &forgotten, report);
    let deciders = world.sql.deciders();
    for database in &world.databases {
        markers(world, database, &deciders, phase, &forgotten, report);
    }
    effects(world, &rows, phase, &forgotten, report);
}

fn answers(
    world: &World,
    rows: &HashMap<u128, &Row>,
    forgotten: &HashMap<u128, Gone>,
    report: &mut Report,
) {
    let halves: HashSet<u128> = world
        .log
        .records
        .iter()
        .filter_map(|record| record.mark)
        .filter(|mark| (mark.owner, mark.kind) == (COORDINATOR, HALF))
        .map(|mark| mark.key)
        .collect();
    let messages = messages(world);
    for answer in &world.answers {
        match *answer {
            Answer::Half(id) => {
                if !halves.contains(&id) && !rows.contains_key(&id) && !forgotten.contains_key(&id)
                {
                    let what = format!("{id:032X} was acknowledged and is not in the log");
                    report.add(Promise::AckedHalfIsKept, what);
                }
            }
            Answer::Decided(id, committed) => {
                let told = if committed { COMMITTED } else { ROLLED_BACK };
                let row = rows.get(&id).map(|row| row.state);
                let state = row.or(forgotten.get(&id).map(|gone| gone.state()));
                if state != Some(told) {
                    let what =
                        format!("for {id:032X} the answer was {told}, its state is {state:?}");
                    report.add(Promise::AckedDecisionStands, what);
                }
            }
            Answer::HalfOfKey(_) | Answer::Says(..) => {}
            Answer::Sent(id) | Answer::Seen(id) => {
                // What was deleted with the beginning of the log is not known.
                if !messages.contains_key(&id) && !world.log.trimmed {
                    let what = format!("{answer:?} and the message {id:032X} is not in the log");
                    report.add(Promise::AckedMessageIsKept, what);
                }
            }
            Answer::Written(id, position) => {
                let stands = messages.get(&id);
                if position < world.log.end && stands != Some(&position) {
                    let end = world.log.end;
                    let what = format!(
                        "{id:032X} was written at {position}, stands at {stands:?}, the log ends at {end}"
                    );
                    report.add(Promise::AckedMessageIsKept, what);
                }
            }
        }
    }
}

/// Where the plain messages stand, by their keys and by their clients' ids where those are numbers.
fn messages(world: &World) -> HashMap<u128, u64> {
    let mut found = HashMap::new();
    for record in &world.log.records {
        let plain = record.mark.is_none_or(|mark| mark.owner != COORDINATOR);
        let Some(message) = record.message.as_ref().filter(|_| plain) else {
            continue;
        };
        let names = ["KEYS", "UNIQ_KEY"].map(|name| message.property(name));
        for name in names.into_iter().flatten() {
            if let Ok(number) = u128::from_str_radix(name, 16) {
                found.insert(number, record.position);
            }
        }
    }
    found
}

fn markers(
    world: &World,
    database: &UserDatabase,
    deciders: &HashMap<u128, u8>,
    phase: Phase,
    forgotten: &HashMap<u128, Gone>,
    report: &mut Report,
) {
    let mut known = HashSet::new();
    for row in world
        .sql
        .rows
        .iter()
        .filter(|row| row.marker == Some(database.identity))
    {
        known.insert(row.id);
        let decider = deciders.get(&row.id).copied();
        let marker = database.markers.get(&row.id).copied();
        if decider != Some(FORCED)
            && let Some(why) = contradiction(row, marker, database, phase)
        {
            report.add(Promise::MarkerAgrees, format!("{:032X}: {why}", row.id));
        }
        if row.state == ROLLED_BACK
            && decider == Some(MARKER)
            && marker != Some(false)
            && !database.pruned
        {
            let what = format!(
                "{:032X} was rolled back by a check-back; its marker is {marker:?}",
                row.id
            );
            report.add(Promise::TombstoneStands, what);
        }
    }
    let business = database.business.iter().flatten();
    for id in business.clone() {
        let rolled_back = |gone: &&Gone| !gone.committed;
        // A person who overrode the marker has decided that it be so.
        let by_marker = |gone: &&Gone| gone.actor.is_some_and(|actor| actor != FORCED);
        let gone = forgotten.get(id).filter(rolled_back).filter(by_marker);
        if gone.is_some() {
            let what = format!("{id:032X} has a business row, was rolled back and is forgotten");
            report.add(Promise::MarkerAgrees, what);
        }
    }
    let is_known = |id: &u128| known.contains(id) || forgotten.contains_key(id);
    for id in business.filter(|id| phase == Phase::Healed && !is_known(id)) {
        let what = format!("{id:032X} has a business row and the coordinator does not know it");
        report.add(Promise::MarkerAgrees, what);
    }
}

/// How the marker or the business row speaks against the row; an open transaction may still go either way.
fn contradiction(
    row: &Row,
    marker: Option<bool>,
    database: &UserDatabase,
    phase: Phase,
) -> Option<String> {
    let business = database
        .business
        .as_ref()
        .map(|business| business.contains(&row.id));
    if business == Some(true) && marker != Some(true) && !database.pruned {
        return Some(format!(
            "it has a business row and the marker is {marker:?}"
        ));
    }
    let committed = match row.state {
        COMMITTED => true,
        ROLLED_BACK => false,
        // Parked although the marker could have been read.
        _ if phase == Phase::Healed && marker.is_some() => {
            return Some(format!("state {}, marker {marker:?}", row.state));
        }
        _ => return None,
    };
    let fits = match marker {
        Some(value) => value == committed,
        None => !committed || database.pruned,
    };
    if !fits {
        return Some(format!("state {}, marker {marker:?}", row.state));
    }
    if business.is_some_and(|business| business != committed) {
        return Some(format!("state {}, business row {business:?}", row.state));
    }
    None
}

fn effects(
    world: &World,
    rows: &HashMap<u128, &Row>,
    phase: Phase,
    forgotten: &HashMap<u128, Gone>,
    report: &mut Report,
) {
    for effects in &world.effects {
        let group = &effects.group;
        for (id, times) in &effects.applied {
            let row = rows.get(id).map(|row| row.state);
            let state = row.or(forgotten.get(id).map(|gone| gone.state()));
            if *times > 1 || (*times > 0 && state != Some(COMMITTED)) {
                let what =
                    format!("{group} applied {id:032X} {times} time(s), its state is {state:?}");
                report.add(Promise::EffectOnce, what);
            }
        }
        let meant = |row: &&&Row| row.state == COMMITTED && row.topic == effects.topic;
        for row in rows
            .values()
            .filter(meant)
            .filter(|_| phase == Phase::Healed)
        {
            if effects.applied.get(&row.id).copied().unwrap_or_default() == 0 {
                let what = format!("{group} has not applied {:032X}", row.id);
                report.add(Promise::EverythingIsSettled, what);
            }
        }
    }
}
