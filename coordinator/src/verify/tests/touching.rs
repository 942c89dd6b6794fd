//! Every kind of edit by hand in a real database is found, and the row is named; on SQLite and on Postgres.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use super::*;
use crate::store::database::Options;

const TABLES: [&str; 9] = [
    "name",
    "identity",
    "tx",
    "unpublished",
    "audit",
    "seal",
    "owner",
    "moved",
    "forgotten",
];

/// A connection to which nothing is forbidden: its owner has thrown triggers and checks away.
pub(super) enum Intruder {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Intruder {
    pub(super) async fn sqlite(database: &Path, kept: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(database);
        let mut this = Self::Sqlite(options.connect().await.unwrap());
        std::fs::File::create(kept).unwrap();
        let kept = kept.display();
        this.run(&format!(
            "PRAGMA ignore_check_constraints = ON; ATTACH '{kept}' AS kept"
        ))
        .await;
        let triggers =
            "SELECT 'DROP TRIGGER ' || name FROM main.sqlite_schema WHERE type = 'trigger'";
        this.run_all(triggers).await;
        this
    }

    pub(super) async fn postgres(database: &PgConnectOptions) -> Self {
        let mut this = Self::Postgres(database.connect().await.unwrap());
        this.run("SET search_path = halfmoon; CREATE SCHEMA kept")
            .await;
        this.run_all(
            "SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger \
             WHERE NOT tgisinternal AND tgrelid::regclass::text = ANY \
             ('{name,identity,tx,unpublished,audit,seal,owner,moved,forgotten}')",
        )
        .await;
        this.run_all(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint \
             WHERE contype = 'c' AND connamespace = 'halfmoon'::regnamespace AND conrelid <> 0",
        )
        .await;
        this
    }

    /// Runs what `select` writes.
    async fn run_all(&mut self, select: &'static str) {
        let texts: Vec<(String,)> = match self {
            Self::Sqlite(connection) => sqlx::query_as(select).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_as(select).fetch_all(connection).await,
        }
        .unwrap();
        for (text,) in texts {
            self.run(&text).await;
        }
    }

    /// Runs statements as they stand; returns how many rows they changed.
    pub(super) async fn run(&mut self, sql: &str) -> u64 {
        let statement = AssertSqlSafe(sql.to_owned());
        let done = match self {
            Self::Sqlite(connection) => connection
                .execute(sqlx::raw_sql(statement))
                .await
                .map(|done| done.rows_affected()),
            Self::Postgres(connection) => connection
                .execute(sqlx::raw_sql(statement))
                .await
                .map(|done| done.rows_affected()),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Keeps a copy of everything.
    pub(super) async fn keep(&mut self) {
        for table in TABLES {
            self.run(&format!(
                "CREATE TABLE kept.{table} AS SELECT * FROM {table}"
            ))
            .await;
        }
    }

    /// Puts everything back as it was.
    pub(super) async fn restore(&mut self) {
        let mut all = String::from("BEGIN;");
        for table in TABLES {
            all += &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept.{table};");
        }
        self.run(&(all + "COMMIT")).await;
    }

    /// The id of a transaction as it is written in SQL.
    pub(super) fn id(&self, number: u128) -> String {
        match self {
            Self::Sqlite(_) => format!("x'{number:032X}'"),
            Self::Postgres(_) => format!("'{number:032x}'::uuid"),
        }
    }

    /// The columns of a table, as the database's own catalogue names them.
    async fn columns(&mut self, table: &str) -> Vec<String> {
        let found: Vec<(String,)> = match self {
            Self::Sqlite(connection) => {
                sqlx::query_as("SELECT name FROM pragma_table_info(?)")
                    .bind(table)
                    .fetch_all(connection)
                    .await
            }
            Self::Postgres(connection) => {
                sqlx::query_as(
                    "SELECT attname::text FROM pg_attribute WHERE attrelid = ('halfmoon.' || $1)::regclass \
                     AND attnum > 0 AND NOT attisdropped",
                )
                .bind(table)
                .fetch_all(connection)
                .await
            }
        }
        .unwrap();
        found.into_iter().map(|(name,)| name).collect()
    }

    /// A hash of zeros.
    fn zeros(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "zeroblob(32)",
            Self::Postgres(_) => "decode(repeat('00', 32), 'hex')",
        }
    }

    /// `leaves` with a byte more.
    fn longer(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "CAST(leaves || x'01' AS BLOB)",
            Self::Postgres(_) => "leaves || '\\x01'::bytea",
        }
    }

    /// `column` as something that is not what it was, whatever it was.
    fn other(&self, column: &str) -> String {
        match column {
            "to_step" => "CASE to_step WHEN 2 THEN 1 ELSE 2 END".into(),
            "actor" => "CASE actor WHEN 4 THEN 1 ELSE 4 END".into(),
            "status" => "CASE status WHEN 2 THEN 1 ELSE 2 END".into(),
            "source" => "(SELECT max(id) FROM name WHERE id <> source)".into(),
            "grp" => "topic".into(),
            "topic" => "grp".into(),
            "evidence" => "evidence || 'x'".into(),
            "tx" | "id" | "log" | "batch" | "bytes" => self.id(99),
            "text" => "text || 'x'".into(),
            "decision_no" => "77".into(),
            "hash" | "head" => self.zeros().into(),
            "leaves" => self.longer().into(),
            "event" | "seq" => format!("{column} + 1000"),
            number => format!("coalesce({number}, 0) + 1"),
        }
    }
}

/// What `verify` finds, or why it cannot.
pub(super) async fn findings(database: &Database, log: Option<&Arc<LogReader>>) -> Vec<String> {
    let reader = database.open_reader(Options::default()).await.unwrap();
    let subject = Subject {
        reader: &reader,
        log,
        recorded_contradictions: 8,
    };
    match verify(&subject, &SystemRandom, &Arc::default()).await {
        Ok(report) => report.findings.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// A database with a history, whoever edits it, and what its edits look like.
struct Edited {
    database: Database,
    log: Option<Arc<LogReader>>,
    intruder: Intruder,
    events: Vec<Event>,
    seals: u64,
    tried: usize,
    wrong: Vec<String>,
}

impl Edited {
    async fn new(database: Database, data: &Path, intruder: Intruder) -> Self {
        let reader = database.open_reader(Options::default()).await.unwrap();
        let mut this = Self {
            events: reader.history(1, 1_000).await.unwrap(),
            seals: reader.owner().await.unwrap().unwrap().seq,
            database,
            log: Some(log_of(data)),
            intruder,
            tried: 0,
            wrong: Vec::new(),
        };
        this.intruder.keep().await;
        assert_eq!(this.found().await, Vec::<String>::new());
        this
    }

    /// What `verify` says, an error included: a command fails with either.
    async fn found(&self) -> Vec<String> {
        findings(&self.database, self.log.as_ref()).await
    }

    /// Does `edit`, expects something that contains each of `named`, and undoes it.
    async fn touch(&mut self, named: &[&str], edit: &str) {
        let changed = self.intruder.run(edit).await;
        let found = self.found().await;
        self.tried += 1;
        if changed == 0 {
            self.wrong.push(format!("{edit}: changes nothing"));
        }
        for named in named {
            if !found.iter().any(|line| line.contains(named)) {
                self.wrong
                    .push(format!("{edit}: no {named:?} in {found:?}"));
            }
        }
        self.intruder.restore().await;
    }

    /// The same without the log: as it is where the log has deleted the half message.
    async fn touch_without_log(&mut self, named: &[&str], edit: &str) {
        let kept = std::mem::take(&mut self.log);
        self.touch(named, edit).await;
        self.log = kept;
    }

    /// First, middle and last.
    fn some_of(last: u64) -> [u64; 3] {
        [1, last.div_ceil(2), last]
    }

    async fn events(&mut self) {
        let last = self.events.len() as u64;
        let columns = [
            "event",
            "tx",
            "from_step",
            "to_step",
            "actor",
            "at",
            "then_at",
            "fingerprint",
            "source",
            "evidence",
        ];
        for number in Self::some_of(last) {
            for column in columns {
                let other = self.intruder.other(column);
                let edit = format!("UPDATE audit SET {column} = {other} WHERE event = {number}");
                self.touch(&[&format!("event {number} ")], &edit).await;
            }
            let edit = format!("DELETE FROM audit WHERE event = {number}");
            self.touch(&[&format!("event {number} is missing")], &edit)
                .await;
        }
        for forged in [0, last + 1, last + 1_000] {
            let edit = insert("audit", forged as i64, "event", "WHERE event = 1");
            self.touch(&[&format!("event {forged} "), "was never sealed"], &edit)
                .await;
        }
        let edit = insert("audit", -5, "event", "WHERE event = 1");
        self.touch(&["-5"], &edit).await;
        for (one, other) in [(1, 2), (1, last)] {
            let edit = swap("audit", "event", one, other);
            let named = [format!("event {one} "), format!("event {other} ")];
            self.touch(&[&named[0], &named[1]], &edit).await;
        }
        // The text of the source, which events share.
        let edit = "UPDATE name SET text = 'somebody else' WHERE text = 'test'";
        self.touch(&["event 1 "], edit).await;
        self.touch(
            &["event", "no source we know"],
            "DELETE FROM name WHERE text = 'test'",
        )
        .await;
    }

    async fn seals(&mut self) {
        let last = self.seals;
        let columns = [
            "first_event",
            "count",
            "published",
            "wall_ms",
            "hash",
            "leaves",
        ];
        for number in Self::some_of(last) {
            for column in columns {
                let other = self.intruder.other(column);
                let edit = format!("UPDATE seal SET {column} = {other} WHERE seq = {number}");
                self.touch(&[&format!("seal {number} was changed")], &edit)
                    .await;
            }
            let missing = format!("seal {number} is missing");
            let edit = format!("UPDATE seal SET seq = seq + 1000 WHERE seq = {number}");
            self.touch(&[&missing], &edit).await;
            let edit = format!("DELETE FROM seal WHERE seq = {number}");
            self.touch(&[&missing], &edit).await;
        }
        let edit = "UPDATE seal SET first_event = 4611686018427387904 WHERE seq = 2";
        self.touch(&["seal 2 was changed"], edit).await;
        for forged in [0, last + 1] {
            let edit = insert("seal", forged as i64, "seq", "WHERE seq = 1");
            self.touch(&[&format!("seal {forged} belongs to no batch")], &edit)
                .await;
        }
        let edit = swap("seal", "seq", 1, last);
        let named = ["seal 1 was changed", &format!("seal {last} was changed")];
        self.touch(&named, &edit).await;
        // The end of the history, cut off: events, seal, or both.
        let cut = format!(
            "DELETE FROM audit WHERE event >= (SELECT first_event FROM seal WHERE seq = {last}); \
             DELETE FROM seal WHERE seq = {last}"
        );
        self.touch(&[&format!("seal {last} is missing")], &cut)
            .await;
    }

    async fn owner(&mut self) {
        for column in ["published", "last_decision", "head"] {
            let edit = format!(
                "UPDATE owner SET {column} = {}",
                self.intruder.other(column)
            );
            let named = format!("the owner row was changed: its {column} is");
            self.touch(&[&named], &edit).await;
        }
        for column in ["epoch", "batch", "watermark", "fingerprint"] {
            let other = self.intruder.other(column);
            let edit = format!("UPDATE owner SET {column} = {other}");
            let named = "the owner row was changed: its fingerprint";
            self.touch(&[named], &edit).await;
        }
        let edit = "UPDATE owner SET next_event = next_event + 1";
        self.touch(&["its next_event is"], edit).await;
        let behind = format!("seal {} is missing", self.seals + 1);
        let edit = "UPDATE owner SET seq = seq + 1";
        self.touch(&[&behind], edit).await;
        let named = format!("seal {} belongs to no batch", self.seals);
        self.touch(&[&named], "UPDATE owner SET seq = seq - 1")
            .await;
        self.touch(&["the owner row is missing"], "DELETE FROM owner")
            .await;
        let edit = format!("UPDATE owner SET log = {}", self.intruder.id(99));
        self.touch(&["says that the database belongs to log 0000"], &edit)
            .await;
    }

    async fn transactions(&mut self) {
        let whose = |number: u128| TransactionId(number).to_string();
        // Committed, rolled back and contradicted, open; first and last among them.
        for number in [1_u128, 5, 8] {
            let id = self.intruder.id(number);
            for column in [
                "id",
                "status",
                "prepared_at",
                "decided_at",
                "decision_no",
                "checks",
                "contradictions",
                "repeats",
                "check_at",
                "n",
                "half_pos",
                "half_off",
                "body_len",
                "grp",
                "topic",
                "sender",
                "marker",
            ] {
                let other = self.intruder.other(column);
                let edit = format!("UPDATE tx SET {column} = {other} WHERE id = {id}");
                self.touch(&[&whose(number)], &edit).await;
            }
            for column in [
                "half_pos", "half_off", "body_len", "grp", "topic", "sender", "marker",
            ] {
                // There is no other identity that a row could name.
                let other = match column {
                    "sender" => "NULL".into(),
                    column => self.intruder.other(column),
                };
                let edit = format!("UPDATE tx SET {column} = {other} WHERE id = {id}");
                let named = [&*whose(number), "than when it was written"];
                self.touch_without_log(&named, &edit).await;
            }
            let edit = format!("DELETE FROM tx WHERE id = {id}");
            self.touch(&[&whose(number), "its row is missing"], &edit)
                .await;
        }
        let (first, open, forged) = (
            self.intruder.id(1),
            self.intruder.id(7),
            self.intruder.id(99),
        );
        let edit = format!(
            "UPDATE tx SET status = 1, decided_at = 5, decision_no = 66, check_at = NULL WHERE id = {open}"
        );
        self.touch(&[&whose(7)], &edit).await;
        let edit = format!(
            "UPDATE tx SET status = 0, decided_at = NULL, decision_no = NULL, check_at = 1 WHERE id = {first}"
        );
        self.touch(&[&whose(1)], &edit).await;
        // A COMMIT that nobody gave.
        let edit = format!(
            "INSERT INTO tx (half_pos, half_off, id, prepared_at, decided_at, decision_no, body_len, grp, topic, status) \
             SELECT half_pos + 1, half_off, {forged}, prepared_at, decided_at, 55, body_len, grp, topic, status \
             FROM tx WHERE id = {first}"
        );
        self.touch(&[&whose(99), "its row was added"], &edit).await;
        let second = self.intruder.id(2);
        let edit = format!(
            "UPDATE tx SET id = {forged} WHERE id = {first}; UPDATE tx SET id = {first} WHERE id = {second}; \
             UPDATE tx SET id = {second} WHERE id = {forged}"
        );
        self.touch(&[&whose(1), &whose(2)], &edit).await;
        let edit =
            format!("INSERT INTO unpublished SELECT half_pos, 'x' FROM tx WHERE id = {first}");
        self.touch(&[&whose(1), "unpublished for x"], &edit).await;
        for edit in [
            "UPDATE forgotten SET event = 2",
            "UPDATE forgotten SET decisions = 1",
        ] {
            self.touch(&["the table forgotten was changed"], edit).await;
        }
        let edit = "INSERT INTO moved VALUES (1, 99)";
        self.touch(&["position 1, where no transaction is"], edit)
            .await;
        let edit = "INSERT INTO unpublished VALUES (1, 'x')";
        self.touch(&["position 1, where no transaction is"], edit)
            .await;
        let edit = "INSERT INTO unpublished SELECT max(half_pos) + 1, 'x' FROM tx";
        self.touch(&["where no transaction is"], edit).await;
    }

    /// What no program of ours writes is named with its row and its column.
    async fn impossible(&mut self) {
        let (transaction, id) = (TransactionId(1), self.intruder.id(1));
        let places = [
            (
                "tx",
                format!("id = {id}"),
                format!("transaction {transaction}"),
                "half_pos half_off body_len prepared_at decided_at decision_no checks repeats contradictions",
            ),
            (
                "audit",
                "event = 3".into(),
                "event 3".into(),
                "at fingerprint",
            ),
            (
                "seal",
                "seq = 2".into(),
                "seal 2".into(),
                "first_event count published wall_ms",
            ),
            (
                "owner",
                "one = 1".into(),
                "the owner row".into(),
                "epoch seq watermark published last_decision next_event fingerprint",
            ),
            (
                "forgotten",
                "one = 1".into(),
                "the table forgotten".into(),
                "event decisions",
            ),
        ];
        for (table, row, whose, columns) in places {
            for column in columns.split(' ') {
                let edit = format!("UPDATE {table} SET {column} = -5 WHERE {row}");
                let named = format!("{whose}: {column}: -5 stands where");
                self.touch(&[&named], &edit).await;
            }
        }
        for column in ["from_step", "to_step", "actor", "source"] {
            let edit = format!("UPDATE audit SET {column} = 999 WHERE event = 3");
            let what = column.trim_start_matches("from_").trim_start_matches("to_");
            self.touch(&[&format!("event 3: no {what} we know")], &edit)
                .await;
        }
    }

    /// Every column that the database knows of, so that none is forgotten.
    async fn every_column(&mut self) {
        for table in TABLES {
            let columns = self.intruder.columns(table).await;
            assert!(columns.len() > 1, "{table}: {columns:?}");
            for column in columns {
                // These have no row here.
                let is_empty = ["unpublished", "moved"].contains(&table);
                if is_empty {
                    continue;
                }
                let key = match table {
                    "tx" => "half_pos",
                    "audit" => "event",
                    "seal" => "seq",
                    "owner" | "forgotten" => "one",
                    _ => "id",
                };
                let other = match (table, &*column) {
                    ("name" | "identity", "id") => "id + 1000".into(),
                    _ => self.intruder.other(&column),
                };
                let edit = format!(
                    "UPDATE {table} SET {column} = {other} WHERE {key} = (SELECT max({key}) FROM {table})"
                );
                self.touch(&[""], &edit).await;
            }
        }
    }

    async fn all(mut self) {
        self.events().await;
        self.seals().await;
        self.owner().await;
        self.transactions().await;
        self.impossible().await;
        self.every_column().await;
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(self.tried > 80, "only {} edits", self.tried);
    }
}

/// A copy of the row `of` under another number.
fn insert(table: &str, number: i64, key: &str, of: &str) -> String {
    let columns = match table {
        "audit" => "tx, from_step, to_step, actor, at, then_at, fingerprint, source, evidence",
        _ => "first_event, count, published, wall_ms, hash, leaves",
    };
    format!("INSERT INTO {table} ({key}, {columns}) SELECT {number}, {columns} FROM {table} {of}")
}

/// Exchanges what stands under two numbers.
fn swap(table: &str, key: &str, one: u64, other: u64) -> String {
    format!(
        "UPDATE {table} SET {key} = -1 WHERE {key} = {one}; UPDATE {table} SET {key} = {one} WHERE {key} = {other}; \
         UPDATE {table} SET {key} = {other} WHERE {key} = -1"
    )
}

#[tokio::test]
async fn whatever_was_touched_by_hand_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    let database = Database::Sqlite(file.clone());
    let data = folder.path().join("data");
    history(&data, &database).await;
    let intruder = Intruder::sqlite(&file, &folder.path().join("kept.db")).await;
    Edited::new(database, &data, intruder).await.all().await;
}

#[tokio::test]
async fn whatever_was_touched_by_hand_is_named_on_postgres() {
    let folder = tempfile::tempdir().unwrap();
    let place = private_postgres::database().await;
    let database = Database::Postgres(private_postgres::url_of(&place));
    let data = folder.path().join("data");
    history(&data, &database).await;
    let intruder = Intruder::postgres(&place).await;
    Edited::new(database, &data, intruder).await.all().await;
}

#[tokio::test]
async fn a_history_that_was_written_anew_as_a_whole_is_not_what_the_log_tells() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let (data, file) = (place("data"), place("forged.db"));
    history(&data, &Database::Sqlite(place("history.db"))).await;
    let forged = Database::Sqlite(file.clone());
    history_but(&place("elsewhere"), &forged, Resolution::Commit).await;
    let log = log_of(&data);
    let mut intruder = Intruder::sqlite(&file, &place("kept.db")).await;
    let reader = forged.open_reader(Options::default()).await.unwrap();
    let mut owner = reader.owner().await.unwrap().unwrap();
    owner.log = log.id();
    // Wherever the forged one says that it has got to.
    for watermark in [owner.watermark, Position(0)] {
        owner.watermark = watermark;
        let (log_id, fingerprint) = (intruder.id(owner.log.0), owner.signed().fingerprint);
        let edit = format!(
            "UPDATE owner SET log = {log_id}, watermark = {watermark}, fingerprint = {fingerprint}"
        );
        intruder.run(&edit).await;
        assert_eq!(findings(&forged, None).await, Vec::<String>::new());
        let found = findings(&forged, Some(&log)).await;
        let named = "its row says committed as decision 4, the log has rolled_back as decision 4";
        assert!(found.iter().any(|line| line.contains(named)), "{found:#?}");
    }
}

#[tokio::test]
async fn a_history_whose_end_was_cut_off_cleanly_is_found_by_a_hash_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    let database = Database::Sqlite(file.clone());
    history(&folder.path().join("data"), &database).await;
    let reader = database.open_reader(Options::default()).await.unwrap();
    let last = reader.owner().await.unwrap().unwrap();
    assert_eq!(anchored(&*reader, last.seq, last.head).await.unwrap(), None);
    let found = anchored(&*reader, 1, last.head).await.unwrap().unwrap();
    assert!(
        found.to_string().starts_with("seal 1 was written anew"),
        "{found}"
    );
    let mut intruder = Intruder::sqlite(&file, &folder.path().join("kept.db")).await;
    let last = last.seq;
    // Everything that the last batch wrote, and the owner row as it was before.
    intruder
        .run(&format!(
            "DELETE FROM audit WHERE event >= (SELECT first_event FROM seal WHERE seq = {last}); \
             DELETE FROM seal WHERE seq = {last}; \
             DELETE FROM tx WHERE id NOT IN (SELECT tx FROM audit); \
             UPDATE owner SET seq = seq - 1, \
               next_event = (SELECT max(event) + 1 FROM audit), \
               head = (SELECT hash FROM seal ORDER BY seq DESC LIMIT 1), \
               published = (SELECT published FROM seal ORDER BY seq DESC LIMIT 1)"
        ))
        .await;
    let kept = Hash::default();
    let found = anchored(&*reader, last, kept).await.unwrap().unwrap();
    assert_eq!(found.to_string(), format!("seal {last} is missing"));
}
