//! Variables by address, from DWARF: "the byte is inside `list.items[3]`, declared at f.c:7".
//!
//! The symbol table only knows globals, and only by name. This is what `--read-var-info=yes` adds: locals and
//! parameters of a frame, and the element or member of anything. It reads whole units, so it is asked for only where a
//! report can use it; nothing here is needed for stacks.
//!
//! Absent: variables in registers (they have no address), and values that another frame would have to be unwound for.

use gimli::{AttributeValue, EvaluationResult, Expression, Location, UnitRef};

use crate::demangle::{escape, text};
use crate::dwarf::{Bytes, Dwarf, Entry};
use crate::types;

/// A variable that an address lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// The name with what selects the byte: `table[2].next`; just the name if nothing does.
    pub path: String,
    /// Of the address asked for, in bytes from the start of what `path` names.
    pub offset: u64,
    /// Bytes of the whole variable.
    pub size: u64,
    /// Where it is declared; base name.
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// Return address and saved frame pointer, bytes.
const FRAME_POINTER_BELOW_CFA: u64 = 16;

type Unit<'a> = UnitRef<'a, Bytes>;

/// The local or parameter of the function at `pc` (ELF address) that covers `addr` (run-time address). The innermost
/// scope wins. `cfa`: the canonical frame address, which is the stack pointer before the call.
pub(crate) fn local(dwarf: &Dwarf, pc: u64, cfa: u64, addr: u64) -> Option<Variable> {
    dwarf.with_unit(pc, |unit| {
        let mut entries = unit.unit.entries();
        let mut found = None;
        // Entries deeper than this belong to a scope that pc is not in.
        let mut skip_below = isize::MAX;
        let mut frame_base = None;
        while let Ok(Some(entry)) = entries.next_dfs() {
            if entry.depth() > skip_below {
                continue;
            }
            skip_below = isize::MAX;
            match entry.tag() {
                gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine | gimli::DW_TAG_lexical_block => {
                    if !covers(unit, entry, pc) {
                        skip_below = entry.depth();
                    } else if entry.tag() == gimli::DW_TAG_subprogram {
                        let base = entry.attr_value(gimli::DW_AT_frame_base);
                        let place = Place { dwarf, unit, pc, cfa: Some(cfa), frame_base: None };
                        frame_base = base.and_then(|base| place.evaluate(base, true));
                    }
                }
                gimli::DW_TAG_variable | gimli::DW_TAG_formal_parameter => {
                    let place = Place { dwarf, unit, pc, cfa: Some(cfa), frame_base };
                    found = place.variable_at(entry, addr).or(found);
                }
                _ => {}
            }
        }
        found
    })
}

/// The global or static variable that covers `vaddr` (ELF address).
pub(crate) fn global(dwarf: &Dwarf, vaddr: u64) -> Option<Variable> {
    let mut headers = dwarf.sections.units();
    while let Ok(Some(header)) = headers.next() {
        let Ok(unit) = dwarf.sections.unit(header) else {
            continue;
        };
        let unit = UnitRef::new(&dwarf.sections, &unit);
        // pc 0 is in no list and no frame is given, so only fixed addresses evaluate.
        let place = Place { dwarf, unit, pc: 0, cfa: None, frame_base: None };
        let mut entries = unit.unit.entries();
        while let Ok(Some(entry)) = entries.next_dfs() {
            if entry.tag() == gimli::DW_TAG_variable
                && let Some(found) = place.variable_at(entry, vaddr)
            {
                return Some(found);
            }
        }
    }
    None
}

/// Scopes without ranges (inlined code that vanished) cover nothing.
fn covers(unit: Unit<'_>, entry: &Entry, pc: u64) -> bool {
    let Ok(mut ranges) = unit.die_ranges(entry) else {
        return false;
    };
    while let Ok(Some(range)) = ranges.next() {
        if range.begin <= pc && pc < range.end {
            return true;
        }
    }
    false
}

/// Where expressions are evaluated.
struct Place<'a> {
    dwarf: &'a Dwarf,
    unit: Unit<'a>,
    pc: u64,
    cfa: Option<u64>,
    frame_base: Option<u64>,
}

impl Place<'_> {
    /// The variable of `entry`, if it has an address now and covers `addr`.
    fn variable_at(&self, entry: &Entry, addr: u64) -> Option<Variable> {
        let start = self.evaluate(entry.attr_value(gimli::DW_AT_location)?, false)?;
        let offset = addr.checked_sub(start)?;
        let mut facts = Facts::default();
        self.dwarf.follow(self.unit, entry.offset(), &mut |unit, entry| facts.add(self.dwarf, unit, entry, offset));
        let name = facts.name?;
        let size = facts.size.filter(|&size| offset < size)?;
        let (selector, offset) = facts.selected.unwrap_or((String::new(), offset));
        Some(Variable {
            path: escape(&format!("{name}{selector}")).into_owned(),
            name: escape(&name).into_owned(),
            offset,
            size,
            file: facts.file.map(|file| escape(&file).into_owned()),
            line: facts.line,
        })
    }

    /// Address that a location attribute (expression or list) gives. A variable in a register has none, nor has one that is found by a
    /// register; but a function whose frame base is the frame pointer, as clang has it, has saved the caller's right below its return address
    /// and let it point there.
    fn evaluate(&self, location: AttributeValue<Bytes>, is_frame_base: bool) -> Option<u64> {
        if let Some(expression) = location.exprloc_value() {
            return self.run(expression, is_frame_base);
        }
        let mut list = self.dwarf.locations(self.unit, location)?;
        while let Ok(Some(entry)) = list.next() {
            if entry.range.begin <= self.pc && self.pc < entry.range.end {
                return self.run(entry.data, is_frame_base);
            }
        }
        None
    }

    fn run(&self, expression: Expression<Bytes>, is_frame_base: bool) -> Option<u64> {
        const MOST_OPERATIONS: u32 = 1000;
        let mut machine = expression.evaluation(self.unit.encoding());
        machine.set_max_iterations(MOST_OPERATIONS);
        let mut state = machine.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresCallFrameCfa => machine.resume_with_call_frame_cfa(self.cfa?).ok()?,
                EvaluationResult::RequiresFrameBase => machine.resume_with_frame_base(self.frame_base?).ok()?,
                // The file's own addresses are what is wanted, for globals.
                EvaluationResult::RequiresRelocatedAddress(address) => machine.resume_with_relocated_address(address).ok()?,
                EvaluationResult::RequiresIndexedAddress { index, .. } => {
                    machine.resume_with_indexed_address(self.unit.address(index).ok()?).ok()?
                }
                _ => return None,
            };
        }
        match machine.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                Location::Register { register: gimli::X86_64::RBP } if is_frame_base => {
                    Some(self.cfa?.wrapping_sub(FRAME_POINTER_BELOW_CFA))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// What the entries of one variable (its instance, origin, specification) say together.
#[derive(Default)]
struct Facts {
    name: Option<String>,
    size: Option<u64>,
    selected: Option<(String, u64)>,
    file: Option<String>,
    line: Option<u32>,
}

impl Facts {
    /// Returns true while more is to be learnt.
    fn add(&mut self, dwarf: &Dwarf, unit: Unit<'_>, entry: &Entry, offset: u64) -> bool {
        if self.name.is_none() {
            self.name = types::name(unit, entry);
        }
        if let Some(kind) = entry.attr_value(gimli::DW_AT_type)
            && self.size.is_none()
        {
            self.size = types::size(dwarf, unit, kind);
            let mut selector = String::new();
            let rest = types::select(dwarf, unit, kind, offset, &mut selector);
            self.selected = Some((selector, rest));
        }
        if self.line.is_none() {
            let line = types::number(entry, gimli::DW_AT_decl_line);
            self.line = line.and_then(|line| u32::try_from(line).ok());
            self.file = declared_file(dwarf, unit, entry);
        }
        self.name.is_none() || self.size.is_none() || self.line.is_none()
    }
}

fn declared_file(dwarf: &Dwarf, unit: Unit<'_>, entry: &Entry) -> Option<String> {
    let AttributeValue::FileIndex(index) = entry.attr_value(gimli::DW_AT_decl_file)? else {
        return None;
    };
    let name_in = |unit: Unit<'_>| {
        let header = unit.unit.line_program.as_ref()?.header();
        let path = unit.attr_string(header.file(index)?.path_name()).ok()?;
        let path = text(path.slice()).into_owned();
        Some(path.rsplit('/').next().unwrap_or(&path).to_owned())
    };
    // The files of a split unit are listed by its skeleton.
    name_in(unit).or_else(|| dwarf.with_skeleton(unit.unit.dwo_id?, name_in))
}
