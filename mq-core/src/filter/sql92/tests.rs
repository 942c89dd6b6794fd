//! The expressions that the original accepts and refuses, and what they say.

use proptest::prelude::*;

use super::*;
use crate::wire::properties;

/// Properties as `name=value`, separated by blanks.
fn encoded(pairs: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for pair in pairs.split_whitespace() {
        let (name, value) = pair.split_once('=').unwrap();
        properties::push(&mut encoded, name, value);
    }
    encoded
}

fn says(expression: &str, pairs: &str) -> bool {
    let expression = Expression::parse(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    expression.matches(Properties(&encoded(pairs)))
}

fn all_say(cases: &[(&str, &str, bool)]) {
    for (expression, pairs, wanted) in cases {
        assert_eq!(says(expression, pairs), *wanted, "{expression} of {pairs}");
    }
}

#[test]
fn comparisons_take_the_type_of_the_constant() {
    all_say(&[
        ("a > 5", "a=6", true),
        ("a > 5", "a=5", false),
        ("a >= 5 AND a <= 5", "a=5", true),
        ("5 < a", "a=6", true),
        ("a > 5", "a=6.5", false),
        ("a > 5.0", "a=6.5", true),
        ("a > 5", "a=99999999999", false),
        ("a > 5000000000", "a=99999999999", true),
        ("a = 5", "a=5", true),
        ("a <> 5", "a=6", true),
        ("a = -5", "a=-5", true),
        ("a = +5L", "a=5", true),
        ("a = 1.5e1", "a=15", true),
        ("a between 0 and 3", "a=3", true),
        ("a not between 0 and 3", "a=4", true),
        ("a BETWEEN 1 AND 2.5", "a=2", true),
        ("a < b", "a=2 b=10", true),
        ("a < b", "a=x b=10", false),
    ]);
}

#[test]
fn texts_and_booleans_are_compared_as_such() {
    all_say(&[
        ("a = 'x'", "a=x", true),
        ("a <> 'x'", "a=y", true),
        ("a = 'it''s'", "a=it's", true),
        ("a IN ('x', 'y')", "a=y", true),
        ("a not in ('x')", "a=y", true),
        ("a in ('x')", "", false),
        ("a not in ('x')", "", false),
        ("a = TRUE", "a=True", true),
        ("a = false", "a=no", true),
        ("a contains 'bc'", "a=abcd", true),
        ("a not contains 'bc'", "a=abcd", false),
        ("a startswith 'ab'", "a=abcd", true),
        ("a endswith 'cd'", "a=abcd", true),
        ("a not contains 'x'", "", false),
        ("TAGS = 'TagA'", "TAGS=TagA", true),
        ("$a_1 = 'x'", "$a_1=x", true),
    ]);
}

#[test]
fn what_is_absent_is_unknown() {
    all_say(&[
        ("a is null", "", true),
        ("a is not null", "a=x", true),
        ("a is null", "a=x", false),
        ("a > 5", "", false),
        ("NOT (a > 5)", "", false),
        ("a > 5 OR b = 1", "b=1", true),
        ("a > 5 AND b = 2", "b=1", false),
        ("NOT (a > 5 AND b = 2)", "b=1", true),
        ("a = b", "", true),
        ("a = b", "a=x", false),
        ("NOT (a = b)", "a=x", true),
        ("NOT (a = b)", "b=x", false),
        ("a", "a=true", false),
        ("NOT a", "a=true", true),
        ("a", "", false),
        ("TRUE", "", true),
        ("NULL", "", false),
    ]);
}

#[test]
fn a_text_without_a_number_ends_the_expression_unless_it_is_decided() {
    all_say(&[
        ("a > 5 OR b = 1", "a=x b=1", false),
        ("b = 1 OR a > 5", "a=x b=1", true),
        ("NOT (a > 5)", "a=x", false),
    ]);
}

#[test]
fn comments_and_case_do_not_matter() {
    all_say(&[
        ("a /* the number */ Between 1 -- from\n aNd 2", "a=1", true),
        ("((a = 1)) or not (b is null)", "b=x", true),
        // AND binds closer.
        ("a = 1 or a = 2 and b = 3", "a=1", true),
    ]);
}

#[test]
fn what_the_original_refuses_is_refused() {
    for refused in [
        "",
        "a =",
        "a between 0  3",
        "a between 3 and 0",
        "a between 'x' and 'y'",
        "a between b and 3",
        "a > 'x'",
        "a > TRUE",
        "a in (1)",
        "a in ()",
        "1 in ('x')",
        "a like 'x'",
        "a = 'x",
        "a + 1 = 2",
        "a is 5",
        "a = 0.0",
        "a = 99999999999999999999",
        "a = 5x",
        "(a = 1",
        "a = 1)",
        "a not = 5",
        "a # b",
        "/* a",
        "and",
        "a b",
        "- a = 1",
    ] {
        assert!(Expression::parse(refused).is_err(), "{refused}");
    }
    let error = Expression::parse("a between 0  3").unwrap_err().to_string();
    assert!(
        error.contains("character 14") && error.contains("AND"),
        "{error}"
    );
}

#[test]
fn neither_length_nor_depth_can_hurt() {
    let deep = format!("{}a{}", "(".repeat(4_000), ")".repeat(4_000));
    assert!(Expression::parse(&deep).is_err());
    assert!(Expression::parse(&"NOT ".repeat(2_000)).is_err());
    assert!(Expression::parse(&"a".repeat(EXPRESSION_MAX_BYTES + 1)).is_err());
    let long = vec!["a=1"; 1_100].join(" OR ");
    assert!(says(&long, "a=1") && !says(&long, "a=2"));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,60}") {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn any_words_are_read_and_asked_without_panic(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "a", "b", "AND", "OR", "NOT", "(", ")", "=", "<>", "<", ">=", "1", "2.5", "'x'", "BETWEEN", "IN", ",",
                "IS", "NULL", "TRUE", "CONTAINS", "-", "+",
            ]),
            0..12,
        )
    ) {
        if let Ok(expression) = Expression::parse(&words.join(" ")) {
            let _ = expression.matches(Properties(b"a\x011\x02b\x01x\x02"));
        }
    }
}
