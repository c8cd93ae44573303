//! The fixed words of the mangling: types, operators, abbreviations of the standard library.

/// How a literal of a builtin type is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Literal {
    /// `(char)97`
    Cast,
    /// `7ul`: the number and this.
    Suffix(&'static str),
    Bool,
    /// `(double)[3ff0000000000000]`: the bits in hexadecimal digits.
    Bits,
}

pub struct Builtin {
    pub name: &'static str,
    pub literal: Literal,
}

const fn row(name: &'static str, literal: Literal) -> Builtin {
    Builtin { name, literal }
}

/// Types of one letter.
pub fn builtin(letter: u8) -> Option<&'static Builtin> {
    use Literal::{Bits, Bool, Cast, Suffix};
    static ROWS: [(u8, Builtin); 21] = [
        (b'a', row("signed char", Cast)),
        (b'b', row("bool", Bool)),
        (b'c', row("char", Cast)),
        (b'd', row("double", Bits)),
        (b'e', row("long double", Bits)),
        (b'f', row("float", Bits)),
        (b'g', row("__float128", Bits)),
        (b'h', row("unsigned char", Cast)),
        (b'i', row("int", Suffix(""))),
        (b'j', row("unsigned int", Suffix("u"))),
        (b'l', row("long", Suffix("l"))),
        (b'm', row("unsigned long", Suffix("ul"))),
        (b'n', row("__int128", Cast)),
        (b'o', row("unsigned __int128", Cast)),
        (b's', row("short", Cast)),
        (b't', row("unsigned short", Cast)),
        (b'v', row("void", Cast)),
        (b'w', row("wchar_t", Cast)),
        (b'x', row("long long", Suffix("ll"))),
        (b'y', row("unsigned long long", Suffix("ull"))),
        (b'z', row("...", Cast)),
    ];
    ROWS.iter().find(|(at, _)| *at == letter).map(|(_, builtin)| builtin)
}

/// Types of two letters, `D` being the first.
pub fn builtin_d(letter: u8) -> Option<&'static Builtin> {
    use Literal::{Bits, Cast};
    static ROWS: [(u8, Builtin); 8] = [
        (b'd', row("decimal64", Bits)),
        (b'e', row("decimal128", Bits)),
        (b'f', row("decimal32", Bits)),
        (b'h', row("half", Bits)),
        (b'i', row("char32_t", Cast)),
        (b'n', row("decltype(nullptr)", Cast)),
        (b's', row("char16_t", Cast)),
        (b'u', row("char8_t", Cast)),
    ];
    ROWS.iter().find(|(at, _)| *at == letter).map(|(_, builtin)| builtin)
}

#[derive(PartialEq, Eq)]
pub struct Operator {
    pub code: &'static str,
    pub name: &'static str,
    /// Operands in an expression.
    pub operands: u8,
}

pub fn operator(code: &[u8]) -> Option<&'static Operator> {
    OPERATORS.iter().find(|operator| operator.code.as_bytes() == code)
}

const fn op(code: &'static str, name: &'static str, operands: u8) -> Operator {
    Operator { code, name, operands }
}

static OPERATORS: [Operator; 76] = [
    op("aN", "&=", 2),
    op("aS", "=", 2),
    op("aa", "&&", 2),
    op("ad", "&", 1),
    op("an", "&", 2),
    op("at", "alignof ", 1),
    op("aw", "co_await ", 1),
    op("az", "alignof ", 1),
    op("cc", "const_cast", 2),
    op("cl", "()", 2),
    op("cm", ",", 2),
    op("co", "~", 1),
    op("dV", "/=", 2),
    op("dX", "[...]=", 3),
    op("da", "delete[] ", 1),
    op("dc", "dynamic_cast", 2),
    op("de", "*", 1),
    op("di", "=", 2),
    op("dl", "delete ", 1),
    op("ds", ".*", 2),
    op("dt", ".", 2),
    op("dv", "/", 2),
    op("dx", "]=", 2),
    op("eO", "^=", 2),
    op("eo", "^", 2),
    op("eq", "==", 2),
    op("fL", "...", 3),
    op("fR", "...", 3),
    op("fl", "...", 2),
    op("fr", "...", 2),
    op("ge", ">=", 2),
    op("gs", "::", 1),
    op("gt", ">", 2),
    op("ix", "[]", 2),
    op("lS", "<<=", 2),
    op("le", "<=", 2),
    op("li", "operator\"\" ", 1),
    op("ls", "<<", 2),
    op("lt", "<", 2),
    op("mI", "-=", 2),
    op("mL", "*=", 2),
    op("mi", "-", 2),
    op("ml", "*", 2),
    op("mm", "--", 1),
    op("na", "new[]", 3),
    op("ne", "!=", 2),
    op("ng", "-", 1),
    op("nt", "!", 1),
    op("nw", "new", 3),
    op("nx", "noexcept", 1),
    op("oR", "|=", 2),
    op("oo", "||", 2),
    op("or", "|", 2),
    op("pL", "+=", 2),
    op("pl", "+", 2),
    op("pm", "->*", 2),
    op("pp", "++", 1),
    op("ps", "+", 1),
    op("pt", "->", 2),
    op("qu", "?", 3),
    op("rM", "%=", 2),
    op("rS", ">>=", 2),
    op("rc", "reinterpret_cast", 2),
    op("rm", "%", 2),
    op("rs", ">>", 2),
    op("sP", "sizeof...", 1),
    op("sZ", "sizeof...", 1),
    op("sc", "static_cast", 2),
    op("ss", "<=>", 2),
    op("st", "sizeof ", 1),
    op("sz", "sizeof ", 1),
    op("te", "typeid ", 1),
    op("ti", "typeid ", 1),
    op("tr", "throw", 0),
    op("tw", "throw ", 1),
    op("vn", "", 0),
];

/// An abbreviation of the standard library.
pub struct Standard {
    pub letter: u8,
    pub short: &'static str,
    /// In front of constructors and destructors.
    pub full: &'static str,
    /// What those are called.
    pub last: &'static str,
}

pub static STANDARD: [Standard; 7] = [
    Standard { letter: b't', short: "std", full: "std", last: "" },
    Standard { letter: b'a', short: "std::allocator", full: "std::allocator", last: "allocator" },
    Standard { letter: b'b', short: "std::basic_string", full: "std::basic_string", last: "basic_string" },
    Standard {
        letter: b's',
        short: "std::string",
        full: "std::basic_string<char, std::char_traits<char>, std::allocator<char> >",
        last: "basic_string",
    },
    Standard { letter: b'i', short: "std::istream", full: "std::basic_istream<char, std::char_traits<char> >", last: "basic_istream" },
    Standard { letter: b'o', short: "std::ostream", full: "std::basic_ostream<char, std::char_traits<char> >", last: "basic_ostream" },
    Standard { letter: b'd', short: "std::iostream", full: "std::basic_iostream<char, std::char_traits<char> >", last: "basic_iostream" },
];
