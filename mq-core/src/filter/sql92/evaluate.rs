//! What an expression says of a message: yes, no, or unknown. Pure.

use std::cmp::Ordering;

use super::{Constant, Node, Order, TextTest};
use crate::wire::properties::Properties;

/// A property has no number where one is asked for: nothing more is looked at, the message is not wanted.
struct Aborted;

/// A value; `Unknown` is that of an absent property, and what a comparison with it comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Unknown,
}

/// Whether the expression says yes.
pub(super) fn matches(root: &Node, properties: Properties<'_>) -> bool {
    matches!(truth(root, properties), Ok(Some(true)))
}

/// What a part says as a condition; `None` is unknown. Texts and numbers say no.
fn truth(node: &Node, properties: Properties<'_>) -> Result<Option<bool>, Aborted> {
    Ok(match value(node, properties)? {
        Value::Bool(truth) => Some(truth),
        Value::Unknown => None,
        Value::Text(_) | Value::Integer(_) | Value::Float(_) => Some(false),
    })
}

fn value<'a>(node: &'a Node, properties: Properties<'a>) -> Result<Value<'a>, Aborted> {
    let said = match node {
        Node::Constant(constant) => return Ok(literal(constant)),
        Node::Property(name) => {
            return Ok(properties.get(name).map_or(Value::Unknown, Value::Text));
        }
        Node::And(left, right) => both(left, right, properties, false)?,
        Node::Or(left, right) => both(left, right, properties, true)?,
        Node::Not(inner) => truth(inner, properties)?.map(|truth| !truth),
        Node::Equal(left, right) => equal(value(left, properties)?, value(right, properties)?)?,
        Node::Order(order, left, right) => {
            ordered(*order, value(left, properties)?, value(right, properties)?)?
        }
        Node::IsNull(inner) => Some(value(inner, properties)? == Value::Unknown),
        Node::In(name, texts, negated) => {
            let text = properties.get(name);
            text.map(|text| texts.iter().any(|known| known == text) != *negated)
        }
        Node::Text(test, name, wanted, negated) => {
            let text = properties.get(name);
            Some(text.is_some_and(|text| holds(*test, text, wanted) != *negated))
        }
    };
    Ok(said.map_or(Value::Unknown, Value::Bool))
}

fn literal(constant: &Constant) -> Value<'_> {
    match constant {
        Constant::Text(text) => Value::Text(text),
        Constant::Integer(number) => Value::Integer(*number),
        Constant::Float(number) => Value::Float(*number),
        Constant::Bool(truth) => Value::Bool(*truth),
        Constant::Null => Value::Unknown,
    }
}

/// AND, which `false` decides, and OR, which `true` does. What the left side decides, the right side is not asked.
fn both(
    left: &Node,
    right: &Node,
    properties: Properties<'_>,
    decides: bool,
) -> Result<Option<bool>, Aborted> {
    let left = truth(left, properties)?;
    if left == Some(decides) {
        return Ok(left);
    }
    let right = truth(right, properties)?;
    Ok(match (left, right) {
        (_, Some(truth)) if truth == decides => right,
        (Some(_), right) => right,
        (None, _) => None,
    })
}

fn holds(test: TextTest, text: &str, wanted: &str) -> bool {
    match test {
        TextTest::Contains => text.contains(wanted),
        TextTest::StartsWith => text.starts_with(wanted),
        TextTest::EndsWith => text.ends_with(wanted),
    }
}

/// `=`: absent on both sides is equal, absent on the right side alone is not, on the left side alone nobody knows.
fn equal(left: Value<'_>, right: Value<'_>) -> Result<Option<bool>, Aborted> {
    Ok(match (left, right) {
        (Value::Unknown, Value::Unknown) => Some(true),
        (Value::Unknown, _) => None,
        (_, Value::Unknown) => Some(false),
        (Value::Text(left), Value::Text(right)) => Some(left == right),
        (Value::Bool(left), Value::Bool(right)) => Some(left == right),
        (Value::Text(text), Value::Bool(truth)) | (Value::Bool(truth), Value::Text(text)) => {
            Some(text.eq_ignore_ascii_case("true") == truth)
        }
        (Value::Bool(_), _) | (_, Value::Bool(_)) => Some(false),
        (left, right) => compared(left, right)?.map(Ordering::is_eq),
    })
}

fn ordered(order: Order, left: Value<'_>, right: Value<'_>) -> Result<Option<bool>, Aborted> {
    if left == Value::Unknown || right == Value::Unknown {
        return Ok(None);
    }
    let found = compared(left, right)?;
    Ok(found.map(|found| match order {
        Order::Less => found.is_lt(),
        Order::LessOrEqual => found.is_le(),
        Order::Greater => found.is_gt(),
        Order::GreaterOrEqual => found.is_ge(),
    }))
}

/// Two numbers; a text takes the type of the other side, two texts that of a number with a point.
fn compared(left: Value<'_>, right: Value<'_>) -> Result<Option<Ordering>, Aborted> {
    let (left, right) = match (left, right) {
        (Value::Text(left), Value::Integer(right)) => {
            return Ok(Some(integer(left, right)?.cmp(&right)));
        }
        (Value::Integer(left), Value::Text(right)) => {
            return Ok(Some(left.cmp(&integer(right, left)?)));
        }
        (Value::Integer(left), Value::Integer(right)) => return Ok(Some(left.cmp(&right))),
        (left, right) => (float(left)?, float(right)?),
    };
    Ok(left.partial_cmp(&right))
}

/// A text as a whole number with as many bits as the constant beside it needs: 32 or 64.
fn integer(text: &str, beside: i64) -> Result<i64, Aborted> {
    if i32::try_from(beside).is_ok() {
        text.parse::<i32>().map(i64::from).map_err(|_| Aborted)
    } else {
        text.parse().map_err(|_| Aborted)
    }
}

fn float(value: Value<'_>) -> Result<f64, Aborted> {
    match value {
        Value::Text(text) => text.trim().parse().map_err(|_| Aborted),
        Value::Integer(number) => Ok(number as f64),
        Value::Float(number) => Ok(number),
        Value::Bool(_) | Value::Unknown => Err(Aborted),
    }
}
