//! From a mangled name to a tree: the grammar of the Itanium C++ ABI, one function per production. Here are names; types and expressions are
//! in files of their own.
//!
//! What is not understood ends the parse (`None`), and the name stays as it is. Depth and size are bounded: names are the program's.

use super::tables::{self, STANDARD};
use super::tree::{Id, Kind, Node, Qualifier, Tree};

/// Nesting of productions; deeper names do not come from compilers.
const DEEPEST: u32 = 512;
const MOST_NODES: usize = 1 << 16;

pub struct Parser<'n> {
    name: &'n str,
    pub at: usize,
    pub tree: Tree<'n>,
    pub substitutions: Vec<Id>,
    /// What constructors are called here.
    pub last_name: Option<Id>,
    /// In the type of a conversion operator, whose `I` may belong to the operator.
    pub in_conversion: bool,
    nodes: usize,
    depth: u32,
}

/// A whole mangled name.
pub fn parse(name: &str) -> Option<(Tree<'_>, Id)> {
    let mut p =
        Parser { name, at: 0, tree: Tree::default(), substitutions: Vec::new(), last_name: None, in_conversion: false, nodes: 0, depth: 0 };
    p.expect(b"_Z")?;
    let mut id = p.encoding()?;
    while let Some(suffix) = p.clone_suffix() {
        let suffix = p.leaf(Kind::Name(suffix))?;
        id = p.add(Kind::Clone, Some(id), Some(suffix))?;
    }
    (p.at == name.len()).then_some((p.tree, id))
}

impl<'n> Parser<'n> {
    pub fn peek(&self) -> u8 {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> u8 {
        self.name.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, bytes: &[u8]) -> Option<()> {
        let found = self.name.as_bytes().get(self.at..)?.starts_with(bytes);
        self.at += if found { bytes.len() } else { 0 };
        found.then_some(())
    }

    pub fn add(&mut self, kind: Kind<'n>, left: Option<Id>, right: Option<Id>) -> Option<Id> {
        self.nodes += 1;
        (self.nodes <= MOST_NODES).then(|| self.tree.add(kind, left, right))
    }

    pub fn leaf(&mut self, kind: Kind<'n>) -> Option<Id> {
        self.add(kind, None, None)
    }

    /// A production that may contain itself.
    pub fn nested<T>(&mut self, production: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= DEEPEST {
            return None;
        }
        self.depth += 1;
        let result = production(self);
        self.depth -= 1;
        result
    }

    /// The text from `from` to here.
    pub fn since(&self, from: usize) -> Option<&'n str> {
        self.name.get(from..self.at)
    }

    /// Decimal digits, which must be there.
    pub fn number(&mut self) -> Option<u64> {
        let from = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.since(from)?.parse().ok()
    }

    /// `_` is 0, `0_` is 1, and so on.
    pub fn compact_number(&mut self) -> Option<u64> {
        let number = if self.peek() == b'_' { 0 } else { self.number()?.checked_add(1)? };
        self.expect(b"_")?;
        Some(number)
    }

    /// `.part.0`, with its first dot.
    fn clone_suffix(&mut self) -> Option<&'n str> {
        let (from, is_word) = (self.at, |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if self.peek() != b'.' || !is_word(self.peek_at(1)) {
            return None;
        }
        self.at += 1;
        while is_word(self.peek()) {
            self.at += 1;
        }
        while self.peek() == b'.' && self.peek_at(1).is_ascii_digit() {
            self.at += 1;
            while self.peek().is_ascii_digit() {
                self.at += 1;
            }
        }
        self.since(from)
    }

    /// A function with its type, a variable, or something the compiler made.
    pub fn encoding(&mut self) -> Option<Id> {
        self.nested(|p| {
            if matches!(p.peek(), b'G' | b'T') {
                return p.special_name();
            }
            let name = p.any_name()?;
            if matches!(p.peek(), 0 | b'E' | b'.') {
                return Some(name);
            }
            let has_return_type = p.has_return_type(name);
            let function = p.bare_function_type(has_return_type)?;
            p.add(Kind::Typed, Some(name), Some(function))
        })
    }

    /// Instances of templates say what they return, unless they return what they construct.
    fn has_return_type(&self, name: Id) -> bool {
        let Node { kind, left, right } = self.tree.node(name);
        match kind {
            Kind::OfThis(_) | Kind::Specification(_) => left.is_some_and(|left| self.has_return_type(left)),
            Kind::Local => right.is_some_and(|right| self.has_return_type(right)),
            Kind::Template => !left.is_some_and(|left| self.constructs(left)),
            _ => false,
        }
    }

    fn constructs(&self, name: Id) -> bool {
        let Node { kind, left, right } = self.tree.node(name);
        match kind {
            Kind::Constructor | Kind::Destructor | Kind::Conversion => true,
            Kind::Qualified | Kind::Local => right.is_some_and(|right| self.constructs(right)),
            Kind::Tagged => left.is_some_and(|left| self.constructs(left)),
            _ => false,
        }
    }

    fn special_name(&mut self) -> Option<Id> {
        let code = [self.peek(), self.peek_at(1)];
        self.at += 2;
        let (words, is_type) = match &code {
            b"TV" => ("vtable for ", true),
            b"TT" => ("VTT for ", true),
            b"TI" => ("typeinfo for ", true),
            b"TS" => ("typeinfo name for ", true),
            b"TF" => ("typeinfo fn for ", true),
            b"TH" => ("TLS init function for ", false),
            b"TW" => ("TLS wrapper function for ", false),
            b"GV" => ("guard variable for ", false),
            b"GA" => return self.special("hidden alias for ", Self::encoding),
            b"TA" => return self.special("template parameter object for ", Self::template_argument),
            b"GT" => {
                let words = if self.eat(b'n') { "non-transaction clone for " } else { "transaction clone for " };
                self.at += usize::from(words.starts_with('t'));
                return self.special(words, Self::encoding);
            }
            b"GR" => {
                let name = self.any_name()?;
                let number = if self.at == self.name.len() { 0 } else { self.compact_seq()? };
                return self.add(Kind::Temporary(number), Some(name), None);
            }
            b"TC" => {
                let derived = self.type_()?;
                self.number()?;
                self.expect(b"_")?;
                let base = self.type_()?;
                return self.add(Kind::ConstructionTable, Some(base), Some(derived));
            }
            b"Th" | b"Tv" => {
                self.call_offset(code[1])?;
                let words = if code[1] == b'h' { "non-virtual thunk to " } else { "virtual thunk to " };
                return self.special(words, Self::encoding);
            }
            b"Tc" => {
                for _ in 0..2 {
                    let kind = self.peek();
                    self.at += 1;
                    self.call_offset(kind)?;
                }
                return self.special("covariant return thunk to ", Self::encoding);
            }
            _ => return None,
        };
        self.special(words, if is_type { Self::type_ } else { Self::any_name })
    }

    fn special(&mut self, words: &'static str, production: fn(&mut Self) -> Option<Id>) -> Option<Id> {
        let of = production(self)?;
        self.add(Kind::Special(words), Some(of), None)
    }

    fn call_offset(&mut self, kind: u8) -> Option<()> {
        for _ in 0..if kind == b'v' { 2 } else { 1 } {
            self.eat(b'n');
            self.number()?;
            self.expect(b"_")?;
        }
        matches!(kind, b'h' | b'v').then_some(())
    }

    /// A number to the base 36, `_` being 0.
    fn compact_seq(&mut self) -> Option<u64> {
        let mut number = 0u64;
        let mut any = false;
        while self.peek().is_ascii_digit() || self.peek().is_ascii_uppercase() {
            number = number.checked_mul(36)?.checked_add(u64::from(char::from(self.peek()).to_digit(36)?))?;
            any = true;
            self.at += 1;
        }
        self.expect(b"_")?;
        Some(if any { number + 1 } else { 0 })
    }

    /// The name of a function, variable or class.
    pub fn any_name(&mut self) -> Option<Id> {
        self.nested(|p| match p.peek() {
            b'N' => p.nested_name(),
            b'Z' => p.local_name(),
            b'S' if p.peek_at(1) != b't' => {
                let known = p.substitution(false)?;
                p.with_arguments(known)
            }
            b'S' => {
                p.at += 2;
                let (scope, name) = (p.leaf(Kind::Name("std"))?, p.unqualified_name()?);
                let id = p.add(Kind::Qualified, Some(scope), Some(name))?;
                p.template(id)
            }
            _ => {
                let id = p.unqualified_name()?;
                p.template(id)
            }
        })
    }

    /// What may be the name of a template is new.
    pub fn template(&mut self, name: Id) -> Option<Id> {
        if self.peek() == b'I' {
            self.substitutions.push(name);
        }
        self.with_arguments(name)
    }

    pub fn with_arguments(&mut self, name: Id) -> Option<Id> {
        if self.peek() != b'I' {
            return Some(name);
        }
        let arguments = self.template_arguments()?;
        self.add(Kind::Template, Some(name), Some(arguments))
    }

    fn nested_name(&mut self) -> Option<Id> {
        self.expect(b"N")?;
        let mut of_this = Vec::new();
        while let Some(qualifier) = cv_qualifier(self.peek()) {
            self.at += 1;
            of_this.push(qualifier);
        }
        let reference = match self.peek() {
            b'R' => Some(Qualifier::Reference),
            b'O' => Some(Qualifier::RvalueReference),
            _ => None,
        };
        self.at += usize::from(reference.is_some());
        let mut id = self.prefix()?;
        self.expect(b"E")?;
        for qualifier in of_this.into_iter().rev().chain(reference) {
            id = self.add(Kind::OfThis(qualifier), Some(id), None)?;
        }
        Some(id)
    }

    /// The parts of a nested name, up to its `E`.
    fn prefix(&mut self) -> Option<Id> {
        let mut so_far: Option<Id> = None;
        loop {
            let is_known = self.peek() == b'S';
            let part = match self.peek() {
                b'E' => return so_far,
                b'M' if so_far.is_some() => {
                    // Behind the variable in whose initializer a closure is.
                    self.at += 1;
                    continue;
                }
                b'I' => {
                    let arguments = self.template_arguments()?;
                    let id = self.add(Kind::Template, Some(so_far?), Some(arguments))?;
                    so_far = Some(id);
                    if self.peek() != b'E' {
                        self.substitutions.push(id);
                    }
                    continue;
                }
                b'S' => self.substitution(true)?,
                b'T' => self.template_parameter()?,
                b'D' if matches!(self.peek_at(1), b'T' | b't') => self.type_()?,
                _ => self.unqualified_name()?,
            };
            let id = match so_far {
                None => part,
                Some(scope) => self.add(Kind::Qualified, Some(scope), Some(part))?,
            };
            so_far = Some(id);
            if !is_known && self.peek() != b'E' {
                self.substitutions.push(id);
            }
        }
    }

    pub fn unqualified_name(&mut self) -> Option<Id> {
        let mut id = match (self.peek(), self.peek_at(1)) {
            (b'0'..=b'9', _) => self.source_name()?,
            (b'a'..=b'z', _) => {
                if self.peek() == b'o' && self.peek_at(1) == b'n' {
                    self.at += 2;
                }
                self.operator_name()?
            }
            (b'D', b'C') => self.structured_binding()?,
            (b'C' | b'D', _) => self.constructor()?,
            (b'L', _) => {
                self.at += 1;
                let id = self.source_name()?;
                self.discriminator()?;
                id
            }
            (b'U', b'l') => self.lambda()?,
            (b'U', b't') => {
                self.at += 2;
                let number = self.compact_number()?;
                let id = self.leaf(Kind::Unnamed(number))?;
                self.substitutions.push(id);
                id
            }
            _ => return None,
        };
        while self.eat(b'B') {
            let kept = self.last_name;
            let tag = self.source_name()?;
            self.last_name = kept;
            id = self.add(Kind::Tagged, Some(id), Some(tag))?;
        }
        Some(id)
    }

    pub fn source_name(&mut self) -> Option<Id> {
        let length = usize::try_from(self.number()?).ok().filter(|&n| n > 0)?;
        let text = self.name.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        let is_anonymous = text.strip_prefix("_GLOBAL_").is_some_and(|rest| matches!(rest.as_bytes(), [b'.' | b'_' | b'$', b'N', ..]));
        let id = self.leaf(Kind::Name(if is_anonymous { "(anonymous namespace)" } else { text }))?;
        self.last_name = Some(id);
        Some(id)
    }

    pub fn operator_name(&mut self) -> Option<Id> {
        let code = [self.peek(), self.peek_at(1)];
        self.at += 2;
        match (code[0], code[1]) {
            (b'v', b'0'..=b'9') => {
                let name = self.source_name()?;
                self.add(Kind::VendorOperator, Some(name), None)
            }
            (b'c', b'v') => {
                let outer = std::mem::replace(&mut self.in_conversion, true);
                let target = self.type_();
                self.in_conversion = outer;
                self.add(Kind::Conversion, Some(target?), None)
            }
            (b'l', b'i') => {
                let name = self.source_name()?;
                self.add(Kind::LiteralOperator, Some(name), None)
            }
            _ => {
                let operator = tables::operator(&code)?;
                self.leaf(Kind::Operator(operator))
            }
        }
    }

    fn constructor(&mut self) -> Option<Id> {
        let kind = self.peek();
        self.at += 1;
        let inherits = kind == b'C' && self.eat(b'I');
        if !matches!(self.peek(), b'0'..=b'5') {
            return None;
        }
        self.at += 1;
        if inherits {
            // It is called like the class that it comes from.
            self.type_()?;
        }
        self.add(if kind == b'C' { Kind::Constructor } else { Kind::Destructor }, Some(self.last_name?), None)
    }

    /// `[a, b]`
    fn structured_binding(&mut self) -> Option<Id> {
        self.expect(b"DC")?;
        let mut names = Vec::new();
        while !self.eat(b'E') {
            names.push(self.source_name()?);
        }
        let list = self.list(Kind::Arguments, names)?;
        self.add(Kind::Special("structured binding "), Some(list), None)
    }

    fn lambda(&mut self) -> Option<Id> {
        self.expect(b"Ul")?;
        let parameters = self.parameters()?;
        self.expect(b"E")?;
        let number = self.compact_number()?;
        self.add(Kind::Lambda(number), Some(parameters), None)
    }

    /// `_2`, `__12_`: which of several entities of this name in a function.
    fn discriminator(&mut self) -> Option<()> {
        if !self.eat(b'_') {
            return Some(());
        }
        if self.eat(b'_') {
            self.number()?;
            return self.expect(b"_");
        }
        let is_digit = self.peek().is_ascii_digit();
        self.at += usize::from(is_digit);
        is_digit.then_some(())
    }

    fn local_name(&mut self) -> Option<Id> {
        self.expect(b"Z")?;
        let function = self.encoding()?;
        self.expect(b"E")?;
        let mut default_argument = None;
        let name = if self.eat(b's') {
            self.discriminator()?;
            self.leaf(Kind::Name("string literal"))?
        } else {
            if self.eat(b'd') {
                default_argument = Some(self.compact_number()?);
            }
            let name = self.any_name()?;
            if !matches!(self.tree.node(name).kind, Kind::Lambda(_) | Kind::Unnamed(_)) {
                self.discriminator()?;
            }
            name
        };
        let name = match default_argument {
            Some(number) => self.add(Kind::DefaultArgument(number), Some(name), None)?,
            None => name,
        };
        // What the function returns would look like what the inner one does.
        if let Node { kind: Kind::Typed, right: Some(function), .. } = self.tree.node(function)
            && matches!(self.tree.node(function).kind, Kind::Function)
        {
            self.tree.node_mut(function).left = None;
        }
        self.add(Kind::Local, Some(function), Some(name))
    }

    /// Something named before, or an abbreviation.
    pub fn substitution(&mut self, in_prefix: bool) -> Option<Id> {
        self.expect(b"S")?;
        if self.peek() == b'_' || self.peek().is_ascii_digit() || self.peek().is_ascii_uppercase() {
            let number = usize::try_from(self.compact_seq()?).ok()?;
            return self.substitutions.get(number).copied();
        }
        let standard = STANDARD.iter().find(|standard| standard.letter == self.peek())?;
        self.at += 1;
        if !standard.last.is_empty() {
            self.last_name = Some(self.leaf(Kind::Name(standard.last))?);
        }
        let is_constructor = in_prefix && matches!(self.peek(), b'C' | b'D');
        let mut id = self.leaf(Kind::Name(if is_constructor { standard.full } else { standard.short }))?;
        if self.peek() == b'B' {
            while self.eat(b'B') {
                let kept = self.last_name;
                let tag = self.source_name()?;
                self.last_name = kept;
                id = self.add(Kind::Tagged, Some(id), Some(tag))?;
            }
            self.substitutions.push(id);
        }
        Some(id)
    }
}

pub fn cv_qualifier(letter: u8) -> Option<Qualifier> {
    match letter {
        b'r' => Some(Qualifier::Restrict),
        b'V' => Some(Qualifier::Volatile),
        b'K' => Some(Qualifier::Const),
        _ => None,
    }
}
