//! One JSON object per line, as things happen, and a last one with the sums.
//!
//! ```text
//! {"event":"start","schema":1,"pid":7,…}   {"event":"error",…}   {"event":"fatal_signal",…}   {"event":"finish",…}
//! ```
//!
//! Fields are only ever added. Addresses are strings in hexadecimal, because JSON numbers are doubles. [`Json`] writes the
//! little JSON that this crate needs; nothing here reads any.

use super::place::Placer;
use super::{FatalSignal, HeapSummary, ProcessStart, signal};
use crate::dedup::ErrorTotals;
use crate::error::ErrorRecord;
use crate::frame::{Frame, Stack};
use crate::leak::{LeakTotals, Tally};

/// A JSON value under construction; text is escaped when it is put in.
#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Json>),
    /// Members in the order in which they are written.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    pub fn number(number: impl Into<i128>) -> Json {
        Json::Number(number.into())
    }

    pub fn hex(number: u64) -> Json {
        Json::Text(format!("0x{number:x}"))
    }

    pub fn option<T>(value: Option<T>, make: impl FnOnce(T) -> Json) -> Json {
        value.map_or(Json::Null, make)
    }

    fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => out.push_str(&number.to_string()),
            Json::Text(text) => quote(text, out),
            Json::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                let present = members.iter().filter(|(_, value)| !matches!(value, Json::Null));
                for (index, (name, value)) in present.enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// On one line; members that are null are left out.
impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn line(event: &'static str, pid: u32, mut members: Vec<(&'static str, Json)>) -> String {
    let mut all = vec![("event", Json::text(event)), ("pid", Json::number(pid))];
    all.append(&mut members);
    format!("{}\n", Json::Object(all))
}

pub fn start(start: &ProcessStart) -> String {
    let words = |words: &[String]| Json::List(words.iter().map(Json::text).collect());
    line(
        "start",
        start.pid,
        vec![
            ("schema", Json::number(1)),
            ("parent", Json::number(start.parent)),
            ("command", words(&start.command)),
            ("tool", Json::text(concat!("memcheck ", env!("CARGO_PKG_VERSION")))),
        ],
    )
}

/// A finding. How often it came is said at the end.
pub fn error(pid: u32, record: &ErrorRecord, unique: u64, placer: &Placer) -> String {
    let aux = record
        .aux
        .iter()
        .map(|aux| Json::Object(vec![("text", Json::text(&aux.text)), ("stack", Json::option(aux.stack.as_ref(), stack))]));
    let leak = record.leak.map(|leak| Json::Object(vec![("bytes", Json::number(leak.bytes)), ("blocks", Json::number(leak.blocks))]));
    line(
        "error",
        pid,
        vec![
            ("id", Json::number(unique)),
            ("rule", Json::text(record.rule())),
            ("kind", Json::text(record.kind.facts().xml6)),
            ("what", Json::text(&record.what)),
            ("thread", Json::number(record.thread)),
            ("thread_name", Json::option(record.thread_name.as_ref(), Json::text)),
            ("fingerprint", Json::text(placer.fingerprint(record))),
            ("stack", stack(&record.stack)),
            ("aux", Json::List(aux.collect())),
            ("leak", leak.unwrap_or(Json::Null)),
        ],
    )
}

fn stack(stack: &Stack) -> Json {
    Json::List(stack.0.iter().map(frame).collect())
}

fn frame(frame: &Frame) -> Json {
    Json::Object(vec![
        ("address", Json::hex(frame.addr)),
        ("function", Json::option(frame.function.as_deref(), Json::text)),
        ("symbol", Json::option(frame.raw_name.as_deref(), Json::text)),
        ("file", Json::option(frame.full_path(), Json::text)),
        ("line", Json::option(frame.line, Json::number)),
        ("column", Json::option(frame.column, Json::number)),
        ("object", Json::option(frame.object_text(), Json::text)),
        ("inlined", if frame.inlined { Json::Bool(true) } else { Json::Null }),
    ])
}

pub fn fatal_signal(pid: u32, fatal: &FatalSignal) -> String {
    let address = signal::has_address(fatal.signo, fatal.code).then(|| Json::hex(fatal.address));
    line(
        "fatal_signal",
        pid,
        vec![
            ("signal", Json::number(fatal.signo)),
            ("name", Json::text(signal::name(fatal.signo))),
            ("what", Json::option(signal::event(fatal.signo, fatal.code), Json::text)),
            ("address", address.unwrap_or(Json::Null)),
            ("thread", Json::number(fatal.thread)),
            ("stack", stack(&fatal.stack)),
        ],
    )
}

pub fn heap_summary(pid: u32, heap: &HeapSummary) -> String {
    line(
        "heap_summary",
        pid,
        vec![
            ("in_use", tally(heap.in_use)),
            ("allocs", Json::number(heap.allocs)),
            ("frees", Json::number(heap.frees)),
            ("allocated_bytes", Json::number(heap.allocated_bytes)),
        ],
    )
}

fn tally(tally: Tally) -> Json {
    Json::Object(vec![("bytes", Json::number(tally.bytes)), ("blocks", Json::number(tally.blocks))])
}

pub fn leak_summary(pid: u32, totals: &LeakTotals) -> String {
    line(
        "leak_summary",
        pid,
        vec![
            ("definite", tally(totals.definite)),
            ("indirect", tally(totals.indirect)),
            ("possible", tally(totals.possible)),
            ("reachable", tally(totals.reachable)),
            ("suppressed", tally(totals.suppressed)),
        ],
    )
}

/// The sums, and how often each finding occurred.
pub fn finish(pid: u32, totals: ErrorTotals, counts: impl Iterator<Item = (u64, u64)>) -> String {
    let counts = counts.map(|(id, count)| Json::Object(vec![("id", Json::number(id)), ("count", Json::number(count))]));
    line(
        "finish",
        pid,
        vec![
            ("errors", Json::number(totals.errors)),
            ("contexts", Json::number(totals.contexts)),
            ("suppressed", Json::number(totals.suppressed)),
            ("suppressed_contexts", Json::number(totals.suppressed_contexts)),
            ("counts", Json::List(counts.collect())),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::frame;

    #[test]
    fn text_is_escaped_and_nulls_vanish() {
        let value = Json::Object(vec![
            ("a", Json::text("q\"\\\n\u{1}é")),
            ("b", Json::Null),
            ("c", Json::List(vec![Json::Bool(true), Json::number(-1)])),
        ]);
        assert_eq!(value.to_string(), r#"{"a":"q\"\\\n\u0001é","c":[true,-1]}"#);
    }

    #[test]
    fn an_error_is_one_line() {
        let record = ErrorRecord::invalid_read(4, 1, Stack(vec![frame(0x10ab, "main", "a.c", 12)]));
        let placer = Placer::default();
        let print = placer.fingerprint(&record);
        assert_eq!(
            error(7, &record, 3, &placer),
            format!(
                "{{\"event\":\"error\",\"pid\":7,\"id\":3,\"rule\":\"invalid-read\",\"kind\":\"InvalidRead\",\"what\":\"Invalid read of size 4\",\
             \"thread\":1,\"fingerprint\":\"{print}\",\"stack\":[{{\"address\":\"0x10ab\",\"function\":\"main\",\"symbol\":\"main\",\
             \"file\":\"/src/a.c\",\"line\":12,\"object\":\"/bin/prog\"}}],\"aux\":[]}}\n"
            )
        );
    }
}
