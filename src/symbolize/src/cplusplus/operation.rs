//! Expressions as text: operators between operands, most of these in parentheses.

use super::print::Printer;
use super::tables::Literal;
use super::tree::{Id, Kind, Node};

impl Printer<'_, '_> {
    pub fn value(&mut self, of: Id, digits: &str, negative: bool) -> Option<()> {
        let literal = match self.get(of).kind {
            Kind::Builtin(builtin) => builtin.literal,
            _ => Literal::Cast,
        };
        let sign = if negative { "-" } else { "" };
        match (literal, digits) {
            (Literal::Suffix(suffix), _) => self.text(&format!("{sign}{digits}{suffix}")),
            (Literal::Bool, "0") if !negative => self.text("false"),
            (Literal::Bool, "1") if !negative => self.text("true"),
            _ => {
                self.text("(")?;
                self.node(of)?;
                self.text(&format!("){sign}"))?;
                self.text(&if literal == Literal::Bits { format!("[{digits}]") } else { digits.to_string() })
            }
        }
    }

    pub fn operator(&mut self, id: Id) -> Option<()> {
        match self.get(id).kind {
            Kind::Operator(operator) => self.text(operator.name),
            _ => self.node(id),
        }
    }

    fn code(&self, id: Id) -> &'static str {
        match self.get(id).kind {
            Kind::Operator(operator) => operator.code,
            _ => "",
        }
    }

    /// In parentheses, unless it is a simple name.
    pub fn operand(&mut self, id: Id) -> Option<()> {
        let is_simple = matches!(self.get(id).kind, Kind::Name(_) | Kind::Qualified | Kind::Initializer | Kind::FunctionParameter(_));
        if is_simple {
            return self.node(id);
        }
        self.text("(")?;
        self.node(id)?;
        self.text(")")
    }

    pub fn unary(&mut self, operator: Id, mut operand: Id) -> Option<()> {
        let code = self.code(operator);
        if code == "ad"
            && let Node { kind: Kind::Typed, left: Some(name), right: Some(function) } = self.get(operand)
            && matches!(self.get(name).kind, Kind::Qualified)
            && matches!(self.get(function).kind, Kind::Function)
        {
            operand = name;
        }
        if let Node { kind: Kind::Pair, left: Some(left), .. } = self.get(operand) {
            self.operand(left)?;
            return self.operator(operator);
        }
        if matches!(code, "sZ" | "sP") {
            let length = match code {
                "sZ" => self.pack_in(operand, 0).map(|pack| self.pack_length(pack)),
                _ => Some(self.pack_arguments(operand)),
            };
            if let Some(length) = length {
                return self.text(&length.to_string());
            }
        }
        if matches!(self.get(operator).kind, Kind::Cast) {
            self.text("(")?;
            self.node(operator)?;
            self.text(")")?;
        } else {
            self.operator(operator)?;
        }
        match code {
            "gs" => self.node(operand),
            "st" | "nx" => {
                self.text("(")?;
                self.node(operand)?;
                self.text(")")
            }
            _ => self.operand(operand),
        }
    }

    /// The arguments in a list, packs expanded.
    fn pack_arguments(&self, mut list: Id) -> usize {
        let mut count = 0;
        while let Node { kind: Kind::TemplateArguments, left: Some(item), right } = self.get(list) {
            count += match self.get(item) {
                Node { kind: Kind::PackExpansion, left: Some(pattern), .. } => {
                    self.pack_in(pattern, 0).map_or(0, |pack| self.pack_length(pack))
                }
                _ => 1,
            };
            match right {
                Some(right) => list = right,
                None => break,
            }
        }
        count
    }

    pub fn binary(&mut self, operator: Id, operands: Id) -> Option<()> {
        let Node { left, right, .. } = self.get(operands);
        let (left, right) = (left?, right?);
        match self.code(operator) {
            "dc" | "sc" | "cc" | "rc" => {
                self.operator(operator)?;
                self.text("<")?;
                self.node(left)?;
                self.text(">(")?;
                self.node(right)?;
                return self.text(")");
            }
            code @ ("fl" | "fr") => {
                self.text("(")?;
                if code == "fl" {
                    self.text("...")?;
                    self.operator(left)?;
                    self.operand(right)?;
                } else {
                    self.operand(right)?;
                    self.operator(left)?;
                    self.text("...")?;
                }
                return self.text(")");
            }
            "di" => {
                self.text(".")?;
                self.node(left)?;
                self.text("=")?;
                return self.operand(right);
            }
            _ => {}
        }
        // Otherwise it would end the arguments of the template.
        let is_greater = self.code(operator) == "gt";
        if is_greater {
            self.text("(")?;
        }
        match self.code(operator) {
            "cl" => {
                // Of a function that is called only the name.
                let function = match self.get(left) {
                    Node { kind: Kind::Typed, left: Some(name), .. } => name,
                    _ => left,
                };
                self.operand(function)?;
                self.operand(right)?;
            }
            "ix" => {
                self.operand(left)?;
                self.text("[")?;
                self.node(right)?;
                self.text("]")?;
            }
            _ => {
                self.operand(left)?;
                self.operator(operator)?;
                self.operand(right)?;
            }
        }
        if is_greater { self.text(")") } else { Some(()) }
    }

    pub fn ternary(&mut self, operator: Id, operands: Id) -> Option<()> {
        let Node { left: first, right: rest, .. } = self.get(operands);
        let Node { left: second, right: third, .. } = self.get(rest?);
        let (first, second) = (first?, second?);
        match self.code(operator) {
            "nw" | "na" => {
                self.operator(operator)?;
                self.text(" ")?;
                if self.get(first).left.is_some() {
                    self.operand(first)?;
                    self.text(" ")?;
                }
                self.node(second)?;
                third.map_or(Some(()), |initial| self.operand(initial))
            }
            "fL" | "fR" => {
                self.text("(")?;
                self.operand(second)?;
                self.operator(first)?;
                self.text("...")?;
                self.operator(first)?;
                self.operand(third?)?;
                self.text(")")
            }
            _ => {
                self.operand(first)?;
                self.operator(operator)?;
                self.operand(second)?;
                self.text(" : ")?;
                self.operand(third?)
            }
        }
    }
}
