//! SARIF 2.1.0: the document that code-scanning services read, written once at the end.
//!
//! Each finding is a result with its place, its *also* places as related locations, its stack, and a fingerprint that survives
//! edits elsewhere. Paths inside the source root are relative to `SRCROOT`; others are absolute URIs.

use super::json::Json;
use super::place::{Place, Placer};
use crate::error::{ErrorKind, ErrorRecord, LeakKind};
use crate::frame::Stack;
use crate::rules;

/// What belongs in one result.
#[derive(Clone, Debug)]
pub struct Finding {
    pub record: ErrorRecord,
    pub count: u64,
}

/// The whole document. `command` is how the program was called.
pub fn document(findings: &[Finding], command: &str, placer: &Placer) -> String {
    let mut rules: Vec<&'static str> = findings.iter().map(|finding| finding.record.rule()).collect();
    rules.sort_unstable();
    rules.dedup();
    let results = findings.iter().map(|finding| result(finding, &rules, placer)).collect();
    let driver = Json::Object(vec![
        ("name", Json::text("memcheck")),
        ("semanticVersion", Json::text(env!("CARGO_PKG_VERSION"))),
        ("rules", Json::List(rules.iter().map(|rule| description(rule)).collect())),
    ]);
    let root = placer.root.as_ref().map(|root| {
        let uri = format!("file://{}/", uri(root.to_string_lossy().trim_end_matches('/')));
        Json::Object(vec![("SRCROOT", Json::Object(vec![("uri", Json::text(uri))]))])
    });
    let invocation = Json::Object(vec![("executionSuccessful", Json::Bool(true)), ("commandLine", Json::text(command))]);
    let run = Json::Object(vec![
        ("tool", Json::Object(vec![("driver", driver)])),
        ("originalUriBaseIds", root.unwrap_or(Json::Null)),
        ("invocations", Json::List(vec![invocation])),
        ("results", Json::List(results)),
    ]);
    let document = Json::Object(vec![
        ("$schema", Json::text("https://json.schemastore.org/sarif-2.1.0.json")),
        ("version", Json::text("2.1.0")),
        ("runs", Json::List(vec![run])),
    ]);
    format!("{document}\n")
}

fn description(id: &str) -> Json {
    let mut members = vec![("id", Json::text(id))];
    if let Some(rule) = rules::find(id) {
        members.push(("shortDescription", message(rule.seen)));
        members.push(("help", message(&format!("Often: {}.\nNext: {}.", rule.causes, rule.next))));
    }
    Json::Object(members)
}

fn result(finding: &Finding, rules: &[&str], placer: &Placer) -> Json {
    let record = &finding.record;
    let rule = record.rule();
    let index = rules.iter().position(|known| *known == rule).unwrap_or(0);
    let level = match record.kind {
        ErrorKind::Leak(LeakKind::Reachable) => "note",
        ErrorKind::Leak(LeakKind::Possible | LeakKind::Indirect) => "warning",
        _ => "error",
    };
    let mut text = record.what.clone();
    record.aux.iter().for_each(|aux| text.push_str(&format!("\n{}", aux.text)));
    let place = placer.place(&record.stack);
    let related = record.aux.iter().filter_map(|aux| {
        let place = placer.place(aux.stack.as_ref()?)?;
        Some(vec![("message", message(&aux.text)), ("physicalLocation", physical(&place))])
    });
    let related = related.enumerate().map(|(index, mut members)| {
        members.insert(0, ("id", Json::number(index as u64 + 1)));
        Json::Object(members)
    });
    Json::Object(vec![
        ("ruleId", Json::text(rule)),
        ("ruleIndex", Json::number(index as u64)),
        ("level", Json::text(level)),
        ("message", message(&text)),
        ("locations", Json::List(place.iter().map(|place| Json::Object(vec![("physicalLocation", physical(place))])).collect())),
        ("relatedLocations", Json::List(related.collect())),
        ("stacks", Json::List(vec![stack(&record.stack, placer)])),
        ("partialFingerprints", Json::Object(vec![("memcheckStack/v1", Json::text(placer.fingerprint(record)))])),
        ("occurrenceCount", Json::number(finding.count)),
    ])
}

fn message(text: &str) -> Json {
    Json::Object(vec![("text", Json::text(text))])
}

fn physical(place: &Place) -> Json {
    let artifact = if place.is_relative {
        vec![("uri", Json::text(uri(&place.path))), ("uriBaseId", Json::text("SRCROOT"))]
    } else {
        vec![("uri", Json::text(format!("file://{}", uri(&place.path))))]
    };
    let region = vec![("startLine", Json::number(place.line)), ("startColumn", Json::option(place.column, Json::number))];
    Json::Object(vec![("artifactLocation", Json::Object(artifact)), ("region", Json::Object(region))])
}

fn stack(stack: &Stack, placer: &Placer) -> Json {
    let frames = stack.0.iter().map(|frame| {
        let place = placer.place(&Stack(vec![frame.clone()]));
        let name = frame.function.as_deref().or(frame.raw_name.as_deref()).unwrap_or("???");
        let location = Json::Object(vec![("physicalLocation", Json::option(place.as_ref(), physical)), ("message", message(name))]);
        Json::Object(vec![("location", location)])
    });
    Json::Object(vec![("frames", Json::List(frames.collect()))])
}

/// Percent-encoding of a path: everything that is not plainly allowed.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::frame;

    #[test]
    fn rules_are_described_where_they_are_known() {
        let seen = rules::find("realloc-zero").expect("a rule").seen;
        let known = description("realloc-zero").to_string();
        assert!(
            known.starts_with(&format!(
                "{{\"id\":\"realloc-zero\",\"shortDescription\":{{\"text\":\"{seen}\"}},\"help\":{{\"text\":\"Often: "
            )),
            "{known}"
        );
        assert_eq!(description("other").to_string(), "{\"id\":\"other\"}");
    }

    #[test]
    fn a_document_with_one_result() {
        let record = ErrorRecord::invalid_write(4, 1, Stack(vec![frame(1, "fill", "a b.c", 14)]));
        let placer = Placer { root: Some("/src".into()) };
        let print = placer.fingerprint(&record);
        let text = document(&[Finding { record, count: 7 }], "./prog a", &placer);
        let physical = "{\"artifactLocation\":{\"uri\":\"a%20b.c\",\"uriBaseId\":\"SRCROOT\"},\"region\":{\"startLine\":14}}";
        let rule = description("invalid-write");
        assert_eq!(
            text,
            format!(
                "{{\"$schema\":\"https://json.schemastore.org/sarif-2.1.0.json\",\"version\":\"2.1.0\",\"runs\":[{{\
             \"tool\":{{\"driver\":{{\"name\":\"memcheck\",\"semanticVersion\":\"{version}\",\"rules\":[{rule}]}}}},\
             \"originalUriBaseIds\":{{\"SRCROOT\":{{\"uri\":\"file:///src/\"}}}},\
             \"invocations\":[{{\"executionSuccessful\":true,\"commandLine\":\"./prog a\"}}],\
             \"results\":[{{\"ruleId\":\"invalid-write\",\"ruleIndex\":0,\"level\":\"error\",\"message\":{{\"text\":\"Invalid write of size 4\"}},\
             \"locations\":[{{\"physicalLocation\":{physical}}}],\"relatedLocations\":[],\
             \"stacks\":[{{\"frames\":[{{\"location\":{{\"physicalLocation\":{physical},\"message\":{{\"text\":\"fill\"}}}}}}]}}],\
             \"partialFingerprints\":{{\"memcheckStack/v1\":\"{print}\"}},\"occurrenceCount\":7}}]}}]}}\n",
                version = env!("CARGO_PKG_VERSION")
            )
        );
    }
}
