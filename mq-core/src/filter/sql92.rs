//! Expressions over a message's properties (RocketMQ's dialect of SQL92): read once, then asked for each message.
//!
//! RocketMQ's odd rules are kept, so that a consumer gets the same messages here: properties are text and take the type of
//! the constant they are compared with; a text that has no such number ends the whole expression, unless something to its
//! left has decided already; and an absent property is unknown rather than different.

mod evaluate;
mod parse;
mod words;

use std::fmt;

use crate::wire::properties::Properties;

/// Longest expression in bytes.
pub const EXPRESSION_MAX_BYTES: usize = 8 * 1024;

/// An expression, read. Two are the same when their texts are.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    root: Node,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is no expression; says where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`ExpressionError`].
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > EXPRESSION_MAX_BYTES {
            return Err(ExpressionError(format!(
                "the expression has {} bytes; at most {EXPRESSION_MAX_BYTES} are allowed",
                text.len()
            )));
        }
        let root = parse::parse(&words::split(text)?)?;
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// Whether a message with these properties is wanted.
    #[must_use]
    pub fn matches(&self, properties: Properties<'_>) -> bool {
        evaluate::matches(&self.root, properties)
    }
}

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Constant(Constant),
    Property(String),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    /// `=`; `<>` is its `NOT`.
    Equal(Box<Self>, Box<Self>),
    Order(Order, Box<Self>, Box<Self>),
    /// `IS NULL`; `IS NOT NULL` is its `NOT`.
    IsNull(Box<Self>),
    /// A property among texts, or not among them.
    In(String, Vec<String>, bool),
    /// A property that contains, begins or ends with a text, or does not.
    Text(TextTest, String, String, bool),
}

/// A value in the text of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Constant {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Null,
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is asked of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[cfg(test)]
mod tests;
