//! A name as a tree, between parser and printer.

use super::tables::{Builtin, Operator};

/// Number of a node. Substitutions make the tree a graph, without cycles except through template arguments.
pub type Id = usize;

#[derive(Clone, Copy)]
pub enum Kind<'n> {
    /// Text as it is.
    Name(&'n str),
    /// left::right
    Qualified,
    /// An entity (right) inside a function (left).
    Local,
    /// A function: its name (left, qualifiers of `this` around it) and its type (right).
    Typed,
    /// left<right>
    Template,
    TemplateParameter(u64),
    /// In expressions; 0 is `this`.
    FunctionParameter(u64),
    /// Of the class left.
    Constructor,
    Destructor,
    /// Words in front of left.
    Special(&'static str),
    /// The table of left while it is a base of right.
    ConstructionTable,
    /// Number of a temporary of left.
    Temporary(u64),
    Builtin(&'static Builtin),
    Qualifier(Qualifier),
    /// Qualifiers of `this`, or of the function as a whole.
    OfThis(Qualifier),
    /// `noexcept(right)` or `throw(right)` of left.
    Specification(&'static str),
    /// left with the qualifier right.
    VendorQualifier,
    Pointer,
    Reference,
    RvalueReference,
    /// left with a word behind it: `_Complex`.
    Suffixed(&'static str),
    /// Returns left (if it is known), takes right.
    Function,
    /// Of right; left is the dimension.
    Array,
    /// To a member of class left, of type right.
    MemberPointer,
    /// Of right; left is the dimension.
    Vector,
    /// left, and right are more of them.
    Arguments,
    TemplateArguments,
    /// left{right}
    Initializer,
    Operator(&'static Operator),
    /// `operator"" left`
    LiteralOperator,
    VendorOperator,
    /// To type left.
    Conversion,
    Cast,
    Nullary,
    /// Operator left with operand right.
    Unary,
    /// Operator left with operands right (a `Pair`).
    Binary,
    /// Operator left with operands right (a `Pair` whose right is a `Pair`).
    Ternary,
    Pair,
    /// Of type left.
    Value {
        digits: &'n str,
        negative: bool,
    },
    /// Takes left.
    Lambda(u64),
    Unnamed(u64),
    /// In the default value of a parameter: left.
    DefaultArgument(u64),
    PackExpansion,
    /// left[abi:right]
    Tagged,
    /// left [clone right]
    Clone,
    Decltype,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Qualifier {
    Restrict,
    Volatile,
    Const,
    TransactionSafe,
    Reference,
    RvalueReference,
}

#[derive(Clone, Copy)]
pub struct Node<'n> {
    pub kind: Kind<'n>,
    pub left: Option<Id>,
    pub right: Option<Id>,
}

#[derive(Default)]
pub struct Tree<'n> {
    nodes: Vec<Node<'n>>,
}

impl<'n> Tree<'n> {
    pub fn add(&mut self, kind: Kind<'n>, left: Option<Id>, right: Option<Id>) -> Id {
        self.nodes.push(Node { kind, left, right });
        self.nodes.len() - 1
    }

    pub fn node(&self, id: Id) -> Node<'n> {
        self.nodes[id]
    }

    pub fn node_mut(&mut self, id: Id) -> &mut Node<'n> {
        &mut self.nodes[id]
    }

    /// Without what qualifies `this`.
    pub fn unqualified(&self, mut id: Id) -> Id {
        while let Node { kind: Kind::OfThis(_) | Kind::Specification(_), left: Some(left), .. } = self.nodes[id] {
            id = left;
        }
        id
    }
}
