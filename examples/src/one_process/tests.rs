//! Small runs of the whole shop, and books that were falsified by hand.

use std::fs;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::*;

/// Enough for every end and for four tills that die, two of them before their COMMIT.
const FEW: u64 = 40;

fn args(data: &Path, orders: u64) -> Args {
    Args {
        data: Some(data.to_path_buf()),
        postgres: None,
        orders,
        crash_at: None,
    }
}

async fn books(folder: &Path) -> Vec<Check> {
    let asked = Catalog::northwind().unwrap();
    let (shops, coordinator) = (folder.join(SHOPS_FOLDER), folder.join(DATABASE_FILE).into());
    let books = Books::<Sqlite>::open((&shops, LAYOUT), &coordinator, asked.orders(FEW)).await;
    let mut books = books.unwrap();
    let checks = books.check().await.unwrap();
    books.close().await.unwrap();
    checks
}

/// A folder with the databases of one.
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join(SHOPS_FOLDER)).unwrap();
    for folder in ["", SHOPS_FOLDER] {
        for file in fs::read_dir(from.join(folder)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.path().join(folder).join(file.file_name())).unwrap();
            }
        }
    }
    to
}

async fn falsify(file: &Path, statements: &'static str) {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = options.foreign_keys(false).connect().await.unwrap();
    let done = sqlx::raw_sql(statements).execute(&mut connection).await;
    let rows = done.unwrap().rows_affected();
    assert!(rows > 0, "nothing was falsified by {statements}");
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_shop_adds_up_goes_on_where_it_ended_and_falsified_books_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(&args(folder.path(), FEW)).await.unwrap();
    assert!(outcome.adds_up(), "{:?}", outcome.checks);
    let s = &outcome.summary;
    assert_eq!(s.orders, FEW as i64);
    assert_eq!(s.accepted + s.no_stock + s.not_paid + s.rejected, s.orders);
    assert_eq!((s.rejected, s.placed_by_check_back), (2, 2));
    assert_eq!((s.committed, s.by_check_back), (s.published, 4));
    assert_eq!(s.tombstones, 2);
    assert!(
        report::last_line(&outcome.summary, &outcome.checks)
            .ends_with("18 of 18 checks: all adds up")
    );
    assert_eq!(outcome.story.order, 10261);
    let told = outcome.story.to_string();
    assert!(told.contains("marker=committed"), "{told}");

    let again = run(&args(folder.path(), FEW)).await.unwrap();
    assert!(again.adds_up(), "{:?}", again.checks);
    assert_eq!(again.summary, outcome.summary, "nothing was left to do");

    falsified_books_are_found(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgres_the_shop_adds_up_too_goes_on_where_it_ended_and_falsified_books_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let database = private_postgres::database().await;
    let url = private_postgres::url_of(&database);
    let args = Args {
        postgres: Some(url.clone()),
        ..args(folder.path(), FEW)
    };
    let outcome = run(&args).await.unwrap();
    assert!(outcome.adds_up(), "{:?}", outcome.checks);
    let s = &outcome.summary;
    assert_eq!(s.orders, FEW as i64);
    assert_eq!((s.rejected, s.placed_by_check_back), (2, 2));
    assert_eq!((s.committed, s.by_check_back), (s.published, 4));
    assert_eq!(s.tombstones, 2);
    assert_eq!(outcome.checks.len(), 18);
    let told = outcome.story.to_string();
    assert!(told.contains("marker=committed"), "{told}");
    assert!(told.contains("are in schema orders_"), "{told}");

    let again = run(&args).await.unwrap();
    assert!(again.adds_up(), "{:?}", again.checks);
    assert_eq!(again.summary, outcome.summary, "nothing was left to do");

    let mut connection = database.connect().await.unwrap();
    let coordinator = Database::Postgres(url.clone());
    for (words, statement) in FALSE_IN_POSTGRES {
        let done = sqlx::raw_sql(*statement).execute(&mut connection).await;
        assert!(done.unwrap().rows_affected() > 0, "{statement}");
        let asked = Catalog::northwind().unwrap();
        let books = Books::<Postgres>::open((&url, LAYOUT), &coordinator, asked.orders(FEW)).await;
        let mut books = books.unwrap();
        let checks = books.check().await.unwrap();
        let check = checks.iter().find(|check| check.what.starts_with(words));
        assert!(!check.unwrap().found.is_empty(), "{words}");
        books.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_postgres_database_is_refused_in_one_line() {
    for url in ["sqlite:shop.db", "mysql://x", "shop"] {
        let arguments = ["one_process", "--postgres", url];
        let line = refusal(&Args::try_parse_from(arguments).unwrap_err());
        assert!(line.contains("postgres://USER@HOST/DATABASE"), "{line}");
    }
}

/// Changes by hand, one on top of the other, each with a check that must find it.
const FALSE_IN_POSTGRES: &[(&str, &str)] = &[
    (
        "every order that was to be placed has exactly one end",
        "INSERT INTO orders_0.rejected_order SELECT order_id, 'by hand' FROM orders_0.orders LIMIT 1",
    ),
    (
        "all lines of an order are reserved, or none",
        "DELETE FROM stock_0.reservation_line WHERE quantity = (SELECT min(quantity) FROM stock_0.reservation_line)",
    ),
    (
        "for every product",
        "UPDATE stock_0.product SET on_hand = on_hand + 1 WHERE product_id = 1",
    ),
    (
        "every transaction is decided, and every committed one published",
        "UPDATE halfmoon.owner SET published = 0",
    ),
    (
        "a transaction is committed exactly when its business row is there",
        "DELETE FROM stock_0.reservation WHERE status = 'refused'",
    ),
    (
        "every business row belongs to a published transaction of its topic",
        "UPDATE payments_0.payment SET answered_by = decode(md5(answered_by), 'hex')",
    ),
    (
        "no marker belongs to a transaction that nobody knows",
        "INSERT INTO payments_0.halfmoon_marker (id, value, at_ms) VALUES (gen_random_uuid(), 1, 0)",
    ),
];

/// For each check a change by hand that it must find.
const FALSE: &[(&str, &str, &str)] = &[
    (
        "every order that was to be placed has exactly one end",
        "shops/orders_0.db",
        "INSERT INTO rejected_order SELECT order_id, 'by hand' FROM orders LIMIT 1",
    ),
    (
        "no order is left open",
        "shops/orders_1.db",
        "DROP TRIGGER orders_end_once; \
         UPDATE orders SET status = 'placed', reason = NULL, cancelled_by = NULL",
    ),
    (
        "an order is rejected exactly when the shop's rule says so",
        "shops/orders_2.db",
        "INSERT INTO rejected_order SELECT order_id, 'by hand' FROM orders LIMIT 1",
    ),
    (
        "what was placed is what was ordered",
        "shops/orders_3.db",
        "DROP TRIGGER orders_end_once; UPDATE orders SET freight_cents = freight_cents + 1",
    ),
    (
        "accepted orders are reserved and captured",
        "shops/payments_0.db",
        "UPDATE payment SET status = CASE status WHEN 'captured' THEN 'refused' ELSE 'captured' END",
    ),
    (
        "nothing is reserved or paid for an order that is not there",
        "shops/stock_0.db",
        "INSERT INTO reservation VALUES (1, 'refused', randomblob(16))",
    ),
    (
        "an order is paid for once, and its amount",
        "shops/payments_1.db",
        "UPDATE payment SET amount_cents = amount_cents + 1",
    ),
    (
        "the money captured is what accepted orders cost",
        "shops/payments_1.db",
        "UPDATE payment SET amount_cents = amount_cents + 1 WHERE status = 'captured'",
    ),
    (
        "all lines of an order are reserved, or none",
        "shops/stock_0.db",
        "DELETE FROM reservation_line WHERE quantity = (SELECT min(quantity) FROM reservation_line)",
    ),
    (
        "for every product",
        "shops/stock_0.db",
        "UPDATE product SET on_hand = on_hand + 1 WHERE product_id = 1",
    ),
    (
        "every transaction is decided, and every committed one published",
        "halfmoon.db",
        "UPDATE owner SET published = 0",
    ),
    (
        "the history tells one decision",
        "halfmoon.db",
        "INSERT INTO audit (event, tx, from_step, to_step, actor, at, source, evidence) \
         SELECT (SELECT max(event) + 1 FROM audit), tx, 0, 1, 1, at, source, '' FROM audit WHERE to_step = 1 LIMIT 1",
    ),
    (
        "nobody contradicted a decision",
        "halfmoon.db",
        "UPDATE tx SET contradictions = 1 WHERE half_pos = (SELECT min(half_pos) FROM tx)",
    ),
    (
        "a transaction is committed exactly when its business row is there",
        "shops/stock_0.db",
        "DELETE FROM reservation WHERE status = 'refused'",
    ),
    (
        "every business row belongs to a published transaction of its topic",
        "shops/stock_0.db",
        "UPDATE reservation SET answered_by = randomblob(16)",
    ),
    (
        "the marker says the same as the decision",
        "shops/orders_0.db",
        "DROP TRIGGER halfmoon_marker_never_changes; UPDATE halfmoon_marker SET value = 0",
    ),
    (
        "no marker belongs to a transaction that nobody knows",
        "shops/payments_0.db",
        "INSERT INTO halfmoon_marker VALUES (randomblob(16), 1, 0)",
    ),
    (
        "what a dead till left open was decided by a check-back",
        "halfmoon.db",
        "DROP TRIGGER audit_no_update; UPDATE audit SET actor = 1 WHERE actor = 3",
    ),
];

async fn falsified_books_are_found(folder: &Path) {
    let mut known: Vec<&str> = books(folder).await.iter().map(|check| check.what).collect();
    for (words, file, statements) in FALSE {
        let copy = copy(folder);
        falsify(&copy.path().join(file), statements).await;
        let checks = books(copy.path()).await;
        let check = checks.iter().find(|check| check.what.starts_with(words));
        let check = check.unwrap_or_else(|| panic!("there is no check {words:?}"));
        assert!(!check.found.is_empty(), "not found: {words}, {statements}");
        known.retain(|what| *what != check.what);
    }
    assert!(known.is_empty(), "checks that nothing falsified: {known:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    for data in [
        folder.path().to_path_buf(),
        folder.path().join("thesis.tex"),
    ] {
        match run(&args(&data, FEW)).await {
            Err(RunError::Unusable(why)) => {
                assert!(why.contains("thesis.tex") && !why.contains('\n'), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn wrong_arguments_are_named_in_one_line() {
    for (arguments, wrong) in [
        (vec!["one_process", "--orders", "0"], "--orders"),
        (vec!["one_process", "--orders", "many"], "many"),
        (vec!["one_process", "--dada", "x"], "--dada"),
        (vec!["one_process", "x"], "'x'"),
        (vec!["one_process", "--data"], "--data"),
    ] {
        let line = refusal(&Args::try_parse_from(arguments).unwrap_err());
        assert!(
            line.starts_with("error: ") && line.contains(wrong),
            "{line}"
        );
    }
}
