//! Expressions in mangled names: dimensions, `decltype`, arguments and conditions of templates.

use super::parse::Parser;
use super::tables::{self, Operator};
use super::tree::{Id, Kind};

pub fn any(p: &mut Parser) -> Option<Id> {
    p.nested(expression)
}

fn expression(p: &mut Parser) -> Option<Id> {
    match (p.peek(), p.peek_at(1)) {
        (b'L', _) => primary(p),
        (b'T', _) => p.template_parameter(),
        (b's', b'r') => p.resolved_name(),
        (b's', b'p') => {
            p.at += 2;
            let pattern = any(p)?;
            p.add(Kind::PackExpansion, Some(pattern), None)
        }
        (b'f', b'p' | b'L') => parameter(p),
        (b'0'..=b'9', _) | (b'o', b'n') => {
            let name = p.unqualified_name()?;
            p.with_arguments(name)
        }
        (kind @ (b'i' | b't'), b'l') => {
            p.at += 2;
            let of = if kind == b't' { Some(p.type_()?) } else { None };
            let items = list(p, b'E')?;
            p.add(Kind::Initializer, of, Some(items))
        }
        _ => operation(p),
    }
}

/// A parameter of the function whose type this is; 0 is `this`.
fn parameter(p: &mut Parser) -> Option<Id> {
    if p.peek_at(1) == b'L' {
        p.at += 2;
        p.number()?;
        p.expect(b"p")?;
    } else {
        p.at += 2;
    }
    if p.eat(b'T') {
        return p.leaf(Kind::FunctionParameter(0));
    }
    while matches!(p.peek(), b'r' | b'V' | b'K') {
        p.at += 1;
    }
    let number = p.compact_number()?;
    p.leaf(Kind::FunctionParameter(number + 1))
}

/// Expressions up to `end`.
fn list(p: &mut Parser, end: u8) -> Option<Id> {
    let mut items = Vec::new();
    while !p.eat(end) {
        items.push(any(p)?);
    }
    p.list(Kind::Arguments, items)
}

fn operation(p: &mut Parser) -> Option<Id> {
    let code = [p.peek(), p.peek_at(1)];
    if &code == b"cv" {
        return cast(p);
    }
    let operator = tables::operator(&code).filter(|operator| !matches!(operator.code, "li"))?;
    p.at += 2;
    let id = p.leaf(Kind::Operator(operator))?;
    match operator.operands {
        0 => p.add(Kind::Nullary, Some(id), None),
        1 => unary(p, id, operator),
        2 => binary(p, id, operator),
        _ => ternary(p, id, operator),
    }
}

fn cast(p: &mut Parser) -> Option<Id> {
    p.at += 2;
    let target = p.type_()?;
    let id = p.add(Kind::Cast, Some(target), None)?;
    let operand = if p.eat(b'_') { list(p, b'E')? } else { any(p)? };
    p.add(Kind::Unary, Some(id), Some(operand))
}

fn unary(p: &mut Parser, id: Id, operator: &Operator) -> Option<Id> {
    let operand = match operator.code {
        "st" | "at" | "ti" => p.type_()?,
        "sP" => {
            let mut items = Vec::new();
            while !p.eat(b'E') {
                items.push(if p.peek() == b'L' { primary(p)? } else { p.type_()? });
            }
            p.list(Kind::TemplateArguments, items)?
        }
        "pp" | "mm" if !p.eat(b'_') => {
            let operand = any(p)?;
            p.add(Kind::Pair, Some(operand), Some(operand))?
        }
        _ => any(p)?,
    };
    p.add(Kind::Unary, Some(id), Some(operand))
}

fn binary(p: &mut Parser, id: Id, operator: &Operator) -> Option<Id> {
    let left = match operator.code {
        "dc" | "sc" | "cc" | "rc" => p.type_()?,
        "fl" | "fr" => p.operator_name()?,
        "di" => p.unqualified_name()?,
        _ => any(p)?,
    };
    let right = match operator.code {
        "cl" => list(p, b'E')?,
        "dt" | "pt" => {
            let name = p.unqualified_name()?;
            p.with_arguments(name)?
        }
        _ => any(p)?,
    };
    let operands = p.add(Kind::Pair, Some(left), Some(right))?;
    p.add(Kind::Binary, Some(id), Some(operands))
}

fn ternary(p: &mut Parser, id: Id, operator: &Operator) -> Option<Id> {
    let (first, second, third) = match operator.code {
        "nw" | "na" => {
            let placement = list(p, b'_')?;
            let of = p.type_()?;
            let initial = if p.eat(b'E') {
                None
            } else if p.expect(b"pi").is_some() {
                Some(list(p, b'E')?)
            } else {
                let braced = any(p)?;
                p.expect(b"E")?;
                Some(braced)
            };
            (placement, of, initial)
        }
        "fL" | "fR" => (p.operator_name()?, any(p)?, Some(any(p)?)),
        _ => (any(p)?, any(p)?, Some(any(p)?)),
    };
    let rest = p.add(Kind::Pair, Some(second), third)?;
    let operands = p.add(Kind::Pair, Some(first), Some(rest))?;
    p.add(Kind::Ternary, Some(id), Some(operands))
}

/// A value, or the name of something.
pub fn primary(p: &mut Parser) -> Option<Id> {
    p.expect(b"L")?;
    if p.peek() == b'_' || p.peek() == b'Z' {
        p.eat(b'_');
        p.expect(b"Z")?;
        let id = p.encoding()?;
        p.expect(b"E")?;
        return Some(id);
    }
    let of = p.type_()?;
    if matches!(p.tree.node(of).kind, Kind::Builtin(builtin) if builtin.name == "decltype(nullptr)") && p.eat(b'E') {
        return Some(of);
    }
    let negative = p.eat(b'n');
    let from = p.at;
    while !matches!(p.peek(), b'E' | 0) {
        p.at += 1;
    }
    let digits = p.since(from)?;
    p.expect(b"E")?;
    p.add(Kind::Value { digits, negative }, Some(of), None)
}
