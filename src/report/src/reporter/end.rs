//! The end of a process's report: descriptors, heap, leaks, sums, lists.
//!
//! Sections come in this order and each is optional; which lines a section has depends on verbosity, format and what was found.
//! A leak search that the program asks for in the middle of a run prints through the same functions.

use super::Reporter;
use crate::dedup::Context;
use crate::error::{ErrorKind, LeakKind};
use crate::leak::{self, LeakSearch, LeakTotals, LeaksBefore, LossRecord, Tally};
use crate::names::{Names, Unnamed};
use crate::options::{LeakCheck, ReportFormat, TrackFds};
use crate::render::descriptors::{self, OpenDescriptor};
use crate::render::paint::Tone;
use crate::render::text::{self, Burst};
use crate::render::xtree::leaks::Loss;
use crate::render::{HeapSummary, json, sarif, summary, xml};
use crate::sink::Sink;

/// A record among those of a search: its number from 0, how many there are, the first that is listed.
#[derive(Clone, Copy)]
struct Turn {
    index: usize,
    count: usize,
    first: usize,
}

impl Reporter {
    /// Descriptors that are open at exit, for `--track-fds`; the most recently opened first. Or in the midst of the run.
    pub fn open_descriptors(&mut self, open: &[OpenDescriptor], at_exit: bool) {
        let tracked = self.options().track_fds;
        if !matches!(tracked, TrackFds::Yes | TrackFds::All) || self.silent {
            return;
        }
        let open: Vec<OpenDescriptor> =
            open.iter().map(|one| OpenDescriptor { opened: one.opened.clone().map(|stack| self.kept(stack)), ..one.clone() }).collect();
        let mut burst = self.burst();
        if at_exit && self.is_text() && !self.options().is_quiet() {
            burst.user("");
            self.ending = true;
        }
        burst.users(descriptors::section(&open, tracked == TrackFds::All, if at_exit { "at exit" } else { "" }, &self.options().frames));
        self.write(&burst);
    }

    /// The heap at exit. Answers whether a leak search should follow.
    pub fn heap_summary(&mut self, heap: &HeapSummary) -> bool {
        let searches = self.options().leak_check != LeakCheck::No;
        let is_empty = heap.in_use.blocks == 0;
        if !self.silent {
            self.write_heap_summary(heap, searches);
        }
        searches && !is_empty
    }

    fn write_heap_summary(&mut self, heap: &HeapSummary, searches: bool) {
        if let Some(document) = &self.outputs.xml {
            let mut text = String::new();
            if document.owner == self.start.pid {
                text.push_str(&xml::status("FINISHED", self.run.elapsed()));
            }
            if document.style.protocol >= 6 {
                text.push_str(&xml::heap_summary(heap));
                text.push_str(&if heap.in_use.blocks == 0 { xml::all_freed() } else { String::new() });
            }
            document.sink.write(&text);
        } else if !self.options().is_quiet() {
            let mut burst = self.burst();
            if !self.ending {
                burst.user("");
            }
            burst.users(summary::heap(heap));
            burst.user("");
            if !searches {
                burst.users([summary::RERUN_FOR_ANALYSIS, ""]);
            } else if heap.in_use.blocks == 0 {
                burst.toned(Some(Tone::Fine), summary::ALL_FREED);
                burst.user("");
            }
            self.write(&burst);
        }
        for report in self.outputs.reports.iter().filter(|report| report.format == ReportFormat::Json) {
            report.sink.write(&json::heap_summary(self.start.pid, heap));
        }
    }

    /// The result of a leak search: records, then sums. Gives the sums after suppression. `names` knows the names that their stacks lack.
    pub fn leaks(&mut self, mut search: LeakSearch, names: &mut dyn Names) -> LeakTotals {
        leak::sort(&mut search.records);
        let mut totals = LeakTotals::default();
        let count = search.records.len();
        self.write_extent(&search);
        // Who is asked must see what about.
        let destinations = [Some(&self.outputs.log), self.outputs.xml.as_ref().map(|document| &document.sink)];
        let gathering: Vec<_> = destinations.into_iter().flatten().filter(|_| !self.asks).map(Sink::gather).collect();
        let mut tree = search.tree.then(Vec::new);
        let first = self.first_listed(&search);
        for (index, loss) in search.records.iter().enumerate() {
            self.loss(loss, Turn { index, count, first }, &search, names, &mut totals, &mut tree);
        }
        drop(gathering);
        if let Some(losses) = tree {
            self.leak_tree(losses, search.by_command);
        }
        if !self.silent {
            self.write_leak_summary(&search, &totals);
        }
        self.leaks_before = LeaksBefore { totals, heuristics: search.heuristics };
        totals
    }

    /// The first record that is listed when a search lists so many at most.
    fn first_listed(&self, search: &LeakSearch) -> usize {
        let Some(most) = search.most else { return 0 };
        let kinds = self.options().show_leak_kinds;
        let shown = search.records.iter().enumerate().rev().filter(|(_, loss)| kinds.contains(loss.kind) && loss.passes(search.delta));
        shown.take(most).last().map_or(search.records.len(), |(index, _)| index)
    }

    /// The sums of the last leak search.
    pub fn last_leaks(&self) -> LeakTotals {
        self.leaks_before.totals
    }

    /// Under `-v`: how much was searched.
    fn write_extent(&self, search: &LeakSearch) {
        let Some(bytes) = search.searched_bytes.filter(|_| self.is_text() && self.options().verbosity > 1) else {
            return;
        };
        let blocks = search.records.iter().map(|loss| loss.direct.blocks).sum();
        self.message(&summary::extent(blocks, bytes));
    }

    /// `tree`: where the record goes instead of being shown.
    fn loss(
        &mut self,
        loss: &LossRecord,
        turn: Turn,
        search: &LeakSearch,
        names: &mut dyn Names,
        totals: &mut LeakTotals,
        tree: &mut Option<Vec<Loss>>,
    ) {
        let kind = ErrorKind::Leak(loss.kind);
        let kept: Vec<u64> = self.kept_addresses(&loss.addresses).collect();
        let mut stack = Unnamed::new(&kept, names);
        let listed = search.full && loss.passes(search.delta);
        let counts = listed && self.options().errors_for_leak_kinds.contains(loss.kind);
        let hidden_by = if loss.direct.blocks > 0 { self.rules.find_unnamed(&kind, &mut stack) } else { None };
        if counts {
            self.ledger.count_leak(hidden_by.is_some());
        }
        if let Some(rule) = hidden_by {
            let all = Tally { bytes: loss.direct.bytes + loss.indirect_bytes, ..loss.direct };
            self.rules.count_leak(rule, all);
            totals.suppressed.add(loss.direct);
            return;
        }
        totals.of(loss.kind).add(loss.direct);
        if listed && let Some(tree) = tree {
            let LossRecord { kind, direct, indirect_bytes, change, .. } = *loss;
            tree.push(Loss { kind, direct, indirect_bytes, change, stack: stack.into_full() });
        } else if listed && turn.index >= turn.first && self.options().show_leak_kinds.contains(loss.kind) {
            let unique = self.run.unique();
            let mut record = loss.finding(turn.index + 1, turn.count, stack.into_full());
            record.thread = search.thread.max(1);
            self.show(&record, unique);
        }
    }

    fn write_leak_summary(&self, search: &LeakSearch, totals: &LeakTotals) {
        for report in self.outputs.reports.iter().filter(|report| report.format == ReportFormat::Json) {
            report.sink.write(&json::leak_summary(self.start.pid, totals));
        }
        if let Some(document) = &self.outputs.xml {
            if document.style.protocol >= 6 {
                document.sink.write(&xml::leak_summary(totals, &search.heuristics));
            }
            return;
        }
        if self.options().is_quiet() {
            return;
        }
        let mut burst = self.burst();
        if search.records.iter().all(|loss| loss.direct.blocks == 0) {
            burst.users([summary::ALL_FREED, ""]);
            return self.write(&burst);
        }
        let before = search.delta.map(|_| &self.leaks_before);
        burst.users(summary::leaks(totals, &search.heuristics, before));
        if !search.full && totals.any() {
            burst.user(if search.by_command { summary::ASK_FOR_DETAILS } else { summary::RERUN_FOR_DETAILS });
        }
        let shows_reachable = self.options().show_leak_kinds.contains(LeakKind::Reachable);
        if search.full && totals.reachable.blocks > 0 && !shows_reachable {
            burst.user(summary::REACHABLE_HIDDEN);
            burst.user(if search.by_command { summary::ASK_FOR_THEM } else { summary::RERUN_FOR_THEM });
        }
        burst.user("");
        self.write(&burst);
    }

    /// Findings so far and how many of them were shown.
    pub fn found(&self) -> (u64, u64) {
        let totals = self.ledger.totals();
        (totals.errors, totals.contexts)
    }

    /// The sums so far, and what is behind them if the user wants lists.
    pub fn show_errors(&mut self) {
        let listed: Vec<_> = self.ledger.listed().into_iter().cloned().collect();
        let mut burst = self.burst();
        burst.user(&text::error_summary(self.ledger.totals()));
        if self.options().show_error_list || self.options().verbosity > 1 {
            self.write_lists(&mut burst, &listed);
        }
        self.write(&burst);
    }

    pub fn show_last_error(&mut self) {
        let Some(record) = self.ledger.last_shown().cloned() else { return self.message(&["No errors yet"]) };
        let mut burst = self.burst();
        self.finding(&mut burst, &record);
        self.write(&burst);
    }

    /// Lines to be said before the sums.
    pub fn warn_at_end(&mut self, lines: Vec<String>) {
        self.warnings.extend(lines);
    }

    /// The end of this process's report. Nothing is printed twice if it is called twice.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if !self.silent {
            self.write_end();
        }
        // Other processes may still write into it; the last one closes it.
        self.outputs.xml = None;
    }

    fn write_end(&mut self) {
        let totals = self.ledger.totals();
        let listed: Vec<_> = self.ledger.listed().into_iter().cloned().collect();
        for report in self.outputs.reports.iter().filter(|report| report.format == ReportFormat::Json) {
            let counts = listed.iter().map(|context| (context.unique, context.count));
            report.sink.write(&json::finish(self.start.pid, totals, counts));
        }
        let own = || listed.iter().filter(|context| context.unique >= self.first_own);
        self.collect(|| own().map(|c| sarif::Finding { record: c.record.clone(), count: c.count }).collect());
        if self.outputs.xml.is_some() {
            self.write_xml_end();
        } else {
            self.write_text_end(&listed);
        }
    }

    fn write_xml_end(&self) {
        let Some(document) = self.outputs.xml.as_ref().filter(|document| document.owner == self.start.pid) else {
            return;
        };
        // Most recent first, as the consumers are used to.
        let mut contexts = self.ledger.listed();
        contexts.sort_by_key(|context| std::cmp::Reverse(context.unique));
        let mut text = xml::error_counts(&contexts);
        text.push_str(&xml::suppression_counts(self.rules.used().map(|(rule, usage)| (usage.count, rule.name.as_str()))));
        if document.style.protocol >= 6 {
            text.push_str(&xml::error_summary(self.ledger.totals()));
        }
        document.sink.write(&text);
    }

    fn write_text_end(&mut self, listed: &[Context]) {
        let (quiet, verbosity) = (self.options().is_quiet(), self.options().verbosity);
        let lists = self.options().show_error_list || verbosity > 1;
        let mut burst = self.burst();
        if !quiet && !self.options().track_origins && self.ledger.any_definedness() {
            burst.user(summary::TRACK_ORIGINS);
        }
        burst.users(&self.warnings);
        burst.users(self.details(|teller| teller.contents(listed)));
        if verbosity == 1 && !lists {
            burst.user(summary::RERUN_FOR_LISTS);
        }
        let totals = self.ledger.totals();
        if !quiet || lists {
            burst.toned(text::verdict(totals), &text::error_summary(totals));
        }
        if lists {
            self.write_lists(&mut burst, listed);
        }
        if self.options().show_unused_suppressions {
            self.rules.unused().for_each(|rule| burst.debug(&text::unused_suppression(rule)));
        }
        self.write(&burst);
    }

    fn write_lists(&mut self, burst: &mut Burst, listed: &[Context]) {
        let totals = self.ledger.totals();
        for (index, context) in listed.iter().enumerate() {
            burst.user("");
            burst.user(&text::context_header(context, index + 1, totals.contexts));
            self.finding(burst, &context.record);
        }
        let used: Vec<String> = self.rules.used().map(|(rule, usage)| text::used_suppression(rule, usage)).collect();
        if !used.is_empty() {
            burst.debug("");
            used.iter().for_each(|line| burst.debug(line));
            burst.user("");
        }
        if !listed.is_empty() || !used.is_empty() {
            burst.user(&text::error_summary(totals));
        }
    }
}
