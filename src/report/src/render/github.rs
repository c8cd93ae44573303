//! Annotations for GitHub workflows: one `::error` or `::warning` line per finding, at the user's own source line.
//!
//! Only about ten annotations of a level are shown per step, so leaks that are not definite are warnings, to leave the errors
//! their room. Text and properties are escaped differently; see the constants.

use super::place::Placer;
use crate::error::{ErrorKind, ErrorRecord, LeakKind};

const IN_TEXT: &[(&str, &str)] = &[("%", "%25"), ("\r", "%0D"), ("\n", "%0A")];
const IN_PROPERTY: &[(&str, &str)] = &[("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")];

fn escape(text: &str, table: &[(&str, &str)]) -> String {
    table.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

pub fn error(record: &ErrorRecord, placer: &Placer) -> String {
    let level = match record.kind {
        ErrorKind::Leak(kind) if kind != LeakKind::Definite => "warning",
        _ => "error",
    };
    let place = placer.place(&record.stack);
    let mut properties = Vec::new();
    if let Some(place) = &place {
        properties.push(format!("file={}", escape(&place.path, IN_PROPERTY)));
        properties.push(format!("line={}", place.line));
        properties.extend(place.column.map(|column| format!("col={column}")));
    }
    let function = place.as_ref().and_then(|place| place.function.as_deref());
    let title = function.map_or(record.rule().to_string(), |function| format!("{} in {function}", record.rule()));
    properties.push(format!("title={}", escape(&title, IN_PROPERTY)));
    let mut text = record.what.clone();
    for aux in &record.aux {
        text.push('\n');
        text.push_str(&aux.text);
        if let Some(at) = aux.stack.as_ref().and_then(|stack| placer.place(stack)) {
            text.push_str(&format!(" ({}:{})", at.path, at.line));
        }
    }
    text.push_str(&format!("\nid {}", &placer.fingerprint(record)[..8]));
    format!("::{level} {}::{}\n", properties.join(","), escape(&text, IN_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Aux, Moment};
    use crate::frame::Stack;
    use crate::frame::testing::frame;

    #[test]
    fn one_line_with_everything_escaped() {
        let record = ErrorRecord::invalid_write(4, 1, Stack(vec![frame(1, "S::f", "a,b.c", 14)])).with_aux([Aux::event(
            "100% here",
            Moment::Created,
            Stack(vec![frame(2, "g", "t.c", 7)]),
        )]);
        let placer = Placer { root: Some("/src".into()) };
        let id = &placer.fingerprint(&record)[..8];
        assert_eq!(
            error(&record, &placer),
            format!(
                "::error file=a%2Cb.c,line=14,title=invalid-write in S%3A%3Af::Invalid write of size 4%0A100%25 here (t.c:7)%0Aid {id}\n"
            )
        );
    }

    #[test]
    fn only_definite_leaks_are_errors() {
        let leak = |kind| ErrorRecord::new(ErrorKind::Leak(kind), "lost", 1, Stack::default());
        assert!(error(&leak(LeakKind::Definite), &Placer::default()).starts_with("::error title=leak-definite::lost"));
        assert!(error(&leak(LeakKind::Possible), &Placer::default()).starts_with("::warning "));
    }
}
