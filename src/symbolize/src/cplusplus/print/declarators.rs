//! Declarators: what is written around and behind a name or an inner type. It waits in the list of modifiers until its place is reached.

use super::{Modifier, Printer, Scope};
use crate::cplusplus::tree::{Id, Kind, Node, Qualifier};

impl Printer<'_, '_> {
    fn push(&mut self, id: Id) -> usize {
        self.modifiers.push(Modifier { id, written: false, next: self.modifier, scope: self.scope });
        self.modifier = Some(self.modifiers.len() - 1);
        self.modifiers.len() - 1
    }

    /// `inner`, with the modifier `id` around or behind it.
    pub(super) fn around(&mut self, id: Id, inner: Id) -> Option<()> {
        let outer = self.modifier;
        let at = self.push(id);
        self.node(inner)?;
        if !self.modifiers[at].written {
            self.modifier_text(id)?;
        }
        self.modifier = outer;
        Some(())
    }

    /// Arrays pass qualifiers down to their elements; the same one is written once.
    pub(super) fn qualifier(&mut self, id: Id, qualifier: Qualifier, inner: Id) -> Option<()> {
        let mut next = self.modifier;
        while let Some(at) = next {
            let modifier = self.modifiers[at];
            if !modifier.written {
                match self.get(modifier.id).kind {
                    Kind::Qualifier(other) if other == qualifier => return self.node(inner),
                    Kind::Qualifier(_) => {}
                    _ => break,
                }
            }
            next = modifier.next;
        }
        self.around(id, inner)
    }

    /// A reference to a reference is one, `&&` only if both are.
    pub(super) fn reference(&mut self, id: Id, of: Id) -> Option<()> {
        let outer = self.scope;
        let mut target = of;
        if let Kind::TemplateParameter(number) = self.get(of).kind
            && self.in_lambda == 0
        {
            match self.seen_in.get(&of) {
                None => {
                    self.seen_in.insert(of, self.scope);
                }
                // Again, as a substitution somewhere else: it means what it meant there.
                Some(&scope) => {
                    let above = &self.path[..self.path.len().saturating_sub(1)];
                    if !above.iter().any(|&at| at == of || at == id) {
                        self.scope = scope;
                    }
                }
            }
            target = self.argument(number)?;
            if matches!(self.get(target).kind, Kind::TemplateArguments) {
                target = self.element(target, self.pack_index)?;
            }
        }
        let Node { kind, left, .. } = self.get(target);
        let is_same = std::mem::discriminant(&kind) == std::mem::discriminant(&self.get(id).kind);
        let (modifier, inner) = match kind {
            Kind::Reference => (target, left?),
            _ if is_same => (target, left?),
            Kind::RvalueReference => (id, left?),
            _ => (id, of),
        };
        let done = self.around(modifier, inner);
        self.scope = outer;
        done
    }

    /// A function: its name belongs into the middle of its type.
    pub(super) fn typed(&mut self, name: Id, function: Id) -> Option<()> {
        let outer = self.modifier.take();
        let first = self.modifiers.len();
        let mut inner = name;
        loop {
            self.push(inner);
            match self.get(inner) {
                Node { kind: Kind::OfThis(_) | Kind::Specification(_), left: Some(left), .. } => inner = left,
                _ => break,
            }
        }
        if let Node { kind: Kind::Local, right: Some(right), .. } = self.get(inner) {
            inner = match self.get(right) {
                Node { kind: Kind::DefaultArgument(_), left: Some(left), .. } => left,
                _ => right,
            };
            // The qualifiers of a local class's member stand at the inner name: they go under it.
            while let Node { kind: Kind::OfThis(_) | Kind::Specification(_), left: Some(left), .. } = self.get(inner) {
                let top = self.modifier?;
                let local = self.modifiers[top];
                self.modifiers[top].id = inner;
                self.modifiers.push(Modifier { next: Some(top), ..local });
                self.modifier = Some(self.modifiers.len() - 1);
                inner = left;
            }
        }
        let last = self.modifiers.len();
        let scope = self.scope;
        if matches!(self.get(inner).kind, Kind::Template) {
            self.scopes.push(Scope { template: inner, outer: scope });
            self.scope = Some(self.scopes.len() - 1);
        }
        self.node(function)?;
        self.scope = scope;
        for at in (first..last).rev() {
            if !self.modifiers[at].written {
                self.text(" ")?;
                self.modifier_text(self.modifiers[at].id)?;
            }
        }
        self.modifier = outer;
        Some(())
    }

    pub(super) fn function(&mut self, id: Id, returns: Option<Id>) -> Option<()> {
        if let Some(returns) = returns {
            let outer = self.modifier;
            let at = self.push(id);
            self.node(returns)?;
            self.modifier = outer;
            if self.modifiers[at].written {
                return Some(());
            }
            self.text(" ")?;
        }
        self.function_around(id, self.modifier)
    }

    /// The modifiers, and the parameters behind them.
    fn function_around(&mut self, id: Id, modifiers: Option<usize>) -> Option<()> {
        let (mut parentheses, mut blank) = (false, false);
        let mut next = modifiers;
        while let Some(at) = next.filter(|&at| !self.modifiers[at].written) {
            match self.get(self.modifiers[at].id).kind {
                Kind::Pointer | Kind::Reference | Kind::RvalueReference => parentheses = true,
                Kind::Qualifier(_) | Kind::VendorQualifier | Kind::Suffixed(_) | Kind::MemberPointer => (parentheses, blank) = (true, true),
                _ => {}
            }
            if parentheses {
                break;
            }
            next = self.modifiers[at].next;
        }
        if parentheses {
            blank |= !matches!(self.last, '(' | '*');
            if blank && self.last != ' ' {
                self.text(" ")?;
            }
            self.text("(")?;
        }
        let outer = self.modifier.take();
        self.write_modifiers(modifiers, false)?;
        if parentheses {
            self.text(")")?;
        }
        self.text("(")?;
        self.optional(self.get(id).right)?;
        self.text(")")?;
        self.write_modifiers(modifiers, true)?;
        self.modifier = outer;
        Some(())
    }

    pub(super) fn array(&mut self, id: Id, of: Id) -> Option<()> {
        let outer = self.modifier;
        let mut passed = vec![self.push(id)];
        // Qualifiers of the array are those of its elements.
        let mut next = outer;
        while let Some(at) = next {
            let modifier = self.modifiers[at];
            if !matches!(self.get(modifier.id).kind, Kind::Qualifier(_)) {
                break;
            }
            if !modifier.written {
                self.modifiers.push(Modifier { next: self.modifier, ..modifier });
                passed.push(self.modifiers.len() - 1);
                self.modifier = passed.last().copied();
                self.modifiers[at].written = true;
            }
            next = modifier.next;
        }
        self.node(of)?;
        self.modifier = outer;
        if self.modifiers[passed[0]].written {
            return Some(());
        }
        for &at in passed[1..].iter().rev().filter(|&&at| at > 0) {
            if !self.modifiers[at].written {
                self.modifier_text(self.modifiers[at].id)?;
            }
        }
        self.array_around(id, self.modifier)
    }

    fn array_around(&mut self, id: Id, modifiers: Option<usize>) -> Option<()> {
        let mut next = modifiers;
        while let Some(at) = next.filter(|&at| self.modifiers[at].written) {
            next = self.modifiers[at].next;
        }
        let is_inner = next.is_some_and(|at| matches!(self.get(self.modifiers[at].id).kind, Kind::Array));
        if next.is_some() && !is_inner {
            self.text(" (")?;
        }
        self.write_modifiers(modifiers, false)?;
        if next.is_some() && !is_inner {
            self.text(")")?;
        }
        self.text(if is_inner { "[" } else { " [" })?;
        self.optional(self.get(id).left)?;
        self.text("]")
    }

    /// All that wait. What qualifies `this` stands behind the parameters: only then `behind`.
    fn write_modifiers(&mut self, mut next: Option<usize>, behind: bool) -> Option<()> {
        while let Some(at) = next {
            let Modifier { id, written, scope, next: following } = self.modifiers[at];
            next = following;
            let kind = self.get(id).kind;
            if written || !behind && matches!(kind, Kind::OfThis(_) | Kind::Specification(_)) {
                continue;
            }
            self.modifiers[at].written = true;
            let outer = std::mem::replace(&mut self.scope, scope);
            match kind {
                Kind::Function => {
                    self.function_around(id, following)?;
                    next = None;
                }
                Kind::Array => {
                    self.array_around(id, following)?;
                    next = None;
                }
                Kind::Local => {
                    self.local(id)?;
                    next = None;
                }
                _ => self.modifier_text(id)?,
            }
            self.scope = outer;
        }
        Some(())
    }

    /// The name of a local function whose qualifiers wait elsewhere.
    fn local(&mut self, id: Id) -> Option<()> {
        let Node { left, right, .. } = self.get(id);
        let modifiers = self.modifier.take();
        self.node(left?)?;
        self.modifier = modifiers;
        self.text("::")?;
        let mut name = right?;
        if let Node { kind: Kind::DefaultArgument(number), left: Some(left), .. } = self.get(name) {
            self.text(&format!("{{default arg#{}}}::", number + 1))?;
            name = left;
        }
        self.node(self.tree.unqualified(name))
    }

    fn modifier_text(&mut self, id: Id) -> Option<()> {
        let tree = self.tree;
        let Node { kind, left, right } = tree.node(id);
        match kind {
            Kind::Qualifier(qualifier) | Kind::OfThis(qualifier) => self.text(match qualifier {
                Qualifier::Restrict => " restrict",
                Qualifier::Volatile => " volatile",
                Qualifier::Const => " const",
                Qualifier::TransactionSafe => " transaction_safe",
                Qualifier::Reference => " &",
                Qualifier::RvalueReference => " &&",
            }),
            Kind::Specification(word) => {
                self.text(word)?;
                let Some(of) = right else { return Some(()) };
                self.text("(")?;
                self.node(of)?;
                self.text(")")
            }
            Kind::VendorQualifier => {
                self.text(" ")?;
                self.node(right?)
            }
            Kind::Pointer => self.text("*"),
            Kind::Reference => self.text("&"),
            Kind::RvalueReference => self.text("&&"),
            Kind::Suffixed(word) => self.text(word),
            Kind::MemberPointer => {
                if self.last != '(' {
                    self.text(" ")?;
                }
                self.node(left?)?;
                self.text("::*")
            }
            Kind::Typed => self.node(left?),
            Kind::Vector => {
                self.text(" __vector(")?;
                self.optional(left)?;
                self.text(")")
            }
            _ => self.node(id),
        }
    }
}
