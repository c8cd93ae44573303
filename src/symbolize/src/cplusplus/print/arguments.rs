//! Templates: their arguments, what parameters stand for, and packs.

use super::{Printer, Scope};
use crate::cplusplus::tree::{Id, Kind, Node};

impl Printer<'_, '_> {
    pub(super) fn template(&mut self, id: Id, name: Id, arguments: Id) -> Option<()> {
        let modifiers = self.modifier.take();
        let template = self.current_template;
        self.current_template = Some(id);
        self.node(name)?;
        self.current_template = template;
        self.in_angles(arguments)?;
        self.modifier = modifiers;
        Some(())
    }

    pub(super) fn in_angles(&mut self, arguments: Id) -> Option<()> {
        if self.last == '<' {
            self.text(" ")?;
        }
        self.text("<")?;
        self.node(arguments)?;
        if self.last == '>' {
            self.text(" ")?;
        }
        self.text(">")
    }

    pub(super) fn parameter(&mut self, number: u64) -> Option<()> {
        if self.in_lambda > 0 {
            return self.text(&format!("auto:{}", number + 1));
        }
        let mut argument = self.argument(number)?;
        if matches!(self.get(argument).kind, Kind::TemplateArguments) {
            argument = self.element(argument, self.pack_index)?;
        }
        let outer = self.scope;
        self.scope = self.scopes[outer?].outer;
        self.node(argument)?;
        self.scope = outer;
        Some(())
    }

    /// What a parameter of the innermost template stands for.
    pub(super) fn argument(&self, number: u64) -> Option<Id> {
        let template = self.scopes[self.scope?].template;
        let Node { kind: Kind::Template, right: Some(arguments), .. } = self.get(template) else { return None };
        self.element(arguments, usize::try_from(number).ok()?)
    }

    pub(super) fn element(&self, mut list: Id, mut index: usize) -> Option<Id> {
        loop {
            let Node { kind: Kind::TemplateArguments, left, right } = self.get(list) else { return None };
            if index == 0 {
                return left;
            }
            index -= 1;
            list = right?;
        }
    }

    /// An empty pack takes its comma with it.
    pub(super) fn arguments(&mut self, first: Option<Id>, rest: Option<Id>) -> Option<()> {
        self.optional(first)?;
        let Some(rest) = rest else { return Some(()) };
        self.text(", ")?;
        let length = self.out.len();
        self.node(rest)?;
        if self.out.len() == length {
            self.out.truncate(length - 2);
        }
        Some(())
    }

    pub(super) fn expansion(&mut self, pattern: Id) -> Option<()> {
        let Some(pack) = self.pack_in(pattern, 0) else {
            self.operand(pattern)?;
            return self.text("...");
        };
        let length = self.pack_length(pack);
        let outer = self.pack_index;
        for index in 0..length {
            self.pack_index = index;
            self.node(pattern)?;
            if index + 1 < length {
                self.text(", ")?;
            }
        }
        self.pack_index = outer;
        Some(())
    }

    pub fn pack_length(&self, mut list: Id) -> usize {
        let mut length = 0;
        while let Node { kind: Kind::TemplateArguments, left: Some(_), right } = self.get(list) {
            length += 1;
            match right {
                Some(right) => list = right,
                None => break,
            }
        }
        length
    }

    /// The first pack that a pattern mentions.
    pub fn pack_in(&self, id: Id, depth: u32) -> Option<Id> {
        self.step(depth)?;
        let Node { kind, left, right } = self.get(id);
        match kind {
            Kind::TemplateParameter(number) => {
                self.argument(number).filter(|&argument| matches!(self.get(argument).kind, Kind::TemplateArguments))
            }
            Kind::PackExpansion | Kind::Lambda(_) => None,
            _ => left.and_then(|left| self.pack_in(left, depth + 1)).or_else(|| right.and_then(|right| self.pack_in(right, depth + 1))),
        }
    }

    /// The type may mention parameters of the template that the operator is an instance of.
    pub(super) fn conversion(&mut self, target: Id) -> Option<()> {
        let outer = self.scope;
        if let Some(template) = self.current_template {
            self.scopes.push(Scope { template, outer });
            self.scope = Some(self.scopes.len() - 1);
        }
        let Node { kind, left, right } = self.get(target);
        if matches!(kind, Kind::Template) {
            self.node(left?)?;
            self.scope = outer;
            return self.in_angles(right?);
        }
        self.node(target)?;
        self.scope = outer;
        Some(())
    }
}
