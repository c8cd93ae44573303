//! Valgrind's XML, for IDEs and CI plugins.
//!
//! ```text
//! <valgrindoutput> protocolversion protocoltool preamble pid ppid tool [usercomment] args
//!   status RUNNING   error* clientmsg* fatal_signal?   status FINISHED   error* (leaks)   errorcounts suppcounts
//! </valgrindoutput>
//! ```
//!
//! Known consumers are strict in different ways: one fails on any kind outside protocol 4's list, one on a document without
//! its end tag, one reads line by line, one drops frames without an object. The rules that satisfy all of them: closed list of
//! kinds under protocol 4 (`KindFacts::xml4`), each element with its text on one line, `obj` in every frame, `dir` only with
//! `file` and `line`, and the end tag always.
//!
//! Protocol 6 adds kinds and summaries at the end. The functions here give one element each; the order is the reporter's.

use std::time::Duration;

use super::{FatalSignal, HeapSummary, ProcessStart, signal, text};
use crate::dedup::{Context, ErrorTotals};
use crate::error::{Aux, ErrorRecord};
use crate::frame::{Frame, FrameStyle, Stack};
use crate::leak::{LeakTotals, Tally};
use crate::number::commas;
use crate::suppress::generate::{Generated, PLACEHOLDER};

/// What the elements need to know of the options.
#[derive(Clone, Debug)]
pub struct XmlStyle {
    /// 4 or 6.
    pub protocol: u8,
    pub compat: bool,
    pub frames: FrameStyle,
    /// Inserted as it is.
    pub user_comment: Option<String>,
    /// Variables that made the file name, with values.
    pub qualifiers: Vec<(String, String)>,
}

/// Indented elements.
struct Xml {
    out: String,
    depth: usize,
}

impl Xml {
    fn at(depth: usize) -> Self {
        Xml { out: String::new(), depth }
    }

    fn line(&mut self, text: &str) {
        self.out.extend(std::iter::repeat_n("  ", self.depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// `<tag>escaped text</tag>` on a line of its own.
    fn leaf(&mut self, tag: &str, text: &str) {
        self.line(&format!("<{tag}>{}</{tag}>", escape(text)));
    }

    fn element(&mut self, tag: &str, body: impl FnOnce(&mut Self)) {
        self.line(&format!("<{tag}>"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.line(&format!("</{tag}>"));
    }
}

/// Text as XML allows it: markup escaped, control characters (which no escape makes legal) replaced.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Everything up to and with the first `status`.
pub fn document_start(start: &ProcessStart, style: &XmlStyle, elapsed: Duration) -> String {
    let mut xml = Xml::at(0);
    xml.out.push_str("<?xml version=\"1.0\"?>\n\n<valgrindoutput>\n\n");
    xml.leaf("protocolversion", &style.protocol.to_string());
    xml.leaf("protocoltool", "memcheck");
    xml.line("");
    xml.element("preamble", |xml| {
        for line in text::preamble(start, style.compat) {
            xml.leaf("line", &line);
        }
    });
    xml.line("");
    xml.leaf("pid", &start.pid.to_string());
    xml.leaf("ppid", &start.parent.to_string());
    xml.leaf("tool", "memcheck");
    for (variable, value) in &style.qualifiers {
        let (variable, value) = (escape(variable), escape(value));
        xml.line(&format!("<logfilequalifier> <var>{variable}</var> <value>{value}</value> </logfilequalifier>"));
    }
    if let Some(comment) = &style.user_comment {
        xml.line(&format!("<usercomment>{comment}</usercomment>"));
    }
    xml.line("");
    xml.element("args", |xml| {
        command(xml, "vargv", &start.tool_command);
        command(xml, "argv", &start.command);
    });
    xml.line("");
    xml.out.push_str(&status("RUNNING", elapsed));
    xml.out
}

fn command(xml: &mut Xml, tag: &str, words: &[String]) {
    xml.element(tag, |xml| {
        for (index, word) in words.iter().enumerate() {
            xml.leaf(if index == 0 { "exe" } else { "arg" }, word);
        }
    });
}

/// `state` is `RUNNING` or `FINISHED`.
pub fn status(state: &str, elapsed: Duration) -> String {
    let mut xml = Xml::at(0);
    xml.element("status", |xml| {
        xml.leaf("state", state);
        xml.leaf("time", &format!("{} ", text::time_stamp(elapsed)));
    });
    xml.line("");
    xml.out
}

/// A finding, leaks included.
pub fn error(record: &ErrorRecord, unique: u64, rule: Option<&Generated>, style: &XmlStyle) -> String {
    let facts = record.kind.facts();
    let mut xml = Xml::at(0);
    xml.element("error", |xml| {
        xml.leaf("unique", &format!("0x{unique:x}"));
        thread(xml, record.thread, record.thread_name.as_deref());
        xml.leaf("kind", if style.protocol >= 6 { facts.xml6 } else { facts.xml4 });
        match record.leak {
            None => xml.leaf("what", &record.what),
            Some(leak) => xml.element("xwhat", |xml| {
                xml.leaf("text", &record.what);
                xml.leaf("leakedbytes", &leak.bytes.to_string());
                xml.leaf("leakedblocks", &leak.blocks.to_string());
            }),
        }
        stack(xml, &record.stack, &style.frames);
        for aux in &record.aux {
            also(xml, aux, &style.frames);
        }
        if let Some(rule) = rule {
            suppression(xml, rule);
        }
    });
    xml.line("");
    xml.out
}

fn thread(xml: &mut Xml, number: u32, name: Option<&str>) {
    xml.leaf("tid", &number.to_string());
    if let Some(name) = name {
        xml.leaf("threadname", name);
    }
}

fn also(xml: &mut Xml, aux: &Aux, frames: &FrameStyle) {
    match &aux.location {
        None => xml.leaf("auxwhat", &aux.text),
        Some(place) => xml.element("xauxwhat", |xml| {
            xml.leaf("text", &aux.text);
            xml.leaf("file", &place.file);
            xml.leaf("line", &place.line.to_string());
            if let Some(dir) = &place.dir {
                xml.leaf("dir", dir);
            }
        }),
    }
    if let Some(frames_of_aux) = &aux.stack {
        stack(xml, frames_of_aux, frames);
    }
}

fn stack(xml: &mut Xml, stack: &Stack, style: &FrameStyle) {
    xml.element("stack", |xml| {
        for frame in stack.shown(style.show_below_main) {
            xml.element("frame", |xml| frame_children(xml, frame, style));
        }
    });
}

fn frame_children(xml: &mut Xml, frame: &Frame, style: &FrameStyle) {
    xml.leaf("ip", &format!("0x{:X}", frame.addr));
    xml.leaf("obj", frame.object_text().as_deref().unwrap_or("???"));
    if let Some(name) = style.name(frame) {
        xml.leaf("fn", name);
    }
    let (Some(file), Some(line)) = (frame.file.as_deref(), frame.line) else {
        return;
    };
    if let Some(dir) = &frame.dir {
        xml.leaf("dir", dir);
    }
    xml.leaf("file", file);
    xml.leaf("line", &line.to_string());
}

fn suppression(xml: &mut Xml, rule: &Generated) {
    xml.element("suppression", |xml| {
        xml.leaf("sname", PLACEHOLDER);
        xml.leaf("skind", &rule.kind);
        if let Some(extra) = &rule.extra {
            xml.leaf("skaux", extra);
        }
        for frame in &rule.frames {
            let (tag, name) = frame.split_once(':').unwrap_or(("obj", "*"));
            xml.line(&format!("<sframe> <{tag}>{}</{tag}> </sframe>", escape(name)));
        }
        xml.line("<rawtext>");
        // A name cannot end the section: the one sequence that would is split over two.
        let raw = rule.text().replace("]]>", "]]]]><![CDATA[>");
        xml.out.push_str(&format!("<![CDATA[\n{raw}]]>\n"));
        xml.line("</rawtext>");
    });
}

/// What the program prints itself.
pub fn client_message(thread_number: u32, thread_name: Option<&str>, message: &str, frames: Option<&Stack>, style: &XmlStyle) -> String {
    let mut xml = Xml::at(0);
    xml.element("clientmsg", |xml| {
        thread(xml, thread_number, thread_name);
        xml.leaf("text", message);
        if let Some(frames) = frames {
            stack(xml, frames, &style.frames);
        }
    });
    xml.out
}

pub fn fatal_signal(fatal: &FatalSignal, style: &XmlStyle) -> String {
    let mut xml = Xml::at(0);
    xml.element("fatal_signal", |xml| {
        thread(xml, fatal.thread, fatal.thread_name.as_deref());
        xml.leaf("signo", &fatal.signo.to_string());
        xml.leaf("signame", &signal::name(fatal.signo));
        xml.leaf("sicode", &fatal.code.to_string());
        if let Some(event) = signal::event(fatal.signo, fatal.code) {
            xml.leaf("event", event);
            if signal::has_address(fatal.signo, fatal.code) {
                xml.leaf("siaddr", &format!("0x{:x}", fatal.address));
            }
        }
        stack(xml, &fatal.stack, &style.frames);
    });
    xml.line("");
    xml.out
}

/// How often each finding occurred; leaks are not in it.
pub fn error_counts(contexts: &[&Context]) -> String {
    pairs("errorcounts", contexts.iter().map(|context| (context.count, "unique", format!("0x{:x}", context.unique))))
}

/// How often each suppression was used.
pub fn suppression_counts<'a>(used: impl Iterator<Item = (u64, &'a str)>) -> String {
    pairs("suppcounts", used.map(|(count, name)| (count, "name", name.to_string())))
}

fn pairs(tag: &str, pairs: impl Iterator<Item = (u64, &'static str, String)>) -> String {
    let mut xml = Xml::at(0);
    xml.element(tag, |xml| {
        for (count, name, value) in pairs {
            xml.element("pair", |xml| {
                xml.leaf("count", &count.to_string());
                xml.leaf(name, &value);
            });
        }
    });
    xml.line("");
    xml.out
}

/// Protocol 6: totals of the heap.
pub fn heap_summary(heap: &HeapSummary) -> String {
    let mut xml = Xml::at(0);
    xml.element("heap_summary", |xml| {
        xml.element("memory_in_use_at_exit", |xml| tally(xml, heap.in_use));
        xml.element("total_heap_usage", |xml| {
            xml.leaf("allocs", &commas(heap.allocs));
            xml.leaf("frees", &commas(heap.frees));
            xml.leaf("bytes_allocated", &commas(heap.allocated_bytes));
        });
    });
    xml.line("");
    xml.out
}

fn tally(xml: &mut Xml, tally: Tally) {
    xml.leaf("bytes", &commas(tally.bytes));
    xml.leaf("blocks", &commas(tally.blocks));
}

/// Protocol 6: sums by kind of leak.
pub fn leak_summary(totals: &LeakTotals, heuristics: &[(&'static str, Tally)]) -> String {
    let mut xml = Xml::at(0);
    let kinds = [
        ("definitely_lost", totals.definite),
        ("indirectly_lost", totals.indirect),
        ("possibly_lost", totals.possible),
        ("still_reachable", totals.reachable),
    ];
    xml.element("leak_summary", |xml| {
        for (name, sum) in kinds {
            xml.element(name, |xml| tally(xml, sum));
        }
        for (name, sum) in heuristics.iter().filter(|(_, sum)| sum.blocks > 0) {
            xml.element("reachable_heuristic", |xml| {
                xml.leaf("kind", name);
                tally(xml, *sum);
            });
        }
        xml.element("suppressed", |xml| tally(xml, totals.suppressed));
    });
    xml.line("");
    xml.out
}

/// Protocol 6: nothing was in use.
pub fn all_freed() -> String {
    format!("<all_heap_blocks_freed>{}</all_heap_blocks_freed>\n\n", super::summary::ALL_FREED)
}

/// Protocol 6: the last line of the text.
pub fn error_summary(totals: ErrorTotals) -> String {
    let mut xml = Xml::at(0);
    xml.element("error_summary", |xml| {
        xml.leaf("errors", &totals.errors.to_string());
        xml.leaf("error_contexts", &totals.contexts.to_string());
        xml.leaf("suppressed", &totals.suppressed.to_string());
        xml.leaf("suppressed_contexts", &totals.suppressed_contexts.to_string());
    });
    xml.line("");
    xml.out
}

pub const DOCUMENT_END: &str = "</valgrindoutput>\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Block, BlockState};
    use crate::error::{ErrorKind, LeakKind};
    use crate::frame::testing::{frame, library_frame};
    use crate::leak::LossRecord;
    use crate::suppress::generate::generate;

    fn style(protocol: u8) -> XmlStyle {
        XmlStyle { protocol, compat: true, frames: FrameStyle::default(), user_comment: None, qualifiers: Vec::new() }
    }

    #[test]
    fn an_error_element_is_exact() {
        let alloc = Stack(vec![library_frame(0x48417b4, "malloc", "/lib/heap.so")]);
        let block = Block { start: 0x4a40040, size: 10, state: BlockState::Live, allocated: Some(alloc), freed: None };
        let stack = Stack(vec![frame(0x1091bd, "f<int>", "a.c", 8)]);
        let record =
            ErrorRecord::invalid_write(1, 2, stack).with_thread_name(Some("worker".into())).with_aux(Address::Block(block).aux(0x4a4004a));
        let rule = generate(&record.kind, &record.stack, false);
        let expected = "<error>
  <unique>0x1f</unique>
  <tid>2</tid>
  <threadname>worker</threadname>
  <kind>InvalidWrite</kind>
  <what>Invalid write of size 1</what>
  <stack>
    <frame>
      <ip>0x1091BD</ip>
      <obj>/bin/prog</obj>
      <fn>f&lt;int&gt;</fn>
      <dir>/src</dir>
      <file>a.c</file>
      <line>8</line>
    </frame>
  </stack>
  <auxwhat>Address 0x4a4004a is 0 bytes after a block of size 10 alloc'd</auxwhat>
  <stack>
    <frame>
      <ip>0x48417B4</ip>
      <obj>/lib/heap.so</obj>
      <fn>malloc</fn>
    </frame>
  </stack>
  <suppression>
    <sname>insert_a_suppression_name_here</sname>
    <skind>Memcheck:Addr1</skind>
    <sframe> <fun>f&lt;int&gt;</fun> </sframe>
    <rawtext>
<![CDATA[
{
   <insert_a_suppression_name_here>
   Memcheck:Addr1
   fun:f<int>
}
]]>
    </rawtext>
  </suppression>
</error>

";
        assert_eq!(error(&record, 0x1f, Some(&rule), &style(4)), expected);
    }

    #[test]
    fn leaks_carry_their_numbers() {
        let loss = LossRecord { kind: LeakKind::Definite, direct: Tally::new(4, 1), indirect_bytes: 0, change: None, addresses: vec![] };
        let text = error(&loss.finding(1, 2, Stack::default()), 2, None, &style(4));
        assert!(text.contains("  <kind>Leak_DefinitelyLost</kind>\n  <xwhat>\n    <text>4 bytes in 1 blocks are definitely lost in loss record 1 of 2</text>\n    <leakedbytes>4</leakedbytes>\n    <leakedblocks>1</leakedblocks>\n  </xwhat>\n  <stack>\n  </stack>\n"), "{text}");
    }

    #[test]
    fn protocol_four_has_a_closed_list_of_kinds() {
        const LIST: [&str; 15] = [
            "InvalidRead",
            "InvalidWrite",
            "InvalidJump",
            "InvalidFree",
            "MismatchedFree",
            "Overlap",
            "SyscallParam",
            "ClientCheck",
            "UninitCondition",
            "UninitValue",
            "Leak_DefinitelyLost",
            "Leak_IndirectlyLost",
            "Leak_PossiblyLost",
            "Leak_StillReachable",
            "InvalidMemPool",
        ];
        let newer = [
            ErrorKind::Fishy { function: "f".into(), argument: "a".into() },
            ErrorKind::ReallocZero,
            ErrorKind::BadAlign,
            ErrorKind::CoreMem,
            ErrorKind::Mempool,
        ];
        for kind in newer {
            assert!(LIST.contains(&kind.facts().xml4), "{kind:?}");
        }
        let fishy = ErrorRecord::fishy("malloc", "size", u64::MAX, 1, Stack::default());
        assert!(error(&fishy, 0, None, &style(6)).contains("<kind>FishyValue</kind>"));
        assert!(error(&fishy, 0, None, &style(4)).contains("<kind>ClientCheck</kind>"));
    }

    #[test]
    fn frames_name_an_object_and_the_directory_as_the_compiler_knew_it() {
        let mut xml = Xml::at(0);
        let relative = frame(1, "write", "write.c", 26).with(|line| (line.dir, line.object) = (Some("./io".into()), None));
        frame_children(&mut xml, &relative, &FrameStyle::default());
        assert_eq!(xml.out, "<ip>0x1</ip>\n<obj>???</obj>\n<fn>write</fn>\n<dir>./io</dir>\n<file>write.c</file>\n<line>26</line>\n");
    }

    #[test]
    fn the_head_of_the_document() {
        let start = ProcessStart {
            pid: 7,
            parent: 6,
            command: vec!["./x".into(), "b c".into()],
            tool_command: vec!["/bin/valgrind".into(), "--xml=yes".into()],
        };
        let commented = XmlStyle { user_comment: Some("<a>hi</a>".into()), qualifiers: vec![("V".into(), "1".into())], ..style(4) };
        let text = document_start(&start, &commented, Duration::from_millis(121));
        assert!(text.starts_with("<?xml version=\"1.0\"?>\n\n<valgrindoutput>\n\n<protocolversion>4</protocolversion>\n<protocoltool>memcheck</protocoltool>\n\n<preamble>\n  <line>Memcheck, a memory error detector</line>\n"), "{text}");
        assert!(text.ends_with("<pid>7</pid>\n<ppid>6</ppid>\n<tool>memcheck</tool>\n<logfilequalifier> <var>V</var> <value>1</value> </logfilequalifier>\n<usercomment><a>hi</a></usercomment>\n\n<args>\n  <vargv>\n    <exe>/bin/valgrind</exe>\n    <arg>--xml=yes</arg>\n  </vargv>\n  <argv>\n    <exe>./x</exe>\n    <arg>b c</arg>\n  </argv>\n</args>\n\n<status>\n  <state>RUNNING</state>\n  <time>00:00:00:00.121 </time>\n</status>\n\n"), "{text}");
    }

    #[test]
    fn nothing_illegal_gets_through() {
        assert_eq!(escape("a\u{1b}<&>\n"), "a?&lt;&amp;&gt;\n");
    }
}
