//! Two days of transactions, and what the audit queries of every database say about them.

use mq_core::clock::ServerTime;

use super::conformance::draft::{Draft, id, position};
use super::{Change, TxStore};
use crate::audit::Step;
use crate::transaction::{Actor, Decision};

/// A query in `sql/audit/` and its known answer.
pub(super) struct Question {
    /// The file without its ending.
    pub(super) name: &'static str,
    pub(super) parameters: Vec<(&'static str, String)>,
    /// A line for each row, NULL as '-'.
    pub(super) answer: Vec<String>,
}

/// The function `audit_query`: the text of the query with a name, from a folder inside `sql/audit/`.
macro_rules! audit_queries {
    ($folder:literal) => {
        $crate::store::tests::audit_queries!(
            $folder,
            "contradictions",
            "oldest_open",
            "open",
            "outcomes",
            "parked",
            "published",
            "time_to_decision",
            "why"
        );
    };
    ($folder:literal, $($name:literal),+) => {
        fn audit_query(name: &str) -> &'static str {
            match name {
                $($name => include_str!(concat!("../../../../sql/audit/", $folder, $name, ".sql")),)+
                _ => panic!("no query is called {name}"),
            }
        }
    };
}
pub(super) use audit_queries;

/// Two days: see the comments for who does what.
pub(super) async fn two_days(store: &dyn TxStore) {
    let mut draft = Draft::take_over(store).await;
    draft.prepare_decided(1, "shop", Decision::Commit);
    draft.prepare_decided(2, "shop", Decision::RollBack);
    draft.prepare(3, "shop");
    draft.prepare(4, "bank");
    draft.prepare(5, "bank");
    draft.commit().await.unwrap();
    // Transaction 3 takes two seconds, 4 is parked, and somebody contradicts 1.
    draft.decide(3, Decision::Commit, ServerTime(2_003_000));
    draft
        .changes
        .push((position(4), Change::Park { checks: 15 }));
    draft.event(
        id(4),
        Some(Step::Prepared),
        Step::Parked,
        ServerTime(9_000_000),
    );
    draft.changes.push((
        position(1),
        Change::Count {
            repeats: 0,
            contradictions: 1,
        },
    ));
    draft.event(
        id(1),
        Some(Step::Committed),
        Step::Refused,
        ServerTime(9_000_001),
    );
    let refused = draft.events.last_mut().unwrap();
    refused.actor = Actor::Operator;
    refused.evidence = "asked for ROLLBACK".into();
    draft.published = 2;
    draft.commit().await.unwrap();
    // A day later 6 is committed; 3 could not be published.
    draft.wall_ms += 86_400_000;
    draft.prepare_decided(6, "bank", Decision::Commit);
    draft.changes.push((
        position(3),
        Change::Unpublished(Some("topic orders is gone".into())),
    ));
    draft.event(
        id(3),
        Some(Step::Committed),
        Step::Unpublished,
        ServerTime(9_000_002),
    );
    draft.published = 3;
    draft.commit().await.unwrap();
}

/// What is asked about [`two_days`].
pub(super) fn questions() -> Vec<Question> {
    let days = |to: &str| vec![("from", "2023-11-14".to_owned()), ("to", to.to_owned())];
    let limit = || vec![("limit", "10".to_owned())];
    let [one, three, four, five] = [1, 3, 4, 5].map(|number| id(number).to_string());
    let source = "10.0.0.7:40312 order-service@1";
    let stands = "unpublished|topic orders is gone";
    let said = "committed|operator|10.0.0.7:40312 order-service@1|asked for ROLLBACK|1";
    let question = |name, parameters, answer: &[String]| Question {
        name,
        parameters,
        answer: answer.to_vec(),
    };
    let outcomes = ["2023-11-14|shop|2|1|1|1", "2023-11-15|bank|1|0|0|0"].map(str::to_owned);
    vec![
        question("outcomes", days("2023-11-15"), &outcomes),
        question("outcomes", days("2023-11-14"), &outcomes[..1]),
        question(
            "open",
            limit(),
            &[format!("{five}|bank|orders|prepared|0|1005000|5000|5")],
        ),
        question(
            "parked",
            limit(),
            &[format!("{four}|bank|orders|15|4000|4")],
        ),
        question(
            "oldest_open",
            Vec::new(),
            &[format!("bank|1|1|{four}|2023-11-14 22:13:20.000")],
        ),
        question(
            "why",
            vec![("id", three)],
            &[
                format!("2023-11-14 22:13:20.000|-|prepared|producer|0|-|{source}||{stands}"),
                format!(
                    "2023-11-14 22:13:21.000|prepared|committed|producer|2000000|-|{source}||{stands}"
                ),
                format!(
                    "2023-11-15 22:13:22.000|committed|unpublished|producer|8997002|-|{source}||{stands}"
                ),
            ],
        ),
        question(
            "contradictions",
            days("2023-11-15"),
            &[format!("2023-11-14 22:13:21.000|{one}|shop|{said}")],
        ),
        question(
            "time_to_decision",
            days("2023-11-15"),
            &["bank|1|500|500|500", "shop|3|500|2000000|2000000"].map(str::to_owned),
        ),
        question("published", Vec::new(), &["4|3|1|1".to_owned()]),
    ]
}
