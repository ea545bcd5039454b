// SPDX-License-Identifier: Apache-2.0
//! From text to a template.

use super::{Comparison, Condition, JsonPathError, Operand, Part, Path, Step};
use serde_json::Value;

/// Ranges inside ranges, at most.
const DEPTH_MAX: usize = 16;

pub(super) fn template(text: &str) -> Result<Vec<Part>, JsonPathError> {
    // People forget the braces, and no plain text starts like a path.
    let braced = if !text.contains('{') && text.starts_with(['.', '[', '$']) {
        format!("{{{text}}}")
    } else {
        text.to_owned()
    };
    let mut parser = Parser {
        rest: braced.chars().collect(),
        place: 0,
    };
    parser.parts(0)
}

struct Parser {
    rest: Vec<char>,
    place: usize,
}

impl Parser {
    fn parts(&mut self, depth: usize) -> Result<Vec<Part>, JsonPathError> {
        let mut parts = Vec::new();
        loop {
            let text = self.take_while(|c| c != '{');
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
            if self.peek().is_none() {
                return if depth == 0 {
                    Ok(parts)
                } else {
                    self.fail("`{end}` is missing")
                };
            }
            self.expect('{', "`{` expected")?;
            self.skip_spaces();
            if self.take_word("end") {
                if depth == 0 {
                    self.place -= 3;
                    return self.fail("`end` without `range`");
                }
                self.skip_spaces();
                self.expect('}', "`}` expected")?;
                return Ok(parts);
            }
            if self.take_word("range") {
                if depth == DEPTH_MAX {
                    return self.fail("too many ranges inside each other");
                }
                self.skip_spaces();
                let path = self.path()?;
                self.skip_spaces();
                self.expect('}', "`}` expected")?;
                let body = self.parts(depth + 1)?;
                parts.push(Part::Range(path, body));
                continue;
            }
            while self.peek().is_some_and(|c| c != '}') {
                parts.push(match self.peek() {
                    Some('"' | '\'') => Part::Text(self.quoted()?),
                    _ => Part::Path(self.path()?),
                });
                self.skip_spaces();
            }
            self.expect('}', "`}` expected")?;
        }
    }

    fn path(&mut self) -> Result<Path, JsonPathError> {
        let from_root = self.take('$');
        let mut steps = Vec::new();
        let begun = from_root || self.take('@');
        loop {
            match self.peek() {
                Some('.') => {
                    self.place += 1;
                    if self.take('.') {
                        steps.push(Step::Descend);
                    }
                    match self.peek() {
                        Some('*') => {
                            self.place += 1;
                            steps.push(Step::All);
                        }
                        Some('[') => {}
                        _ => {
                            let name = self.name();
                            if !name.is_empty() {
                                steps.push(Step::Field(name));
                            }
                        }
                    }
                }
                Some('[') => {
                    self.place += 1;
                    steps.push(self.bracket()?);
                    self.expect(']', "`]` expected")?;
                }
                // `{status.state}`: the first dot may be left out.
                Some(c) if steps.is_empty() && !begun && is_name(c) => {
                    steps.push(Step::Field(self.name()));
                }
                _ if steps.is_empty() && !begun => return self.fail("a path expected"),
                _ => return Ok(Path { from_root, steps }),
            }
        }
    }

    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        self.skip_spaces();
        if self.take('?') {
            self.expect('(', "`(` expected")?;
            let condition = self.condition()?;
            self.expect(')', "`)` expected")?;
            return Ok(Step::Filter(condition));
        }
        let mut steps = vec![self.selector()?];
        self.skip_spaces();
        while self.take(',') {
            self.skip_spaces();
            steps.push(self.selector()?);
            self.skip_spaces();
        }
        match steps.pop() {
            Some(only) if steps.is_empty() => Ok(only),
            last => {
                steps.extend(last);
                Ok(Step::Union(steps))
            }
        }
    }

    fn selector(&mut self) -> Result<Step, JsonPathError> {
        match self.peek() {
            Some('*') => {
                self.place += 1;
                Ok(Step::All)
            }
            Some('"' | '\'') => Ok(Step::Field(self.quoted()?)),
            _ => {
                let from = self.integer()?;
                if !self.take(':') {
                    return match from {
                        Some(index) => Ok(Step::Index(index)),
                        None => self.fail("a number, a quoted name or `*` expected"),
                    };
                }
                let to = self.integer()?;
                let every = if self.take(':') {
                    self.integer()?
                } else {
                    None
                };
                Ok(Step::Slice { from, to, every })
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, JsonPathError> {
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        self.skip_spaces();
        let left = self.operand()?;
        self.skip_spaces();
        if self.peek() == Some(')') {
            return Ok(Condition { left, right: None });
        }
        let operator = OPERATORS
            .iter()
            .find(|(text, _)| self.take_text(text))
            .map(|(_, comparison)| *comparison);
        let Some(comparison) = operator else {
            return self.fail("`==`, `!=`, `<`, `<=`, `>` or `>=` expected");
        };
        self.skip_spaces();
        let right = self.operand()?;
        self.skip_spaces();
        Ok(Condition {
            left,
            right: Some((comparison, right)),
        })
    }

    fn operand(&mut self) -> Result<Operand, JsonPathError> {
        match self.peek() {
            Some('@' | '$') => Ok(Operand::Path(self.path()?)),
            Some('"' | '\'') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            _ => {
                let word = self.take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '+' | '.'));
                match serde_json::from_str(&word) {
                    Ok(value) => Ok(Operand::Literal(value)),
                    Err(_) => self.fail("`@…`, a number or a quoted text expected"),
                }
            }
        }
    }

    /// A name; `\.` is a dot inside of it.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                self.place += 1;
                if let Some(escaped) = self.peek() {
                    self.place += 1;
                    name.push(escaped);
                }
            } else if is_name(c) {
                self.place += 1;
                name.push(c);
            } else {
                break;
            }
        }
        name
    }

    fn quoted(&mut self) -> Result<String, JsonPathError> {
        let quote = self.peek();
        self.place += 1;
        let mut text = String::new();
        loop {
            let c = self.peek();
            self.place += 1;
            match c {
                None => {
                    self.place -= 1;
                    return self.fail("the closing quote is missing");
                }
                c if c == quote => return Ok(text),
                Some('\\') => {
                    let escaped = self.peek();
                    self.place += 1;
                    match escaped {
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        Some('r') => text.push('\r'),
                        Some(other) => text.push(other),
                        None => self.place -= 1,
                    }
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, JsonPathError> {
        let digits = self.take_while(|c| c.is_ascii_digit() || c == '-');
        if digits.is_empty() {
            return Ok(None);
        }
        match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.fail("a number expected"),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.place).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.place += usize::from(found);
        found
    }

    fn take_text(&mut self, wanted: &str) -> bool {
        let length = wanted.chars().count();
        let found = self
            .rest
            .get(self.place..self.place + length)
            .is_some_and(|there| there.iter().copied().eq(wanted.chars()));
        if found {
            self.place += length;
        }
        found
    }

    /// The word, not the beginning of a longer one.
    fn take_word(&mut self, wanted: &str) -> bool {
        let start = self.place;
        if self.take_text(wanted) && self.peek().is_none_or(|c| matches!(c, ' ' | '}')) {
            return true;
        }
        self.place = start;
        false
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|&c| wanted(c)) {
            self.place += 1;
            text.push(c);
        }
        text
    }

    fn skip_spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), JsonPathError> {
        if self.take(wanted) {
            Ok(())
        } else {
            self.fail(what)
        }
    }

    const fn fail<T>(&self, what: &'static str) -> Result<T, JsonPathError> {
        Err(JsonPathError {
            what,
            place: self.place,
        })
    }
}

fn is_name(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(
            c,
            '.' | '['
                | ']'
                | '{'
                | '}'
                | '('
                | ')'
                | '='
                | '<'
                | '>'
                | '!'
                | ','
                | '"'
                | '\''
                | '~'
        )
}
