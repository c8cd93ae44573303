//! The XML report against the structure that protocol 4 documents: a strict parser and a grammar as a table, on programs with every kind of
//! error, fatal signal, suppression, client message and leak.
//!
//! `MEMCHECK=valgrind cargo test --test xml` holds Valgrind against the same grammar.

mod common;

use common::compile;
use common::run::valgrind;
use std::iter::Peekable;
use std::str::Chars;

/// What an element may hold, in this order: names of elements with `?`, `*` or `+`, groups with alternatives; `=` is text, `=0x` a number in
/// base 16, `=n` one in base 10.
const GRAMMAR: &[(&str, &str)] = &[
    (
        "valgrindoutput",
        "protocolversion protocoltool preamble pid ppid tool logfilequalifier* usercomment? args status (error | clientmsg | stack | suppression)* \
         fatal_signal? status? (error | suppression)* errorcounts? suppcounts?",
    ),
    ("protocolversion", "=n"),
    ("protocoltool", "="),
    ("preamble", "line+"),
    ("pid", "=n"),
    ("ppid", "=n"),
    ("tool", "="),
    ("args", "vargv argv"),
    ("vargv", "exe arg*"),
    ("argv", "exe arg*"),
    ("exe", "="),
    ("arg", "="),
    ("status", "state time"),
    ("state", "="),
    ("time", "="),
    ("error", "unique tid threadname? kind (what | xwhat) stack? ((auxwhat | xauxwhat) stack?)* suppression?"),
    ("unique", "=0x"),
    ("tid", "=n"),
    ("threadname", "="),
    ("kind", "="),
    ("what", "="),
    ("auxwhat", "="),
    ("xwhat", "text leakedbytes leakedblocks"),
    ("xauxwhat", "text file? line? dir?"),
    ("text", "="),
    ("leakedbytes", "=n"),
    ("leakedblocks", "=n"),
    ("stack", "frame+"),
    ("frame", "ip obj? fn? (dir? file line)?"),
    ("ip", "=0x"),
    ("obj", "="),
    ("fn", "="),
    ("dir", "="),
    ("file", "="),
    ("line", "="),
    ("clientmsg", "tid threadname? text stack?"),
    ("fatal_signal", "tid threadname? signo signame sicode event? siaddr? stack"),
    ("signo", "=n"),
    ("signame", "="),
    ("sicode", "=n"),
    ("event", "="),
    ("siaddr", "=0x"),
    ("suppression", "sname skind skaux? sframe+ rawtext"),
    ("sname", "="),
    ("skind", "="),
    ("skaux", "="),
    ("sframe", "(obj | fun)"),
    ("fun", "="),
    ("rawtext", "="),
    ("errorcounts", "pair*"),
    ("suppcounts", "pair*"),
    ("pair", "count (unique | name)"),
    ("count", "=n"),
    ("name", "="),
];

/// The kinds of protocol 4.
const KINDS: &[&str] = &[
    "UninitValue",
    "UninitCondition",
    "CoreMemError",
    "InvalidRead",
    "InvalidWrite",
    "InvalidJump",
    "SyscallParam",
    "ClientCheck",
    "InvalidFree",
    "MismatchedFree",
    "Overlap",
    "Leak_DefinitelyLost",
    "Leak_IndirectlyLost",
    "Leak_PossiblyLost",
    "Leak_StillReachable",
    "InvalidMemPool",
    "FishyValue",
];

#[derive(Debug, Default)]
struct Element {
    name: String,
    children: Vec<Element>,
    /// Of elements without children.
    text: String,
}

impl Element {
    fn all<'a>(&'a self, name: &str, found: &mut Vec<&'a Element>) {
        self.children.iter().for_each(|child| child.all(name, found));
        if self.name == name {
            found.push(self);
        }
    }

    /// Texts of all elements with this name.
    fn texts(&self, name: &str) -> Vec<&str> {
        let mut found = Vec::new();
        self.all(name, &mut found);
        found.into_iter().map(|element| element.text.as_str()).collect()
    }
}

/// One element from `<` on, and what is behind it.
fn parse(text: &str) -> Result<(Element, &str), String> {
    let here = || text.chars().take(60).collect::<String>();
    let (name, mut rest) =
        text.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(|| format!("no element at {}", here()))?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("a strange tag: {name}"));
    }
    let mut element = Element { name: name.to_owned(), ..Element::default() };
    loop {
        let at = rest.find('<').ok_or("the end is missing")?;
        let (before, tag) = rest.split_at(at);
        let (before, is_data, tag) = match tag.strip_prefix("<![CDATA[") {
            None => (before.to_owned(), false, tag),
            Some(data) => {
                let (data, behind) = data.split_once("]]>").ok_or("open data")?;
                (format!("{}{data}", before.trim()), true, behind)
            }
        };
        element.text.push_str(&if is_data { before } else { unescaped(&before)? });
        if is_data {
            rest = tag;
        } else if let Some(end) = tag.strip_prefix("</") {
            let rest = end.strip_prefix(name).and_then(|end| end.strip_prefix('>'));
            let rest = rest.ok_or_else(|| format!("{name} is ended by {}", end.chars().take(30).collect::<String>()))?;
            if !element.children.is_empty() && !element.text.trim().is_empty() {
                return Err(format!("text between the elements of {name}: {}", element.text.trim()));
            }
            return Ok((element, rest));
        } else {
            let (child, behind) = parse(tag)?;
            element.children.push(child);
            rest = behind;
        }
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut parts = text.split('&');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let known = [("lt;", '<'), ("gt;", '>'), ("amp;", '&'), ("quot;", '"'), ("apos;", '\'')];
        let (name, letter) = known.into_iter().find(|(name, _)| part.starts_with(name)).ok_or_else(|| format!("a bare & in {text}"))?;
        out.push(letter);
        out.push_str(&part[name.len()..]);
    }
    Ok(out)
}

/// A part of a row of the grammar.
enum Part {
    Name(String),
    /// Alternatives.
    Group(Vec<Vec<(Part, char)>>),
}

/// Alternatives up to a closing bracket or the end.
fn read_row(letters: &mut Peekable<Chars>) -> Vec<Vec<(Part, char)>> {
    let mut alternatives = vec![Vec::new()];
    while let Some(letter) = letters.next() {
        let part = match letter {
            ' ' => continue,
            ')' => break,
            '|' => {
                alternatives.push(Vec::new());
                continue;
            }
            '(' => Part::Group(read_row(letters)),
            first => {
                let mut name = String::from(first);
                while let Some(letter) = letters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(letter);
                }
                Part::Name(name)
            }
        };
        let times = letters.next_if(|c| "?*+".contains(*c)).unwrap_or('1');
        alternatives.last_mut().expect("one at least").push((part, times));
    }
    alternatives
}

/// Numbers of names that a sequence can take from the front.
fn takes(sequence: &[(Part, char)], names: &[&str]) -> Vec<usize> {
    let mut at = vec![0];
    for (part, times) in sequence {
        let once = |from: usize| -> Vec<usize> {
            let taken = match part {
                Part::Name(name) => {
                    if names.get(from) == Some(&name.as_str()) {
                        vec![1]
                    } else {
                        Vec::new()
                    }
                }
                Part::Group(alternatives) => alternatives.iter().flat_map(|one| takes(one, &names[from..])).collect(),
            };
            taken.into_iter().map(|n| from + n).collect()
        };
        let mut next: Vec<usize> = if "?*".contains(*times) { at.clone() } else { Vec::new() };
        let mut new: Vec<usize> = at.iter().flat_map(|&from| once(from)).collect();
        while !new.is_empty() {
            new.retain(|n| !next.contains(n));
            new.sort_unstable();
            new.dedup();
            next.extend(&new);
            new = if "*+".contains(*times) { new.iter().flat_map(|&from| once(from)).collect() } else { Vec::new() };
        }
        at = next;
    }
    at
}

fn check(element: &Element, faults: &mut Vec<String>) {
    let name = &element.name;
    let Some((_, row)) = GRAMMAR.iter().find(|(known, _)| known == name) else { return faults.push(format!("no such element: {name}")) };
    let children: Vec<&str> = element.children.iter().map(|child| child.name.as_str()).collect();
    if let Some(kind) = row.strip_prefix('=') {
        let text = element.text.trim();
        let good = match kind {
            "n" => text.parse::<i64>().is_ok(),
            "0x" => text.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok()),
            _ => true,
        };
        if !good || !children.is_empty() || name == "kind" && !KINDS.contains(&text) {
            faults.push(format!("{name} is {:?} with {children:?}", element.text));
        }
    } else {
        let alternatives = read_row(&mut row.chars().peekable());
        if !alternatives.iter().any(|one| takes(one, &children).contains(&children.len())) {
            faults.push(format!("{name} has {children:?}, not {row}"));
        }
    }
    element.children.iter().for_each(|child| check(child, faults));
}

/// The document, if it is one.
fn document(text: &str) -> Element {
    let body = text.strip_prefix("<?xml version=\"1.0\"?>").expect("a declaration").trim_start();
    let (root, rest) = parse(body).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    assert_eq!((root.name.as_str(), rest.trim()), ("valgrindoutput", ""));
    let mut faults = Vec::new();
    check(&root, &mut faults);
    assert!(faults.is_empty(), "{}\n{text}", faults.join("\n"));
    root
}

const ALL_KINDS: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
char *kept, *inside;
struct link { struct link *next; };
static void *work(void *data) { free(data); free(data); return 0; }
static void leak(void) {
    struct link *lost = malloc(8);
    lost->next = calloc(1, 8);
    kept = malloc(30);
    inside = (char *)malloc(40) + 5;
}
static void clear(void) { volatile char frame[2000]; memset((void *)frame, 0, sizeof frame); }
int main(int count, char **words) {
    volatile char *block = malloc(10);
    block[10] = 1;
    block[11] = block[-1];
    volatile int undefined, *place = malloc(64);
    if (undefined) block[0] = 1;
    block[1] = kept ? 0 : ((char *)place)[*(volatile unsigned char *)place & 1];
    memcpy((char *)place + 3, (char *)place, 8);
    write(open("/dev/null", O_WRONLY), (void *)place, 4);
    malloc(-1L);
    pthread_t thread;
    pthread_create(&thread, 0, work, (void *)place);
    pthread_join(thread, 0);
    leak();
    clear();
    if (*words[1] == 'j') ((void (*)(void))0)();
    if (*words[1] == 's') raise(SIGTERM);
    return 0;
}
"#;

#[test]
fn documents_are_as_the_protocol_says() {
    let dir = common::scratch("xml-grammar");
    compile(&dir, "all", ALL_KINDS, &["-pthread", "-fno-builtin"]);
    std::fs::write(dir.join("rules"), "{\n   a <rule> & more\n   Memcheck:Overlap\n   ...\n   fun:main\n}\n").expect("a file");
    let always = ["SyscallParam", "InvalidFree", "Leak_DefinitelyLost", "Leak_IndirectlyLost", "Leak_PossiblyLost", "Leak_StillReachable"];
    for (how, options, extra, signal) in [
        ("n", &["--track-origins=yes"][..], "UninitCondition", None),
        ("n", &["--gen-suppressions=all", "--num-callers=3"], "InvalidWrite", None),
        ("n", &["--suppressions=rules", "--read-var-info=yes"], "UninitCondition", None),
        ("j", &["--error-limit=no", "-v"], "InvalidJump", Some("SIGSEGV")),
        ("s", &["--time-stamp=yes", "--fullpath-after="], "InvalidRead", Some("SIGTERM")),
    ] {
        let args = ["--xml=yes", "--xml-file=out.xml", "--show-leak-kinds=all", "--leak-check=full"];
        valgrind(&dir).args(args).args(options).args(["./all", how]).finish(how);
        let root = document(&std::fs::read_to_string(dir.join("out.xml")).expect("the document"));
        let kinds = root.texts("kind");
        for kind in always.iter().chain([&extra]) {
            assert!(kinds.contains(kind), "{how}: no {kind} among {kinds:?}");
        }
        assert_eq!(root.texts("signame"), signal.as_slice(), "{how}");
        assert_eq!(root.texts("state"), ["RUNNING", "FINISHED"], "{how}");
        // Where one function serves for memcpy and memmove, the reference cannot tell which was meant.
        if common::testing_reference() {
            continue;
        }
        let is_hidden = options.contains(&"--suppressions=rules");
        assert_eq!(root.texts("name").contains(&"a <rule> & more"), is_hidden);
        assert_eq!(kinds.contains(&"Overlap"), !is_hidden);
    }
}

const CLOSES_ALL: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    for (int fd = 0; fd < 1024; fd++) close(fd);
    volatile char *block = malloc(4);
    block[4] = 1;
    raise(SIGKILL);
}
"#;

#[test]
fn documents_are_whole_whatever_the_program_closes_and_wherever_they_go() {
    let dir = common::scratch("xml-closed");
    compile(&dir, "closes", CLOSES_ALL, &[]);
    valgrind(&dir).args(["--xml=yes", "--xml-file=out.xml", "./closes"]).finish("n");
    // The reference is killed with the program.
    if common::testing_reference() {
        return;
    }
    document(&std::fs::read_to_string(dir.join("out.xml")).expect("the document"));
    let outcome = valgrind(&dir).args(["--xml=yes", "--xml-fd=999", "./closes"]).finish("n");
    let stderr = outcome.err();
    let (said, text) = stderr.split_once('\n').expect("lines");
    assert!(said.ends_with("File descriptor 999 cannot be used for the XML, using stderr."), "{said}");
    document(text);
}

#[test]
fn the_grammar_is_strict() {
    let faults = |text: &str| {
        let mut faults = Vec::new();
        check(&parse(text).expect("well-formed").0, &mut faults);
        faults.len()
    };
    assert_eq!(faults("<frame><ip>0x1f</ip><obj>a</obj><file>b</file><line>3</line></frame>"), 0);
    assert_eq!(faults("<frame><ip>1f</ip><obj>a</obj><file>b</file><line>3</line></frame>"), 1);
    assert_eq!(faults("<frame><obj>a</obj><ip>0x1</ip></frame>"), 1);
    assert_eq!(faults("<pair><count>1</count><other>1</other></pair>"), 2);
    assert_eq!(faults("<errorcounts>\n</errorcounts>"), 0);
    for bad in ["<a><b></a>", "<a>x & y</a>", "<a>", "<a>text<b></b></a>", "x"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
