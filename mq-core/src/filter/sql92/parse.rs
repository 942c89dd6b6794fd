//! From words to an expression. Pure.
//!
//! ```text
//! or       := and { OR and }
//! and      := equality { AND equality }
//! equality := compared { (= | <>) compared | IS [NOT] NULL }
//! compared := unary { (< | <= | > | >=) unary | [NOT] BETWEEN unary AND unary | [NOT] IN (texts)
//!                   | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) text }
//! unary    := + unary | - unary | NOT unary | literal | name | ( or )
//! ```

use super::words::{Token, Word, wrong};
use super::{Constant, ExpressionError, Node, Order, TextTest};

/// How deep parentheses and signs may be nested.
const DEPTH_MAX: usize = 64;

/// Words that are no names, in capitals.
const KEYWORDS: [&str; 13] = [
    "AND",
    "OR",
    "NOT",
    "BETWEEN",
    "IN",
    "IS",
    "NULL",
    "TRUE",
    "FALSE",
    "CONTAINS",
    "STARTSWITH",
    "ENDSWITH",
    "LIKE",
];

/// Reads a whole expression.
pub(super) fn parse(words: &[Word]) -> Result<Node, ExpressionError> {
    let mut reader = Reader {
        words,
        next: 0,
        depth: 0,
    };
    let node = reader.or()?;
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.expected("the end")),
    }
}

struct Reader<'a> {
    words: &'a [Word],
    next: usize,
    depth: usize,
}

type Read<T> = Result<T, ExpressionError>;

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.words.get(self.next).map(|word| &word.token)
    }

    fn expected(&self, what: &str) -> ExpressionError {
        match self.words.get(self.next) {
            Some(word) => wrong(word.at, &format!("{what} is expected")),
            None => {
                let at = self.words.last().map_or(0, |word| word.at);
                wrong(at, &format!("{what} is expected behind this"))
            }
        }
    }

    /// Goes over a sign.
    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(known)) if *known == sign);
        self.next += usize::from(found);
        found
    }

    /// Goes over a keyword, in any case.
    fn keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Token::Name(name)) if name.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Read<Node> {
        let mut node = self.and()?;
        while self.keyword("OR") {
            node = Node::Or(Box::new(node), Box::new(self.and()?));
        }
        Ok(node)
    }

    fn and(&mut self) -> Read<Node> {
        let mut node = self.equality()?;
        while self.keyword("AND") {
            node = Node::And(Box::new(node), Box::new(self.equality()?));
        }
        Ok(node)
    }

    fn equality(&mut self) -> Read<Node> {
        let mut node = self.compared()?;
        loop {
            node = if self.sign("=") {
                Node::Equal(Box::new(node), Box::new(self.compared()?))
            } else if self.sign("<>") {
                not(Node::Equal(Box::new(node), Box::new(self.compared()?)))
            } else if self.keyword("IS") {
                let negated = self.keyword("NOT");
                if !self.keyword("NULL") {
                    return Err(self.expected("NULL"));
                }
                not_if(negated, Node::IsNull(Box::new(node)))
            } else {
                return Ok(node);
            };
        }
    }

    fn compared(&mut self) -> Read<Node> {
        let mut node = self.unary()?;
        loop {
            let start = self.next;
            let negated = self.keyword("NOT");
            node = if self.keyword("BETWEEN") {
                not_if(negated, self.between(node)?)
            } else if self.keyword("IN") {
                self.among(node, negated)?
            } else if let Some(test) = self.text_test() {
                let name = self.property(node)?;
                Node::Text(test, name, self.text()?, negated)
            } else if negated {
                self.next = start;
                return Err(self.expected("AND, OR, BETWEEN, IN or the end"));
            } else if let Some(order) = self.order() {
                let right = self.unary()?;
                self.ordered(order, node, right)?
            } else {
                return Ok(node);
            };
        }
    }

    fn order(&mut self) -> Option<Order> {
        let signs = [
            ("<=", Order::LessOrEqual),
            (">=", Order::GreaterOrEqual),
            ("<", Order::Less),
            (">", Order::Greater),
        ];
        signs
            .into_iter()
            .find_map(|(sign, order)| self.sign(sign).then_some(order))
    }

    /// Texts and booleans have no order here.
    fn ordered(&self, order: Order, left: Node, right: Node) -> Read<Node> {
        for side in [&left, &right] {
            if let Node::Constant(Constant::Text(_) | Constant::Bool(_) | Constant::Null) = side {
                return Err(self.expected("a number or a property on both sides of < and >"));
            }
        }
        Ok(Node::Order(order, Box::new(left), Box::new(right)))
    }

    fn between(&mut self, node: Node) -> Read<Node> {
        let low = self.unary()?;
        if !self.keyword("AND") {
            return Err(self.expected("AND"));
        }
        let high = self.unary()?;
        let (Some(from), Some(to)) = (number(&low), number(&high)) else {
            return Err(self.expected("a number on both sides of AND in BETWEEN"));
        };
        if from > to {
            return Err(self.expected("the smaller number first in BETWEEN"));
        }
        let above = self.ordered(Order::GreaterOrEqual, node.clone(), low)?;
        let below = self.ordered(Order::LessOrEqual, node, high)?;
        Ok(Node::And(Box::new(above), Box::new(below)))
    }

    fn among(&mut self, node: Node, negated: bool) -> Read<Node> {
        let name = self.property(node)?;
        if !self.sign("(") {
            return Err(self.expected("("));
        }
        let mut texts = vec![self.text()?];
        while self.sign(",") {
            texts.push(self.text()?);
        }
        if !self.sign(")") {
            return Err(self.expected(", or )"));
        }
        Ok(Node::In(name, texts, negated))
    }

    fn text_test(&mut self) -> Option<TextTest> {
        let tests = [
            ("CONTAINS", TextTest::Contains),
            ("STARTSWITH", TextTest::StartsWith),
            ("ENDSWITH", TextTest::EndsWith),
        ];
        tests
            .into_iter()
            .find_map(|(keyword, test)| self.keyword(keyword).then_some(test))
    }

    fn property(&self, node: Node) -> Read<String> {
        if let Node::Property(name) = node {
            Ok(name)
        } else {
            Err(self.expected("a property on the left side, and nothing else"))
        }
    }

    fn text(&mut self) -> Read<String> {
        let Some(Token::Text(text)) = self.peek() else {
            return Err(self.expected("a text in quotes"));
        };
        let text = text.clone();
        self.next += 1;
        Ok(text)
    }

    fn unary(&mut self) -> Read<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.expected("less nesting"));
        }
        let node = self.unary_inside();
        self.depth -= 1;
        node
    }

    fn unary_inside(&mut self) -> Read<Node> {
        if self.keyword("NOT") {
            return Ok(not(self.unary()?));
        }
        if self.sign("+") {
            return self.unary();
        }
        if !self.sign("-") {
            return self.value();
        }
        let node = self.unary()?;
        if let Node::Constant(Constant::Integer(number)) = node {
            Ok(Node::Constant(Constant::Integer(number.wrapping_neg())))
        } else if let Node::Constant(Constant::Float(number)) = node {
            Ok(Node::Constant(Constant::Float(-number)))
        } else {
            Err(self.expected("a number behind -, and nothing else"))
        }
    }

    fn value(&mut self) -> Read<Node> {
        let node = match self.peek() {
            Some(Token::Text(text)) => Node::Constant(Constant::Text(text.clone())),
            Some(Token::Integer(number)) => Node::Constant(Constant::Integer(*number)),
            Some(Token::Float(number)) => Node::Constant(Constant::Float(*number)),
            Some(Token::Name(name)) => named(name).ok_or_else(|| self.expected("a value"))?,
            Some(Token::Sign("(")) => {
                self.next += 1;
                let node = self.or()?;
                if !self.sign(")") {
                    return Err(self.expected(")"));
                }
                return Ok(node);
            }
            Some(Token::Sign(_)) | None => return Err(self.expected("a value")),
        };
        self.next += 1;
        Ok(node)
    }
}

/// A name as a value; `None` for keywords that are none.
fn named(name: &str) -> Option<Node> {
    let constant = match name.to_ascii_uppercase().as_str() {
        "TRUE" => Constant::Bool(true),
        "FALSE" => Constant::Bool(false),
        "NULL" => Constant::Null,
        keyword if KEYWORDS.contains(&keyword) => return None,
        _ => return Some(Node::Property(name.to_owned())),
    };
    Some(Node::Constant(constant))
}

fn number(node: &Node) -> Option<f64> {
    if let Node::Constant(Constant::Integer(number)) = node {
        Some(*number as f64)
    } else if let Node::Constant(Constant::Float(number)) = node {
        Some(*number)
    } else {
        None
    }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn not_if(negated: bool, node: Node) -> Node {
    if negated { not(node) } else { node }
}
