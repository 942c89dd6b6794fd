//! What clients that know their messages by keys were told and received, and what is not so.

use super::*;

/// The keys of the two transactions that are decided, what their producers say, and what a reader got.
fn with_keys(world: &mut World) {
    for (record, key) in [(0, 1), (1, 2), (3, 1)] {
        let message = world.log.records[record].message.as_mut().unwrap();
        let key = format!("{key:032X}");
        message.properties.push(("KEYS".to_owned(), key));
    }
    let told = [Answer::HalfOfKey(1), Answer::HalfOfKey(2)];
    world.answers.extend(told);
    world.answers.push(Answer::Says(1, true));
    world.answers.push(Answer::Says(2, false));
    let got = Received {
        queue: 0,
        offset: 0,
        key: 1,
    };
    world.readers = vec![Reader {
        group: "readers".to_owned(),
        topic: "orders".to_owned(),
        received: vec![got, got],
    }];
}

#[test]
fn a_delivery_may_come_twice() {
    let mut world = good();
    with_keys(&mut world);
    let report = check(&world, Phase::Anytime);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_decision_that_no_producer_has_made_is_found() {
    for (key, commit) in [(1, false), (2, true)] {
        breaks(Promise::ProducersDecide, Phase::Anytime, |world| {
            with_keys(world);
            world.answers.push(Answer::Says(key, commit));
        });
    }
}

#[test]
fn a_transaction_that_nobody_decides_is_no_healed_world() {
    breaks(Promise::ProducersDecide, Phase::Healed, |world| {
        with_keys(world);
        let open = world.log.records[2].message.as_mut().unwrap();
        open.properties.push(("KEYS".to_owned(), "3".to_owned()));
        world.answers.push(Answer::Says(3, true));
        world.sql.rows[2].state = PARKED;
    });
}

#[test]
fn an_acknowledged_key_that_is_gone_is_found() {
    breaks_only(Promise::AckedHalfIsKept, |world| {
        with_keys(world);
        world.answers.push(Answer::HalfOfKey(4));
    });
}

#[test]
fn a_delivery_from_a_place_where_another_or_no_message_stands_is_found() {
    let spoils: [fn(&mut Received); 3] = [
        |received| received.key = 2,
        |received| received.offset = 1,
        |received| received.queue = 1,
    ];
    for spoil in spoils {
        breaks(Promise::ReceivedIsPublished, Phase::Anytime, |world| {
            with_keys(world);
            spoil(&mut world.readers[0].received[0]);
        });
    }
}

#[test]
fn a_delivery_of_what_is_rolled_back_is_found() {
    breaks_only(Promise::ReceivedIsPublished, |world| {
        with_keys(world);
        let mut plain = message("orders", 1, 600, 0xE);
        plain.properties = vec![("KEYS".to_owned(), format!("{:032X}", 2))];
        world.log.records.push(Record {
            position: 600,
            message: Some(plain),
            ..Record::default()
        });
        world.readers[0].received.push(Received {
            queue: 0,
            offset: 1,
            key: 2,
        });
    });
}

#[test]
fn a_message_that_never_came_is_found_once_healed() {
    let mut world = good();
    with_keys(&mut world);
    world.readers[0].received.clear();
    assert!(check(&world, Phase::Anytime).is_clean());
    let report = check(&world, Phase::Healed);
    let never = |violation: &super::super::Violation| violation.witness.contains("never got");
    assert!(report.violations.iter().any(never), "{report}");
}
