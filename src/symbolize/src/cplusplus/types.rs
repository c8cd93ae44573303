//! Types in mangled names, and arguments of templates, which are mostly types.

use super::expression;
use super::parse::{Parser, cv_qualifier};
use super::tables;
use super::tree::{Id, Kind, Node, Qualifier};

impl<'n> Parser<'n> {
    pub fn type_(&mut self) -> Option<Id> {
        self.nested(Self::any_type)
    }

    fn any_type(&mut self) -> Option<Id> {
        if let Some(builtin) = tables::builtin(self.peek()) {
            self.at += 1;
            return self.leaf(Kind::Builtin(builtin));
        }
        if cv_qualifier(self.peek()).is_some() || self.peek() == b'D' && matches!(self.peek_at(1), b'o' | b'O' | b'w' | b'x') {
            return self.qualified_type();
        }
        let id = match self.peek() {
            b'F' => self.function_type()?,
            b'0'..=b'9' | b'N' | b'Z' => self.any_name()?,
            b'A' => self.array_type()?,
            b'M' => {
                self.at += 1;
                let (class, member) = (self.type_()?, self.type_()?);
                self.add(Kind::MemberPointer, Some(class), Some(member))?
            }
            b'T' => self.parameter_type()?,
            b'S' => match self.known_type()? {
                (id, true) => id,
                (id, false) => return Some(id),
            },
            b'P' => self.modified(Kind::Pointer)?,
            b'R' => self.modified(Kind::Reference)?,
            b'O' => self.modified(Kind::RvalueReference)?,
            b'C' => self.modified(Kind::Suffixed(" _Complex"))?,
            b'G' => self.modified(Kind::Suffixed(" _Imaginary"))?,
            b'U' => {
                self.at += 1;
                let name = self.source_name()?;
                let qualifier = self.with_arguments(name)?;
                let of = self.type_()?;
                self.add(Kind::VendorQualifier, Some(of), Some(qualifier))?
            }
            b'u' => {
                self.at += 1;
                self.source_name()?
            }
            b'D' => match self.d_type()? {
                (id, true) => id,
                (id, false) => return Some(id),
            },
            _ => return None,
        };
        self.substitutions.push(id);
        Some(id)
    }

    fn modified(&mut self, kind: Kind<'n>) -> Option<Id> {
        self.at += 1;
        let of = self.type_()?;
        self.add(kind, Some(of), None)
    }

    /// `const` and the like around a type; around a function they are about its `this`.
    fn qualified_type(&mut self) -> Option<Id> {
        enum Around {
            Plain(Qualifier),
            Specification(&'static str, Option<Id>),
        }
        let mut around = Vec::new();
        loop {
            if let Some(qualifier) = cv_qualifier(self.peek()) {
                self.at += 1;
                around.push(Around::Plain(qualifier));
                continue;
            }
            if self.peek() != b'D' {
                break;
            }
            let specification = match self.peek_at(1) {
                b'x' => Around::Plain(Qualifier::TransactionSafe),
                b'o' => Around::Specification(" noexcept", None),
                b'O' => {
                    self.at += 2;
                    let condition = expression::any(self)?;
                    self.expect(b"E")?;
                    around.push(Around::Specification(" noexcept", Some(condition)));
                    continue;
                }
                b'w' => {
                    self.at += 2;
                    let types = self.parameters()?;
                    self.expect(b"E")?;
                    around.push(Around::Specification(" throw", Some(types)));
                    continue;
                }
                _ => break,
            };
            self.at += 2;
            around.push(specification);
        }
        let is_function = self.peek() == b'F';
        let mut id = if is_function { self.function_type()? } else { self.type_()? };
        // The reference of a function stays outermost.
        let mut reference = None;
        if let Node { kind: Kind::OfThis(kind @ (Qualifier::Reference | Qualifier::RvalueReference)), left: Some(inner), .. } =
            self.tree.node(id)
        {
            (id, reference) = (inner, Some(kind));
        }
        for qualifier in around.into_iter().rev() {
            id = match qualifier {
                Around::Plain(qualifier) if is_function || qualifier == Qualifier::TransactionSafe => {
                    self.add(Kind::OfThis(qualifier), Some(id), None)?
                }
                Around::Plain(qualifier) => self.add(Kind::Qualifier(qualifier), Some(id), None)?,
                Around::Specification(word, of) => self.add(Kind::Specification(word), Some(id), of)?,
            };
        }
        if let Some(kind) = reference {
            id = self.add(Kind::OfThis(kind), Some(id), None)?;
        }
        self.substitutions.push(id);
        Some(id)
    }

    fn function_type(&mut self) -> Option<Id> {
        self.expect(b"F")?;
        // extern "C" does not show.
        self.eat(b'Y');
        let mut id = self.bare_function_type(true)?;
        let reference = match self.peek() {
            b'R' => Some(Qualifier::Reference),
            b'O' => Some(Qualifier::RvalueReference),
            _ => None,
        };
        if let Some(kind) = reference {
            self.at += 1;
            id = self.add(Kind::OfThis(kind), Some(id), None)?;
        }
        self.expect(b"E")?;
        Some(id)
    }

    pub fn bare_function_type(&mut self, mut has_return_type: bool) -> Option<Id> {
        has_return_type |= self.eat(b'J');
        let returns = if has_return_type { Some(self.type_()?) } else { None };
        let takes = self.parameters()?;
        self.add(Kind::Function, returns, Some(takes))
    }

    /// Types up to the end; a lone `void` stands for none.
    pub fn parameters(&mut self) -> Option<Id> {
        let mut types = Vec::new();
        while !matches!((self.peek(), self.peek_at(1)), (0 | b'E' | b'.', _) | (b'R' | b'O', b'E')) {
            types.push(self.type_()?);
        }
        if let [only] = types[..]
            && matches!(self.tree.node(only).kind, Kind::Builtin(builtin) if builtin.name == "void")
        {
            types.clear();
        }
        self.list(Kind::Arguments, types)
    }

    /// A chain of nodes of `kind`; the empty one has no left.
    pub fn list(&mut self, kind: Kind<'n>, items: Vec<Id>) -> Option<Id> {
        let mut list = None;
        for item in items.into_iter().rev() {
            list = Some(self.add(kind, Some(item), list)?);
        }
        match list {
            Some(list) => Some(list),
            None => self.leaf(kind),
        }
    }

    fn array_type(&mut self) -> Option<Id> {
        self.expect(b"A")?;
        let dimension = self.dimension()?;
        self.expect(b"_")?;
        let of = self.type_()?;
        self.add(Kind::Array, dimension, Some(of))
    }

    /// Digits, an expression, or nothing.
    fn dimension(&mut self) -> Option<Option<Id>> {
        match self.peek() {
            b'_' => Some(None),
            b'0'..=b'9' => {
                let from = self.at;
                self.number()?;
                let text = self.since(from)?;
                Some(Some(self.leaf(Kind::Name(text))?))
            }
            _ => Some(Some(expression::any(self)?)),
        }
    }

    /// `sr`: a name in a scope. The scope is a type, or names up to an `E`, which are no candidates for substitutions.
    pub fn resolved_name(&mut self) -> Option<Id> {
        self.expect(b"sr")?;
        let (at, candidates, last) = (self.at, self.substitutions.len(), self.last_name);
        if self.peek().is_ascii_digit() {
            if let Some(id) = self.name_in_levels() {
                return Some(id);
            }
            (self.at, self.last_name) = (at, last);
            self.substitutions.truncate(candidates);
        }
        let scope = self.type_()?;
        let name = self.unqualified_name()?;
        let name = self.with_arguments(name)?;
        self.add(Kind::Qualified, Some(scope), Some(name))
    }

    /// `3std9is_signedIT_EE5value`
    fn name_in_levels(&mut self) -> Option<Id> {
        let mut id = self.source_name()?;
        loop {
            id = self.with_arguments(id)?;
            let is_last = self.eat(b'E');
            let name = if is_last { self.unqualified_name()? } else { self.source_name()? };
            id = self.add(Kind::Qualified, Some(id), Some(name))?;
            if is_last {
                return self.with_arguments(id);
            }
        }
    }

    pub fn template_parameter(&mut self) -> Option<Id> {
        self.expect(b"T")?;
        let number = self.compact_number()?;
        self.leaf(Kind::TemplateParameter(number))
    }

    /// A template parameter as a type, perhaps a template with arguments.
    fn parameter_type(&mut self) -> Option<Id> {
        let id = self.template_parameter()?;
        if self.peek() != b'I' {
            return Some(id);
        }
        if !self.in_conversion {
            self.substitutions.push(id);
            return self.with_arguments(id);
        }
        // Whose arguments are they? The parameter's, if the operator has some of its own behind them.
        let (at, substitutions, last) = (self.at, self.substitutions.len(), self.last_name);
        let arguments = self.template_arguments()?;
        if self.peek() == b'I' {
            self.substitutions.insert(substitutions, id);
            return self.add(Kind::Template, Some(id), Some(arguments));
        }
        self.at = at;
        self.substitutions.truncate(substitutions);
        self.last_name = last;
        Some(id)
    }

    /// A type that begins with `S`, and whether it is new.
    fn known_type(&mut self) -> Option<(Id, bool)> {
        if self.peek_at(1) == b'_' || self.peek_at(1).is_ascii_digit() || self.peek_at(1).is_ascii_uppercase() {
            let known = self.substitution(false)?;
            let id = self.with_arguments(known)?;
            return Some((id, id != known));
        }
        let id = self.any_name()?;
        let is_abbreviation = matches!(self.tree.node(id).kind, Kind::Name(_));
        Some((id, !is_abbreviation))
    }

    /// A type that begins with `D`, and whether it counts for substitutions.
    fn d_type(&mut self) -> Option<(Id, bool)> {
        let letter = self.peek_at(1);
        self.at += 2;
        if let Some(builtin) = tables::builtin_d(letter) {
            return Some((self.leaf(Kind::Builtin(builtin))?, false));
        }
        match letter {
            b'T' | b't' => {
                let of = expression::any(self)?;
                self.expect(b"E")?;
                Some((self.add(Kind::Decltype, Some(of), None)?, true))
            }
            b'p' => {
                let pattern = self.type_()?;
                Some((self.add(Kind::PackExpansion, Some(pattern), None)?, true))
            }
            b'a' => Some((self.leaf(Kind::Name("auto"))?, false)),
            b'c' => Some((self.leaf(Kind::Name("decltype(auto)"))?, false)),
            b'v' => {
                let dimension = if self.eat(b'_') { Some(expression::any(self)?) } else { self.dimension()? };
                self.expect(b"_")?;
                let of = self.type_()?;
                Some((self.add(Kind::Vector, dimension, Some(of))?, true))
            }
            b'F' => {
                let from = self.at;
                self.number()?;
                let digits = self.since(from)?;
                let suffix = if self.eat(b'x') { "x" } else { "" };
                self.expect(b"_")?;
                let name = match (digits, suffix) {
                    ("16", "") => "_Float16",
                    ("32", "") => "_Float32",
                    ("64", "") => "_Float64",
                    ("128", "") => "_Float128",
                    ("32", _) => "_Float32x",
                    ("64", _) => "_Float64x",
                    _ => return None,
                };
                Some((self.leaf(Kind::Name(name))?, false))
            }
            _ => None,
        }
    }

    pub fn template_arguments(&mut self) -> Option<Id> {
        if !matches!(self.peek(), b'I' | b'J') {
            return None;
        }
        self.at += 1;
        // They are in no class.
        let outer = self.last_name;
        let conversion = std::mem::replace(&mut self.in_conversion, false);
        let mut items = Vec::new();
        while !self.eat(b'E') {
            items.push(self.template_argument()?);
        }
        self.last_name = outer;
        self.in_conversion = conversion;
        self.list(Kind::TemplateArguments, items)
    }

    pub fn template_argument(&mut self) -> Option<Id> {
        self.nested(|p| match p.peek() {
            b'X' => {
                p.at += 1;
                let id = expression::any(p)?;
                p.expect(b"E")?;
                Some(id)
            }
            b'L' => expression::primary(p),
            b'I' | b'J' => p.template_arguments(),
            _ => p.type_(),
        })
    }
}
