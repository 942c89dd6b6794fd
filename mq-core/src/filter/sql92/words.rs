//! The words of an expression: names, literals, signs. Pure.

use super::ExpressionError;

/// One word, and the byte it begins at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) token: Token,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Name(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Sign(&'static str),
}

/// Signs, longer ones before those they begin with.
const SIGNS: [&str; 11] = ["<>", ">=", "<=", "=", ">", "<", "(", ")", ",", "+", "-"];

/// Splits a text into words; blanks and comments are left out.
pub(super) fn split(text: &str) -> Result<Vec<Word>, ExpressionError> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = behind_blanks(rest, text)?;
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            return Ok(words);
        };
        let (token, behind) = if first == '\'' {
            literal(rest).ok_or_else(|| wrong(at, "a text has no closing quote"))?
        } else if first.is_ascii_digit() || first == '.' {
            number(rest).map_err(|why| wrong(at, why))?
        } else if is_name_start(first) {
            let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            (Token::Name(name.to_owned()), behind)
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| wrong(at, &format!("{first:?} is not expected")))?;
            (
                Token::Sign(sign),
                rest.get(sign.len()..).unwrap_or_default(),
            )
        };
        words.push(Word { at, token });
        rest = behind;
    }
}

/// An error at a byte of the expression.
pub(super) fn wrong(at: usize, why: &str) -> ExpressionError {
    ExpressionError(format!(
        "the expression cannot be read at character {}: {why}",
        at + 1
    ))
}

fn behind_blanks<'a>(mut rest: &'a str, text: &str) -> Result<&'a str, ExpressionError> {
    loop {
        let trimmed = rest.trim_start();
        rest = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, behind)| behind)
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            let at = text.len() - trimmed.len();
            let (_, behind) = comment
                .split_once("*/")
                .ok_or_else(|| wrong(at, "a comment has no end"))?;
            behind
        } else {
            return Ok(trimmed);
        };
    }
}

/// A text in quotes; a quote in it stands twice.
fn literal(rest: &str) -> Option<(Token, &str)> {
    let mut text = String::new();
    let mut rest = rest.strip_prefix('\'')?;
    loop {
        let (part, behind) = rest.split_once('\'')?;
        text.push_str(part);
        match behind.strip_prefix('\'') {
            Some(more) => {
                text.push('\'');
                rest = more;
            }
            None => return Some((Token::Text(text), behind)),
        }
    }
}

/// A whole number, perhaps with an `L` behind it, or one with a point or an exponent.
fn number(rest: &str) -> Result<(Token, &str), &'static str> {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let whole = digits(rest);
    let mut end = whole;
    let at = |end: usize| rest.get(end..).unwrap_or_default();
    if at(end).starts_with('.') {
        end += 1;
        end += digits(at(end));
    }
    if at(end).starts_with(['e', 'E']) {
        let sign = usize::from(at(end + 1).starts_with(['+', '-']));
        let exponent = digits(at(end + 1 + sign));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    let (text, mut behind) = rest.split_at(end);
    let token = if end == whole {
        behind = behind.strip_prefix(['L', 'l']).unwrap_or(behind);
        let value = text
            .parse()
            .map_err(|_| "a whole number has more than 64 bits")?;
        Token::Integer(value)
    } else {
        let value: f64 = text.parse().map_err(|_| "a number is expected")?;
        // The original compares with the smallest positive number of its kind.
        if !value.is_finite() || value < f64::from_bits(1) {
            return Err("a number with a point must be above 0");
        }
        Token::Float(value)
    };
    if behind.starts_with(is_name) {
        return Err("a number ends with letters");
    }
    Ok((token, behind))
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == '$'
}

fn is_name(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit()
}
