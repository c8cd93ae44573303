//! From a tree to the text that the GNU demangler writes.
//!
//! Declarators are written around names (`int (*f)(char)`), but the tree has types from the outside in. So what has to be written around an
//! inner type (a pointer to it, the name of the function, `const`) waits in a list of modifiers, and whoever comes to the
//! place where it belongs writes it.
//!
//! Template parameters mean arguments of the innermost template around them; inside such an argument, of the next one.

mod arguments;
mod declarators;

use super::tree::{Id, Kind, Node, Tree};
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
            Kind::Qualified | Kind::Local => self.two(left?, "::", right?, ""),
            Kind::DefaultArgument(number) => self.one(&format!("{{default arg#{}}}::", number + 1), left?, ""),
            Kind::Typed => self.typed(left?, right?),
            Kind::Template => self.template(id, left?, right?),
            Kind::TemplateParameter(number) => self.parameter(number),
            Kind::FunctionParameter(0) => self.text("this"),
            Kind::FunctionParameter(number) => self.text(&format!("{{parm#{number}}}")),
            Kind::Constructor | Kind::Cast => self.node(left?),
            Kind::Destructor => self.one("~", left?, ""),
            Kind::Special(words) => self.one(words, left?, ""),
            Kind::ConstructionTable => {
                self.text("construction vtable for ")?;
                self.two(left?, "-in-", right?, "")
            }
            Kind::Temporary(number) => self.one(&format!("reference temporary #{number} for "), left?, ""),
            Kind::Qualifier(qualifier) => self.qualifier(id, qualifier, left?),
            Kind::Reference | Kind::RvalueReference => self.reference(id, left?),
            Kind::OfThis(_) | Kind::Specification(_) | Kind::VendorQualifier | Kind::Pointer | Kind::Suffixed(_) => self.around(id, left?),
            Kind::MemberPointer | Kind::Vector => self.around(id, right?),
            Kind::Function => self.function(id, left),
            Kind::Array => self.array(id, right?),
            Kind::Arguments | Kind::TemplateArguments => self.arguments(left, right),
            Kind::Initializer => {
                self.optional(left)?;
                self.one("{", right?, "}")
            }
            Kind::Operator(operator) => {
                let is_word = operator.name.starts_with(|c: char| c.is_ascii_lowercase());
                self.text(if is_word { "operator " } else { "operator" })?;
                self.text(operator.name.trim_end())
            }
            Kind::LiteralOperator => self.one("operator\"\" ", left?, ""),
            Kind::VendorOperator => self.one("operator ", left?, ""),
            Kind::Conversion => {
                self.text("operator ")?;
                self.conversion(left?)
            }
            Kind::Nullary => self.operator(left?),
            Kind::Unary => self.unary(left?, right?),
            Kind::Binary => self.binary(left?, right?),
            Kind::Ternary => self.ternary(left?, right?),
            Kind::Pair => None,
            Kind::Value { digits, negative } => self.value(left?, digits, negative),
            Kind::Lambda(number) => self.lambda(left?, number),
            Kind::Unnamed(number) => self.text(&format!("{{unnamed type#{}}}", number + 1)),
            Kind::PackExpansion => self.expansion(left?),
            Kind::Tagged => self.two(left?, "[abi:", right?, "]"),
            Kind::Clone => self.two(left?, " [clone ", right?, "]"),
            Kind::Decltype => self.one("decltype (", left?, ")"),
        }
    }

    /// A part with words around.
    fn one(&mut self, before: &str, part: Id, after: &str) -> Option<()> {
        self.text(before)?;
        self.node(part)?;
        self.text(after)
    }

    /// Two parts with words between and behind.
    fn two(&mut self, first: Id, between: &str, second: Id, after: &str) -> Option<()> {
        self.node(first)?;
        self.text(between)?;
        self.node(second)?;
        self.text(after)
    }

    /// Its parameters are no part of the declarator around it.
    fn lambda(&mut self, parameters: Id, number: u64) -> Option<()> {
        self.text("{lambda(")?;
        self.in_lambda += 1;
        let outer = self.modifier.take();
        let done = self.node(parameters);
        self.modifier = outer;
        self.in_lambda -= 1;
        done?;
        self.text(&format!(")#{}}}", number + 1))
    }
}
