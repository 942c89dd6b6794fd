//! What a final needs is moved, deleted or has no room.

use super::*;

/// The log deletes what stands there now and nobody needs, `gone` among it.
async fn trimmed(rig: &Rig, gone: Position) {
    rig.log.want(rig.log.range().end);
    rig.until("it is deleted", async |rig| {
        rig.log.read(gone) == Err(ReadError::Gone(gone))
    })
    .await;
}

/// Finals in the log.
fn finals(rig: &Rig) -> Vec<Stored> {
    let all = rig.log.scan(Position(0)).unwrap().map(Result::unwrap);
    all.filter(|stored| {
        let mark = stored.mark.map(|mark| (mark.owner, mark.kind));
        mark == Some((half::OWNER, half::FINAL))
    })
    .collect()
}

pub(super) async fn story_17_a_half_message_is_carried_forward_and_decided_by_its_first_identity(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    for resolution in [Resolution::Commit, Resolution::RollBack] {
        let (receipt, done) = (rig.half().await, rig.half().await);
        rig.resolve(&done, Resolution::RollBack).await;
        rig.coordinator.write_held().await.unwrap();
        for _ in 0..3 {
            // Each time the copy of the time before, too.
            let before = row(&rig, &receipt).await.stored_at();
            // Something of ours behind it, so that the watermark gets so far.
            let other = rig.half().await;
            rig.resolve(&other, Resolution::RollBack).await;
            trimmed(&rig, before).await;
            let at = row(&rig, &receipt).await.moved_to.expect("it was carried");
            assert!(at >= rig.log.range().start);
            rig = rig.crash().await.unwrap();
        }
        assert_eq!(row(&rig, &done).await.moved_to, None, "nobody needs it");
        let wrong = Resolve {
            queue_offset: done.queue_offset,
            ..says(&receipt, resolution)
        };
        let refused = rig.coordinator.resolve(wrong).await.unwrap();
        assert!(
            matches!(refused, Outcome::NoSuchHalfMessage { .. }),
            "{refused:?}"
        );
        assert_eq!(rig.resolve(&receipt, resolution).await, Outcome::DecidedNow);
        let finals = finals(&rig);
        assert_eq!(
            finals.len(),
            usize::from(resolution == Resolution::Commit),
            "that of the commit is deleted before the rollback is said"
        );
        for stored in finals {
            let view = RecordView::parse(&stored.bytes).unwrap();
            assert_eq!(view.body, b"hello");
            assert_eq!(view.prepared_position, receipt.position.0);
        }
    }
}

pub(super) async fn story_18_a_copy_that_no_row_knows_of_is_found_by_the_next_start(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let mut published = Vec::new();
    for resolution in [None, Some(Resolution::Commit), Some(Resolution::RollBack)] {
        let receipt = rig.half().await;
        rig.coordinator.write_held().await.unwrap();
        let before = row(&rig, &receipt).await;
        let stored = half::kept(&*rig.log, &before).unwrap();
        // The process dies before anybody hears of the copy; the decision lands all the same.
        rig.log
            .append(Submission {
                entries: vec![half::moved(&before.half, &stored.bytes)],
                flush: Flush::Sync,
                then: Box::new(|_| ()),
            })
            .unwrap();
        if let Some(resolution) = resolution {
            assert_eq!(rig.resolve(&receipt, resolution).await, Outcome::DecidedNow);
        }
        let decided = row(&rig, &receipt).await;
        for _ in 0..2 {
            rig = rig.killed().await;
            let after = row(&rig, &receipt).await;
            let copy = rig.log.read(after.stored_at()).unwrap();
            assert_eq!(copy.mark.map(|mark| mark.kind), Some(half::MOVED));
            assert_eq!(
                (after.half.position, after.state, after.decided),
                (receipt.position, decided.state, decided.decided)
            );
        }
        if resolution.is_none() {
            assert_eq!(
                rig.resolve(&receipt, Resolution::Commit).await,
                Outcome::DecidedNow
            );
        }
        if resolution != Some(Resolution::RollBack) {
            published.push(receipt.id);
        }
        assert_eq!(rig.published(), published);
    }
}

/// As it is with a database that was put back: it has neither the row nor the news of the copy.
pub(super) async fn story_18_a_row_that_is_written_after_its_copy_names_it(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let receipt = rig.half().await;
    let stored = rig.log.read(receipt.position).unwrap();
    let half = half::read(&stored).unwrap().half;
    rig.log
        .append(Submission {
            entries: vec![half::moved(&half, &stored.bytes)],
            flush: Flush::Sync,
            then: Box::new(|_| ()),
        })
        .unwrap();
    rig = rig.killed().await;
    let row = row(&rig, &receipt).await;
    assert_eq!(
        (row.half.position, row.state),
        (receipt.position, State::Prepared)
    );
    assert!(row.moved_to.is_some_and(|to| to > receipt.position));
    let events = rig.store.reader().events(receipt.id).await.unwrap();
    assert_eq!(events.len(), 1, "the history tells that it was stored");
    assert_eq!(
        rig.resolve(&receipt, Resolution::Commit).await,
        Outcome::DecidedNow
    );
    assert_eq!(rig.published(), [receipt.id]);
}

/// The topic is deleted or shrunk between the half message and its final.
pub(super) async fn story_19_a_topic_with_open_half_messages_can_neither_be_deleted_nor_shrunk(
    stage: Stage,
) {
    let mut rig = Rig::on(stage).await;
    let topic = TopicName::new("orders").unwrap();
    let receipt = rig.half().await;
    let queues = rig.broker.topic(&topic).unwrap().write_queues;
    for _ in 0..2 {
        let held = Err(TopicError::Held(topic.clone()));
        assert_eq!(rig.broker.delete_topic(&topic).await, held);
        let with = |queues| {
            rig.broker
                .put_topic(TopicConfig::new(topic.clone(), queues))
        };
        assert_eq!(with(queues - 1).await, held);
        with(queues).await.unwrap();
        assert_eq!(rig.broker.topic(&topic).unwrap().write_queues, queues);
        // A start knows of it as well.
        rig = rig.killed().await;
    }
    rig.resolve(&receipt, Resolution::Commit).await;
    assert_eq!(rig.published(), [receipt.id]);
    let smaller = TopicConfig::new(topic.clone(), queues - 1);
    rig.until("it can lose a queue", async |rig| {
        rig.broker.put_topic(smaller.clone()).await.is_ok()
    })
    .await;
    rig.broker.delete_topic(&topic).await.unwrap();
}

pub(super) async fn story_19_a_final_that_the_full_disk_refused_is_published_later(stage: Stage) {
    let mut rig = Rig::on(stage).await;
    let (first, second) = (rig.half().await, rig.half().await);
    rig.log.fail_next(AppendError::Full("no space left".into()));
    for receipt in [&first, &second] {
        let outcome = rig.resolve(receipt, Resolution::Commit).await;
        assert_eq!(outcome, Outcome::DecidedNow);
    }
    let says = async |rig: &Rig, reason: &str| {
        let why = row(rig, &first).await.unpublished;
        why.is_some_and(|why| why.contains(reason))
    };
    rig.until("SQL knows why", async |rig| {
        says(rig, "no space left").await
    })
    .await;
    assert_eq!(
        rig.published(),
        [second.id],
        "one that cannot be published blocks nobody else"
    );
    // Whoever comes wakes the sweep, which tries again, as often as it takes.
    rig.log
        .fail_next(AppendError::Full("not one byte left".into()));
    rig.clock.advance(Duration::from_secs(10));
    let _somebody = rig.connect(8, &[]);
    rig.until("it was tried again", async |rig| {
        says(rig, "not one byte left").await
    })
    .await;
    rig.clock.advance(Duration::from_secs(10));
    let _another = rig.connect(9, &[]);
    rig.until("it is published after all", async |rig| {
        let filter = Filter {
            unpublished: true,
            limit: 10,
            ..Filter::default()
        };
        rig.store.reader().list(&filter).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(rig.published(), [second.id, first.id]);
    let rig = rig.killed().await;
    assert_eq!(rig.published().len(), 2);
}
