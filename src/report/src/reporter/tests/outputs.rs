//! Files, documents and reports of one or several processes.

use super::*;

/// A fresh directory of this test process.
fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("memcheck-reporter-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary directory");
    dir
}

fn xml_probe(dir: &std::path::Path) -> Probe {
    probe(&format!("--xml=yes --xml-file={}/x.xml", dir.display()))
}

/// Opening and closing tags in balance, one root.
fn is_complete(document: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = document.strip_prefix("<?xml version=\"1.0\"?>").unwrap_or("");
    while let Some((_, after)) = rest.split_once('<') {
        let Some((tag, next)) = after.split_once('>') else {
            return false;
        };
        if let Some(closing) = tag.strip_prefix('/') {
            if open.pop() != Some(closing) {
                return false;
            }
        } else if !tag.starts_with('!') {
            open.push(tag);
        }
        rest = next;
    }
    open.is_empty() && document.trim_end().ends_with("</valgrindoutput>")
}

#[test]
fn an_xml_document_is_complete_and_ends_with_the_last_process() {
    let dir = scratch("complete");
    let mut probe = xml_probe(&dir);
    let read = || std::fs::read_to_string(dir.join("x.xml")).expect("written");
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    let mut child = probe.reporter.fork(8);
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]), &mut Known);
    probe.reporter.finish();
    assert!(!is_complete(&read()), "the child may still report");
    child.error(ErrorRecord::invalid_free(1, at(2)));
    child.heap_summary(&HEAP);
    child.finish();
    let document = read();
    assert!(is_complete(&document), "{document}");
    let mut uniques: Vec<_> = document.lines().filter(|line| line.starts_with("  <unique>")).collect();
    uniques.sort_unstable();
    uniques.dedup();
    assert_eq!(uniques.len(), 3, "two findings and a leak: {uniques:?}");
    let position = |text: &str| document.find(text).unwrap_or_else(|| panic!("{text} in {document}"));
    let order = ["RUNNING", "<kind>InvalidFree", "FINISHED", "Leak_DefinitelyLost", "<errorcounts>", "<suppcounts>"].map(position);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(document.matches("FINISHED").count(), 1);
    assert_eq!(probe.printed(), "", "findings are not in the log too");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn an_xml_document_is_complete_even_if_the_run_is_cut_short() {
    let dir = scratch("cut");
    let mut probe = xml_probe(&dir);
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.run.close();
    probe.run.close();
    assert!(is_complete(&std::fs::read_to_string(dir.join("x.xml")).expect("written")));
    drop(probe);
    assert!(is_complete(&std::fs::read_to_string(dir.join("x.xml")).expect("written")), "one end tag only");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn reports_beside_the_log() {
    let dir = scratch("reports");
    let mut probe = probe(&format!("--report=json:{0}/r.json --report=sarif:{0}/r.sarif --report=github:{0}/r.txt", dir.display()));
    probe.reporter.error(ErrorRecord::invalid_free(1, at(1)));
    probe.reporter.repeat(&ErrorKind::InvalidFree, &[1]);
    probe.reporter.heap_summary(&HEAP);
    probe.reporter.leaks(search(true, vec![loss(LeakKind::Definite, 5, 0, "malloc")]), &mut Known);
    probe.reporter.fork(8).finish(); // has found nothing itself
    probe.reporter.finish();
    probe.run.close();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("written");
    let events: Vec<_> = read("r.json")
        .lines()
        .filter(|line| line.contains("\"pid\":7,"))
        .map(|line| line.split('"').nth(3).unwrap_or("").to_string())
        .collect();
    assert_eq!(events, ["start", "error", "heap_summary", "error", "leak_summary", "finish"]);
    assert!(read("r.json").contains("\"counts\":[{\"id\":0,\"count\":2}]"));
    assert_eq!(read("r.txt").matches("::error ").count(), 2);
    assert!(read("r.sarif").contains("\"ruleId\":\"leak-definite\"") && read("r.sarif").contains("\"occurrenceCount\":2"));
    assert_eq!(read("r.sarif").matches("\"occurrenceCount\"").count(), 2, "nothing is there twice");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn rules_that_cannot_be_read_end_the_run() {
    let dir = scratch("rules");
    let (log, rules) = (dir.join("log"), dir.join("bad.supp"));
    std::fs::write(&rules, "{\n n\n Memcheck:Foo\n fun:a\n}\n").expect("written");
    let fatal = |file: &str| {
        let run = output(&format!("-q --log-file={} --suppressions={file}", log.display()));
        let error = run.process(7, 6, vec!["./p".into()]).err().expect("no rules, no run");
        (error.exit_code, std::fs::read_to_string(&log).expect("log"))
    };
    let bad = rules.display().to_string();
    assert_eq!(
        fatal(&bad),
        (
            1,
            format!(
                "==7== FATAL: in suppressions file \"{bad}\" near line 3:\n==7==    unknown tool suppression type\n==7== exiting now.\n"
            )
        )
    );
    assert_eq!(fatal("/nonexistent/x"), (1, "==7== FATAL: can't open suppressions file \"/nonexistent/x\"\n".to_string()));
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn every_process_may_have_its_own_file() {
    let dir = scratch("own");
    let run = output(&format!("--default-suppressions=no --log-file={}/%p", dir.display()));
    let parent = run.process(7, 6, vec!["./p".into()]).expect("starts");
    let mut child = parent.fork(8);
    child.error(ErrorRecord::invalid_free(1, at(1)));
    let text = std::fs::read_to_string(dir.join("8")).expect("own file");
    assert!(text.contains("==8== Command: ./p\n==8== Parent PID: 7\n==8== \n==8== Invalid free()"), "{text}");
    assert!(!std::fs::read_to_string(dir.join("7")).expect("file").contains("==8=="));
    std::fs::remove_dir_all(dir).expect("clean up");
}
