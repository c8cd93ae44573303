//! Sizes of DWARF types, and the words for a byte inside a variable: `a[2].next`.
//!
//! Types refer to each other freely, in damaged files in circles, so every walk has a limit of steps. An entry with a signature stands
//! for a type with a unit of its own.

use std::fmt::Write;

use gimli::{AttributeValue, UnitOffset, UnitRef};

use crate::demangle::text;
use crate::dwarf::{Bytes, Dwarf, Entry};

type Unit<'a> = UnitRef<'a, Bytes>;

/// More links than any real type has between a variable and its last member.
const MOST_STEPS: usize = 64;

/// Bytes of a type.
pub(crate) fn size(dwarf: &Dwarf, unit: Unit<'_>, reference: AttributeValue<Bytes>) -> Option<u64> {
    size_limited(dwarf, unit, reference, MOST_STEPS)
}

/// Append to `path` what selects the byte `offset` of a value of this type, as far in as there are names. Returns the
/// offset within the part that was named.
pub(crate) fn select(dwarf: &Dwarf, unit: Unit<'_>, reference: AttributeValue<Bytes>, offset: u64, path: &mut String) -> u64 {
    select_limited(dwarf, unit, reference, offset, path, MOST_STEPS).unwrap_or(offset)
}

fn size_limited(dwarf: &Dwarf, unit: Unit<'_>, reference: AttributeValue<Bytes>, left: usize) -> Option<u64> {
    let left = left.checked_sub(1)?;
    dwarf.resolve(unit, reference, &mut |unit, at| {
        let entry = unit.unit.entry(at).ok()?;
        if let Some(elsewhere) = entry.attr_value(gimli::DW_AT_signature) {
            return size_limited(dwarf, unit, elsewhere, left);
        }
        if let Some(size) = number(&entry, gimli::DW_AT_byte_size) {
            return Some(size);
        }
        let inner = entry.attr_value(gimli::DW_AT_type);
        match entry.tag() {
            gimli::DW_TAG_array_type => {
                let element = size_limited(dwarf, unit, inner?, left)?;
                dimensions(unit, at).into_iter().try_fold(element, u64::checked_mul)
            }
            gimli::DW_TAG_pointer_type | gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => Some(8),
            _ => size_limited(dwarf, unit, inner?, left),
        }
    })
}

fn select_limited(
    dwarf: &Dwarf,
    unit: Unit<'_>,
    reference: AttributeValue<Bytes>,
    offset: u64,
    path: &mut String,
    left: usize,
) -> Option<u64> {
    let left = left.checked_sub(1)?;
    dwarf.resolve(unit, reference, &mut |unit, at| {
        let entry = unit.unit.entry(at).ok()?;
        if let Some(elsewhere) = entry.attr_value(gimli::DW_AT_signature) {
            return select_limited(dwarf, unit, elsewhere, offset, path, left);
        }
        let inner = entry.attr_value(gimli::DW_AT_type);
        match entry.tag() {
            gimli::DW_TAG_array_type => {
                let element = size_limited(dwarf, unit, inner?, left)?;
                let rest = index(unit, at, offset, element, path)?;
                select_limited(dwarf, unit, inner?, rest, path, left).or(Some(rest))
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type => {
                let (name, start, member) = member_at(dwarf, unit, at, offset, left)?;
                if !name.is_empty() {
                    path.push('.');
                    path.push_str(&name);
                }
                let rest = offset - start;
                select_limited(dwarf, unit, member, rest, path, left).or(Some(rest))
            }
            gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => select_limited(dwarf, unit, inner?, offset, path, left),
            _ => None,
        }
    })
}

/// Append `[i][j]` for the element that `offset` lies in; returns the offset within it.
fn index(unit: Unit<'_>, array: UnitOffset, offset: u64, element: u64, path: &mut String) -> Option<u64> {
    let mut stride = element;
    let mut indices = Vec::new();
    for count in dimensions(unit, array).into_iter().rev() {
        indices.push((offset.checked_div(stride)?).checked_rem(count)?);
        stride = stride.checked_mul(count)?;
    }
    for index in indices.iter().rev() {
        let _ = write!(path, "[{index}]");
    }
    offset.checked_rem(element)
}

/// Number of elements of every dimension of an array; 0 where it is not fixed.
fn dimensions(unit: Unit<'_>, array: UnitOffset) -> Vec<u64> {
    const MOST_DIMENSIONS: usize = 32;
    let mut found = Vec::new();
    for_each_child(unit, array, &mut |entry| {
        if entry.tag() == gimli::DW_TAG_subrange_type {
            let last = || number(entry, gimli::DW_AT_upper_bound)?.checked_add(1);
            found.push(number(entry, gimli::DW_AT_count).or_else(last).unwrap_or(0));
        }
        found.len() < MOST_DIMENSIONS
    });
    found
}

/// Name, start and type of the member that covers `offset`; the name of a base class is empty.
fn member_at(dwarf: &Dwarf, unit: Unit<'_>, class: UnitOffset, offset: u64, left: usize) -> Option<(String, u64, AttributeValue<Bytes>)> {
    let mut found = None;
    for_each_child(unit, class, &mut |entry| {
        if !matches!(entry.tag(), gimli::DW_TAG_member | gimli::DW_TAG_inheritance) {
            return true;
        }
        // Unions leave the location out. Static members have none either, but are marked.
        let start = number(entry, gimli::DW_AT_data_member_location).unwrap_or(0);
        let is_static = entry.attr_value(gimli::DW_AT_external).is_some();
        let Some(kind) = entry.attr_value(gimli::DW_AT_type).filter(|_| !is_static && start <= offset) else {
            return true;
        };
        if size_limited(dwarf, unit, kind, left).is_some_and(|size| offset - start < size) {
            found = Some((name(unit, entry).unwrap_or_default(), start, kind));
        }
        found.is_none()
    });
    found
}

/// Call `visit` with the direct children of an entry until it returns false.
fn for_each_child(unit: Unit<'_>, parent: UnitOffset, visit: &mut dyn FnMut(&Entry) -> bool) {
    let Ok(mut tree) = unit.unit.entries_tree(Some(parent)) else {
        return;
    };
    let Ok(root) = tree.root() else { return };
    let mut children = root.children();
    while let Ok(Some(child)) = children.next() {
        if !visit(child.entry()) {
            return;
        }
    }
}

/// DW_AT_name.
pub(crate) fn name(unit: Unit<'_>, entry: &Entry) -> Option<String> {
    let value = unit.attr_string(entry.attr_value(gimli::DW_AT_name)?).ok()?;
    Some(text(value.slice()).into_owned())
}

/// A constant attribute.
pub(crate) fn number(entry: &Entry, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr_value(attribute)?.udata_value()
}
