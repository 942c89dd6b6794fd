//! What a subscription wants: tags, as the expression `a || b` or `*`, or properties; and the hash that queues keep of a tag.

pub mod sql92;

use std::fmt;
use std::sync::Arc;

use self::sql92::{Expression, ExpressionError};
use crate::wire::properties::Properties;

/// What a subscription wants, parsed. `*`, an empty expression and nothing at all want every message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    tags: Vec<(String, i64)>,
    properties: Option<Arc<Expression>>,
}

/// A tag expression that cannot be read; the message quotes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag expression {0:?} is not a list of tags joined by ||")]
pub struct FilterError(pub String);

impl Filter {
    /// Wants every message.
    pub const ALL: Self = Self {
        tags: Vec::new(),
        properties: None,
    };

    /// Reads an expression: tags joined by `||`, blanks around them ignored.
    ///
    /// # Errors
    /// [`FilterError`] when it has separators but no tag.
    pub fn parse(expression: &str) -> Result<Self, FilterError> {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::ALL);
        }
        let mut tags: Vec<(String, i64)> = Vec::new();
        for tag in expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
        {
            if tags.iter().all(|(known, _)| known != tag) {
                tags.push((tag.to_owned(), tag_code(tag)));
            }
        }
        if tags.is_empty() {
            return Err(FilterError(expression.chars().take(80).collect()));
        }
        Ok(Self {
            tags,
            properties: None,
        })
    }

    /// Reads an expression over properties.
    ///
    /// # Errors
    /// [`ExpressionError`] says where and what was expected.
    pub fn by_properties(expression: &str) -> Result<Self, ExpressionError> {
        Ok(Self {
            tags: Vec::new(),
            properties: Some(Arc::new(Expression::parse(expression)?)),
        })
    }

    /// Whether the properties of a message have to be looked at: only the broker does that.
    #[must_use]
    pub const fn asks_properties(&self) -> bool {
        self.properties.is_some()
    }

    /// Whether a message with these properties is wanted, as far as properties are asked for.
    #[must_use]
    pub fn wants(&self, properties: Properties<'_>) -> bool {
        let says = |expression: &Arc<Expression>| expression.matches(properties);
        self.properties.as_ref().is_none_or(says)
    }

    /// Whether a message with this tag code may be wanted: hashes can collide, see [`Self::matches`].
    #[must_use]
    pub fn may_match(&self, code: i64) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|(_, wanted)| *wanted == code)
    }

    /// Whether a message with this tag is wanted. A message without a tag is wanted by `*` only.
    #[must_use]
    pub fn matches(&self, tag: Option<&str>) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|(wanted, _)| tag == Some(wanted))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(expression) = &self.properties {
            return fmt::Display::fmt(expression, f);
        }
        if self.tags.is_empty() {
            return f.write_str("*");
        }
        for (index, (tag, _)) in self.tags.iter().enumerate() {
            let between = if index == 0 { "" } else { " || " };
            write!(f, "{between}{tag}")?;
        }
        Ok(())
    }
}

/// What a queue keeps of a tag: Java's `String.hashCode`, sign-extended; 0 for no tag.
#[must_use]
pub fn tag_code(tag: &str) -> i64 {
    i64::from(tag.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_javas() {
        assert_eq!(tag_code(""), 0);
        assert_eq!(tag_code("TagA"), 2_598_919);
        assert_eq!(tag_code("polygenelubricants"), i64::from(i32::MIN));
        assert_eq!(tag_code("半消息"), 21_384_369);
    }

    #[test]
    fn an_expression_is_a_list_of_tags() {
        let filter = Filter::parse(" a ||b|| a ").unwrap();
        assert_eq!(filter.to_string(), "a || b");
        assert!(filter.matches(Some("a")) && filter.matches(Some("b")));
        assert!(!filter.matches(Some("c")) && !filter.matches(None));
        assert!(filter.may_match(tag_code("b")) && !filter.may_match(0));
        for all in ["", "*", "  "] {
            let filter = Filter::parse(all).unwrap();
            assert!(filter.matches(None) && filter.matches(Some("x")) && filter.may_match(0));
        }
        assert_eq!(Filter::parse(" || "), Err(FilterError("||".into())));
    }

    #[test]
    fn tags_whose_hashes_collide_are_told_apart() {
        let filter = Filter::parse("Aa").unwrap();
        assert!(filter.may_match(tag_code("BB")));
        assert!(!filter.matches(Some("BB")));
    }
}
