//! The broker over a log of files whose power is cut again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;
use crate::log::file::{Driver, FileLog};
use crate::log::memory_disk::MemoryDisk;
use crate::log::open;
use crate::random::Random;

/// What clients were told, over all lives.
#[derive(Debug, Default)]
struct Told {
    sent: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    committed: BTreeSet<u64>,
}

/// Does what the log's threads would do, a little late.
async fn drive(mut driver: Driver) {
    loop {
        driver.turn();
        tokio::time::sleep(Duration::from_millis(1)).await;
        driver.sync();
        driver.upkeep();
    }
}

struct Life {
    broker: Broker,
    driver: JoinHandle<()>,
}

async fn live(disk: &MemoryDisk, seed: u64) -> Life {
    let clock: Arc<dyn Clock> = Arc::new(TimerClock::new(1_700_000_000_000));
    let random = Arc::new(SeededRandom::new(seed));
    let settings = open::Settings {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 16 << 10,
        ..open::Settings::default()
    };
    let disk = Arc::new(disk.clone());
    let (log, driver) =
        FileLog::open_stepped(disk, settings, Arc::clone(&clock), &*random).unwrap();
    let driver = tokio::spawn(drive(driver));
    let parts = Parts {
        log: Arc::new(log),
        clock,
        random,
        extensions: vec![],
    };
    let settings = Settings {
        snapshot_bytes: 6_000,
        ..Settings::default()
    };
    let broker = Broker::open(settings, parts).await.unwrap();
    Life { broker, driver }
}

fn incoming_of(number: u64, random: &SeededRandom) -> (String, Incoming) {
    let level = if random.next_u64().is_multiple_of(2) {
        0
    } else {
        1
    };
    let body = format!("{number} after {level} s");
    let message = Message::builder("t").delay_level(level).body(body.clone());
    (body, Incoming::new(&message.build().unwrap(), Some(0), 1))
}

/// One life that ends with a power cut at a random moment.
async fn work_until_the_power_is_cut(disk: &MemoryDisk, seed: u64, told: &Arc<Mutex<Told>>) {
    let random = SeededRandom::new(seed);
    let Life { broker, driver } = live(disk, seed).await;
    if random.next_u64().is_multiple_of(2) {
        disk.fail_sync(1 + random.next_u64() % 60, std::io::ErrorKind::Other);
    }
    let mut clients = JoinSet::new();
    for step in 0..20 + random.next_u64() % 30 {
        let (body, message) = incoming_of(seed * 1000 + step, &random);
        told.lock().unwrap().sent.insert(body.clone());
        let (broker, told) = (broker.clone(), Arc::clone(told));
        let commit = random.next_u64().is_multiple_of(3);
        clients.spawn(async move {
            let Ok(receipt) = broker.send(message).await else {
                return;
            };
            let mut told = told.lock().unwrap();
            told.acknowledged.insert(body);
            let end = broker.queue_range(&receipt.queue).unwrap().end;
            if commit
                && broker
                    .commit_offset(&group("g"), &receipt.queue, end)
                    .is_ok()
            {
                told.committed.insert(end);
            }
        });
        tokio::time::sleep(Duration::from_millis(random.next_u64() % 120)).await;
    }
    driver.abort();
    let _ = driver.await;
    clients.shutdown().await;
    disk.crash(seed);
    // A failure that was planned and did not come belongs to this life.
    disk.fail_sync(u64::MAX >> 1, std::io::ErrorKind::Other);
    drop(broker);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_comes_exactly_once_however_often_the_power_is_cut() {
    for seed in 0..12 {
        let disk = MemoryDisk::new();
        let told = Arc::new(Mutex::new(Told::default()));
        for life in 0..4 {
            work_until_the_power_is_cut(&disk, 1 + seed * 10 + life, &told).await;
        }
        let Life { broker, driver } = live(&disk, seed).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut stored: BTreeMap<String, u32> = BTreeMap::new();
        let mut from = pull(queue("t", 0), 0);
        loop {
            let pulled = broker.pull(from.clone()).await.unwrap();
            for record in &pulled.records {
                let body = RecordView::parse(record).unwrap().body.to_vec();
                *stored.entry(String::from_utf8(body).unwrap()).or_default() += 1;
            }
            if pulled.next == pulled.max {
                break;
            }
            from.offset = pulled.next;
        }
        let told = told.lock().unwrap();
        assert!(told.acknowledged.len() > 20, "seed {seed} does something");
        for body in &told.acknowledged {
            assert_eq!(stored.get(body), Some(&1), "seed {seed}: {body}");
        }
        for (body, times) in &stored {
            assert!(
                told.sent.contains(body) && *times == 1,
                "seed {seed}: {body} came {times} times"
            );
        }
        let offset = broker.offset(&group("g"), &queue("t", 0)).unwrap();
        assert!(
            offset.is_none_or(|offset| told.committed.contains(&offset)),
            "seed {seed}: {offset:?}"
        );
        assert_eq!(broker.delayed_messages(), 0);
        driver.abort();
    }
}
