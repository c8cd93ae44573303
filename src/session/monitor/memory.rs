//! Looking at memory and its shadow.
//!
//! ```text
//! xb 0x4a47060 10              what may be touched, and what of it is undefined, above the bytes
//!                  ff      ff      ff      ff      ff      ff      ff      ff
//! 0x4A47060:     0x00    0x00    0x00    0x00    0x00    0x00    0x00    0x00
//!                  __      __
//! 0x4A47068:     0x??    0x??
//! ```

use memcheck_abi::errand::{Errand, MOST_STATES, Task};

use super::words::{choose, range};
use super::{Step, Talk};
use crate::session::records;
use memcheck_report::error::Origin;

/// Bytes of a line of `xb`, of a group and a line of `get_vbits`.
const LINE: usize = 8;
const GROUP: usize = 4;
const GROUPS_LINE: usize = 32;

/// A byte: its undefined bits, or that the program may not touch it.
#[derive(Clone, Copy)]
struct State {
    undefined: u8,
    closed: bool,
}

impl State {
    fn text(self) -> String {
        if self.closed { "__".to_owned() } else { format!("{:02x}", self.undefined) }
    }
}

/// The states of the range that the words name, as soon as they are known.
fn states(talk: &mut Talk, words: &[&str]) -> Result<Result<(u64, Vec<State>), Step>, String> {
    let (addr, len) = range(words)?;
    let len = len.min(MOST_STATES);
    let Some([errand, ..]) = talk.done.as_deref() else { return Ok(Err(Step::Errands(vec![Errand::new(Task::States, addr, len)]))) };
    let bytes = talk.process.memory().values::<u8>(errand.result, 2 * len as usize);
    let (bits, closed) = bytes.split_at(bytes.len() / 2);
    Ok(Ok((addr, bits.iter().zip(closed).map(|(&undefined, closed)| State { undefined, closed: *closed != 0 }).collect())))
}

pub fn xb(talk: &mut Talk, words: &[&str]) -> Step {
    let found = states(talk, words).map(|found| {
        found.map_or_else(
            |step| step,
            |(addr, states)| {
                let mut bytes = vec![0; states.len()];
                talk.process.read_memory(addr, &mut bytes);
                table(addr, &states, &bytes).iter().for_each(|line| talk.say(line));
                unaddressable(talk, addr, &states)
            },
        )
    });
    talk.complain(found)
}

fn table(addr: u64, states: &[State], bytes: &[u8]) -> Vec<String> {
    if states.is_empty() {
        return vec![String::new(); 2];
    }
    let mut lines = Vec::new();
    for (row, (states, bytes)) in states.chunks(LINE).zip(bytes.chunks(LINE)).enumerate() {
        lines.push(format!("\t{}", states.iter().map(|state| format!("\t  {}", state.text())).collect::<String>()));
        let value = |(state, byte): (&State, &u8)| if state.closed { "\t0x??".to_owned() } else { format!("\t0x{byte:02x}") };
        let values: String = states.iter().zip(bytes).map(value).collect();
        lines.push(format!("0x{:X}:{values}", addr.wrapping_add((row * LINE) as u64)));
    }
    lines
}

fn unaddressable(talk: &Talk, addr: u64, states: &[State]) -> Step {
    let closed = states.iter().filter(|state| state.closed).count();
    if closed > 0 {
        talk.say(&format!("Address 0x{addr:X} len {} has {closed} bytes unaddressable", states.len()));
    }
    Step::Done
}

pub fn get_vbits(talk: &mut Talk, words: &[&str]) -> Step {
    let found = states(talk, words).map(|found| {
        found.map_or_else(
            |step| step,
            |(addr, states)| {
                groups(&states).iter().for_each(|line| talk.say(line));
                unaddressable(talk, addr, &states)
            },
        )
    });
    talk.complain(found)
}

fn groups(states: &[State]) -> Vec<String> {
    let group = |states: &[State]| states.iter().map(|state| state.text()).collect::<String>();
    let line = |states: &[State]| states.chunks(GROUP).map(group).collect::<Vec<_>>().join(" ");
    if states.is_empty() { vec![String::new()] } else { states.chunks(GROUPS_LINE).map(line).collect() }
}

/// A word and a range; both may be wrong.
fn choose_range<'a>(talk: &Talk, list: &'a str, word: &str, rest: &[&str]) -> Result<(&'a str, (u64, u64)), String> {
    let chosen = choose(list, word);
    if let (Err(complaint), Err(_)) = (&chosen, range(rest)) {
        talk.say(complaint);
    }
    let range = range(rest)?;
    Ok((chosen?, range))
}

/// How memory can be marked.
const MARKS: [(&str, Task); 4] = [
    ("noaccess", Task::Forbid),
    ("undefined", Task::MakeUndefined),
    ("defined", Task::MakeDefined),
    ("Definedifaddressable", Task::MakeDefinedIfAddressable),
];

pub fn make_memory(talk: &mut Talk, words: &[&str]) -> Step {
    if talk.done.is_some() {
        return Step::Done;
    }
    let (how, rest) = words.split_first().map_or(("", &[][..]), |(how, rest)| (*how, rest));
    let names = MARKS.map(|(name, _)| name).join(" ");
    let chosen = choose_range(talk, &names, how, rest);
    let step = chosen.map(|(how, (addr, len))| {
        let task = MARKS.iter().find(|(name, _)| *name == how).map_or(Task::Describe, |(_, task)| *task);
        Step::Errands(vec![Errand::new(task, addr, len)])
    });
    talk.complain(step)
}

pub fn check_memory(talk: &mut Talk, words: &[&str]) -> Step {
    let (what, rest) = words.split_first().map_or(("", &[][..]), |(what, rest)| (*what, rest));
    let chosen = choose_range(talk, "addressable defined", what, rest);
    let step = chosen.map(|(what, (addr, len))| {
        let Some(&[checked, described, ..]) = talk.done.as_deref() else {
            return Step::Errands(vec![Errand::new(Task::Check, addr, len), Errand::new(Task::Describe, addr, 0)]);
        };
        checked_memory(talk, what, &checked);
        talk.describe(&described);
        Step::Done
    });
    talk.complain(step)
}

fn checked_memory(talk: &mut Talk, what: &str, checked: &Errand) {
    const NONE: u64 = u64::MAX;
    let range = format!("Address 0x{:X} len {}", checked.addr, checked.len);
    let undefined = (what == "defined" && checked.other != NONE).then_some(checked.other);
    if let Some(at) = undefined {
        talk.say(&format!("{range} not defined:"));
        let origin = records::origin(checked.origin_kind).filter(|_| talk.watched.reporter.options().track_origins);
        talk.say(&format!("Uninitialised value at 0x{at:X}{}", origin.map_or("", Origin::created)));
        let stack = origin.and_then(|origin| talk.watched.origin_stack(talk.process, origin, checked.origin_stack));
        if let Some(stack) = stack {
            talk.watched.reporter.backtrace(stack);
        }
    } else if checked.result != NONE {
        talk.say(&format!("{range} not addressable:"));
        talk.say(&format!("bad address 0x{:X}", checked.result));
    } else {
        talk.say(&format!("{range} {what}"));
    }
}

/// `v.info location`.
pub fn location(talk: &mut Talk, words: &[&str]) -> Step {
    let step = range(words).map(|(addr, _)| match talk.done.as_deref() {
        Some(&[found, ..]) => {
            talk.describe(&found);
            Step::Done
        }
        _ => Step::Errands(vec![Errand::new(Task::Describe, addr, 0)]),
    });
    talk.complain(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(undefined: u8, closed: bool) -> State {
        State { undefined, closed }
    }

    #[test]
    fn tables() {
        let mut states = vec![state(0, false); 9];
        (states[1], states[8]) = (state(0x81, false), state(0xff, true));
        assert_eq!(
            table(0x1ff8, &states, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            [
                "\t\t  00\t  81\t  00\t  00\t  00\t  00\t  00\t  00",
                "0x1FF8:\t0x01\t0x02\t0x03\t0x04\t0x05\t0x06\t0x07\t0x08",
                "\t\t  __",
                "0x2000:\t0x??"
            ]
        );
        assert_eq!(groups(&states), ["00810000 00000000 __"]);
        assert_eq!(groups(&[state(0, false); 33]).iter().map(String::len).collect::<Vec<_>>(), [71, 2]);
    }
}
