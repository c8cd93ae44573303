//! From a tree to the text that the GNU demangler writes.
//!
//! Declarators are written around names (`int (*f)(char)`), but the tree has types from the outside in. So what has to be written around an
//! inner type (a pointer to it, the name of the function, `const`) waits in a list of modifiers, and whoever comes to the
//! place where it belongs writes it.
//!
//! Template parameters mean arguments of the innermost template around them; inside such an argument, of the next one.

use super::tree::{Id, Kind, Node, Qualifier, Tree};
use std::cell::Cell;
use std::collections::HashMap;

/// Steps of one name; substitutions let a short name grow without bound.
const MOST_STEPS: u32 = 1 << 18;
const DEEPEST: u32 = 1024;
const LONGEST: usize = 64 << 10;

/// A template around, and those around it.
#[derive(Clone, Copy)]
struct Scope {
    template: Id,
    outer: Option<usize>,
}

#[derive(Clone, Copy)]
struct Modifier {
    id: Id,
    written: bool,
    next: Option<usize>,
    scope: Option<usize>,
}

pub struct Printer<'t, 'n> {
    tree: &'t Tree<'n>,
    out: String,
    /// Stays a blank when a comma and its blank are taken back, as in the GNU demangler, which then leaves out that of `> >`.
    last: char,
    scopes: Vec<Scope>,
    scope: Option<usize>,
    modifiers: Vec<Modifier>,
    modifier: Option<usize>,
    /// Which element of packs is meant.
    pack_index: usize,
    in_lambda: u32,
    /// For the types of conversion operators.
    current_template: Option<Id>,
    /// Template parameters under references, and the scope they were first seen in.
    seen_in: HashMap<Id, Option<usize>>,
    path: Vec<Id>,
    steps: Cell<u32>,
}

pub fn print(tree: &Tree, root: Id) -> Option<String> {
    let mut printer = Printer {
        tree,
        out: String::new(),
        last: '\0',
        scopes: Vec::new(),
        scope: None,
        modifiers: Vec::new(),
        modifier: None,
        pack_index: 0,
        in_lambda: 0,
        current_template: None,
        seen_in: HashMap::new(),
        path: Vec::new(),
        steps: Cell::new(0),
    };
    printer.node(root)?;
    Some(printer.out)
}

impl<'t, 'n> Printer<'t, 'n> {
    pub fn text(&mut self, text: &str) -> Option<()> {
        self.out.push_str(text);
        self.last = text.chars().next_back().unwrap_or(self.last);
        (self.out.len() <= LONGEST).then_some(())
    }

    pub fn get(&self, id: Id) -> Node<'n> {
        self.tree.node(id)
    }

    pub fn optional(&mut self, id: Option<Id>) -> Option<()> {
        id.map_or(Some(()), |id| self.node(id))
    }

    pub fn node(&mut self, id: Id) -> Option<()> {
        self.step(self.path.len() as u32)?;
        self.path.push(id);
        let done = self.any(id);
        self.path.pop();
        done
    }

    fn step(&self, depth: u32) -> Option<()> {
        self.steps.set(self.steps.get() + 1);
        (self.steps.get() <= MOST_STEPS && depth <= DEEPEST).then_some(())
    }

    fn any(&mut self, id: Id) -> Option<()> {
        let tree = self.tree;
        let Node { kind, left, right } = tree.node(id);
        match kind {
            Kind::Name(text) => self.text(text),
            Kind::Builtin(builtin) => self.text(builtin.name),
            Kind::Qualified | Kind::Local => {
                self.node(left?)?;
                self.text("::")?;
                self.node(right?)
            }
            Kind::DefaultArgument(number) => {
                self.text(&format!("{{default arg#{}}}::", number + 1))?;
                self.node(left?)
            }
            Kind::Typed => self.typed(left?, right?),
            Kind::Template => self.template(id, left?, right?),
            Kind::TemplateParameter(number) => self.parameter(number),
            Kind::FunctionParameter(0) => self.text("this"),
            Kind::FunctionParameter(number) => self.text(&format!("{{parm#{number}}}")),
            Kind::Constructor => self.node(left?),
            Kind::Destructor => {
                self.text("~")?;
                self.node(left?)
            }
            Kind::Special(words) => {
                self.text(words)?;
                self.node(left?)
            }
            Kind::ConstructionTable => {
                self.text("construction vtable for ")?;
                self.node(left?)?;
                self.text("-in-")?;
                self.node(right?)
            }
            Kind::Temporary(number) => {
                self.text(&format!("reference temporary #{number} for "))?;
                self.node(left?)
            }
            Kind::Qualifier(qualifier) => self.qualifier(id, qualifier, left?),
            Kind::Reference | Kind::RvalueReference => self.reference(id, left?),
            Kind::OfThis(_) | Kind::Specification(_) | Kind::VendorQualifier | Kind::Pointer | Kind::Suffixed(_) => self.around(id, left?),
            Kind::MemberPointer | Kind::Vector => self.around(id, right?),
            Kind::Function => self.function(id, left),
            Kind::Array => self.array(id, right?),
            Kind::Arguments | Kind::TemplateArguments => self.arguments(left, right),
            Kind::Initializer => {
                self.optional(left)?;
                self.text("{")?;
                self.node(right?)?;
                self.text("}")
            }
            Kind::Operator(operator) => {
                let is_word = operator.name.starts_with(|c: char| c.is_ascii_lowercase());
                self.text(if is_word { "operator " } else { "operator" })?;
                self.text(operator.name.trim_end())
            }
            Kind::LiteralOperator => {
                self.text("operator\"\" ")?;
                self.node(left?)
            }
            Kind::VendorOperator => {
                self.text("operator ")?;
                self.node(left?)
            }
            Kind::Conversion => {
                self.text("operator ")?;
                self.conversion(left?)
            }
            Kind::Cast => self.node(left?),
            Kind::Nullary => self.operator(left?),
            Kind::Unary => self.unary(left?, right?),
            Kind::Binary => self.binary(left?, right?),
            Kind::Ternary => self.ternary(left?, right?),
            Kind::Pair => None,
            Kind::Value { digits, negative } => self.value(left?, digits, negative),
            Kind::Lambda(number) => {
                self.text("{lambda(")?;
                self.in_lambda += 1;
                let outer = self.modifier.take();
                let done = self.node(left?);
                self.modifier = outer;
                self.in_lambda -= 1;
                done?;
                self.text(&format!(")#{}}}", number + 1))
            }
            Kind::Unnamed(number) => self.text(&format!("{{unnamed type#{}}}", number + 1)),
            Kind::PackExpansion => self.expansion(left?),
            Kind::Tagged => {
                self.node(left?)?;
                self.text("[abi:")?;
                self.node(right?)?;
                self.text("]")
            }
            Kind::Clone => {
                self.node(left?)?;
                self.text(" [clone ")?;
                self.node(right?)?;
                self.text("]")
            }
            Kind::Decltype => {
                self.text("decltype (")?;
                self.node(left?)?;
                self.text(")")
            }
        }
    }

    fn push(&mut self, id: Id) -> usize {
        self.modifiers.push(Modifier { id, written: false, next: self.modifier, scope: self.scope });
        self.modifier = Some(self.modifiers.len() - 1);
        self.modifiers.len() - 1
    }

    /// `inner`, with the modifier `id` around or behind it.
    fn around(&mut self, id: Id, inner: Id) -> Option<()> {
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
    fn qualifier(&mut self, id: Id, qualifier: Qualifier, inner: Id) -> Option<()> {
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
    fn reference(&mut self, id: Id, of: Id) -> Option<()> {
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

    fn template(&mut self, id: Id, name: Id, arguments: Id) -> Option<()> {
        let modifiers = self.modifier.take();
        let template = self.current_template;
        self.current_template = Some(id);
        self.node(name)?;
        self.current_template = template;
        self.in_angles(arguments)?;
        self.modifier = modifiers;
        Some(())
    }

    fn in_angles(&mut self, arguments: Id) -> Option<()> {
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

    fn parameter(&mut self, number: u64) -> Option<()> {
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
    fn argument(&self, number: u64) -> Option<Id> {
        let template = self.scopes[self.scope?].template;
        let Node { kind: Kind::Template, right: Some(arguments), .. } = self.get(template) else { return None };
        self.element(arguments, usize::try_from(number).ok()?)
    }

    fn element(&self, mut list: Id, mut index: usize) -> Option<Id> {
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
    fn arguments(&mut self, first: Option<Id>, rest: Option<Id>) -> Option<()> {
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

    fn expansion(&mut self, pattern: Id) -> Option<()> {
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

    /// A function: its name belongs into the middle of its type.
    fn typed(&mut self, name: Id, function: Id) -> Option<()> {
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

    fn function(&mut self, id: Id, returns: Option<Id>) -> Option<()> {
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

    fn array(&mut self, id: Id, of: Id) -> Option<()> {
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

    /// The type may mention parameters of the template that the operator is an instance of.
    fn conversion(&mut self, target: Id) -> Option<()> {
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
