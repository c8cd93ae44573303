//! A block as a bar, with the bytes of an access marked in it or beside it.
//!
//! ```text
//! [##################################################]X  bytes 400 to 403 of 400; each sign is 8 bytes
//! [--------XXXXXXXX--------]                             bytes 8 to 15 of 24, freed
//! ```
//!
//! Each side of a boundary is rounded to whole signs by itself, so that a mark never stands on the wrong side of it. A bar says
//! nothing when the access is far away from a small block: then there is none.

use std::ops::Range;

use super::paint::{Painter, Tone};
use crate::error::Extent;
use crate::number::{commas, signed_commas};

/// Signs between the brackets, at most.
const SIGNS: u64 = 50;
/// The bar is not stretched beyond so many signs outside of the brackets.
const OUTSIDE: u64 = 16;

/// The bar and its words; `None`: a bar would not help.
pub fn bar(extent: &Extent, painter: Painter) -> Option<String> {
    let unit = extent.size.div_ceil(SIGNS).max(1).next_power_of_two();
    let access = extent.offset..extent.offset.checked_add_unsigned(extent.length.max(1))?;
    let size = i64::try_from(extent.size).ok()?;
    // On either side counted from the block away.
    let before = signs(-access.end.min(0)..-access.start.min(0), unit);
    let inside = signs(access.start.clamp(0, size)..access.end.clamp(0, size), unit);
    let after = signs(access.start.max(size) - size..access.end.max(size) - size, unit);
    if before.end.max(after.end) > OUTSIDE {
        return None;
    }
    let whole = extent.size.div_ceil(unit);
    let (sign, tone) = if extent.is_freed { ("-", Tone::Faint) } else { ("#", Tone::Fine) };
    let mark = |range: &Range<u64>| painter.paint(Tone::Wrong, &"X".repeat((range.end - range.start) as usize)).into_owned();
    let fill = |count: u64| painter.paint(tone, &sign.repeat(count as usize)).into_owned();
    let gap = |count: u64| ".".repeat(count as usize);
    let mut text = mark(&before) + &gap(before.start);
    text += &format!("[{}{}{}]", fill(inside.start), mark(&inside), fill(whole - inside.end));
    text += &(gap(after.start) + &mark(&after));
    Some(format!("{text}  {}", words(extent, &access, unit)))
}

/// The signs that bytes touch.
fn signs(bytes: Range<i64>, unit: u64) -> Range<u64> {
    let first = bytes.start as u64 / unit;
    first..if bytes.is_empty() { first } else { (bytes.end as u64).div_ceil(unit) }
}

fn words(extent: &Extent, access: &Range<i64>, unit: u64) -> String {
    let number = |value: i64| if value < 0 { signed_commas(value) } else { commas(value as u64) };
    let bytes = match extent.length {
        0 | 1 => format!("byte {}", number(access.start)),
        _ => format!("bytes {} to {}", number(access.start), number(access.end - 1)),
    };
    let freed = if extent.is_freed { ", freed" } else { "" };
    let scale = if unit > 1 { format!("; each sign is {unit} bytes") } else { String::new() };
    format!("{bytes} of {}{freed}{scale}", commas(extent.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(size: u64, offset: i64, length: u64, is_freed: bool) -> Option<String> {
        bar(&Extent { size, offset, length, is_freed }, Painter::default())
    }

    #[test]
    fn marks_stand_on_their_side_of_the_boundary() {
        let cases: &[(u64, i64, u64, bool, &str)] = &[
            (4, 4, 4, false, "[####]XXXX  bytes 4 to 7 of 4"),
            (4, 2, 4, false, "[##XX]XX  bytes 2 to 5 of 4"),
            (4, -1, 1, false, "X[####]  byte -1 of 4"),
            (4, -6, 4, false, "XXXX..[####]  bytes -6 to -3 of 4"),
            (4, -2, 4, false, "XX[XX##]  bytes -2 to 1 of 4"),
            (4, 6, 2, false, "[####]..XX  bytes 6 to 7 of 4"),
            (24, 8, 8, true, "[--------XXXXXXXX--------]  bytes 8 to 15 of 24, freed"),
            (0, 0, 1, false, "[]X  byte 0 of 0"),
            // 101 bytes are 26 signs of 4; the access touches the last and the first behind it.
            (101, 100, 4, false, "[#########################X]X  bytes 100 to 103 of 101; each sign is 4 bytes"),
        ];
        for &(size, offset, length, is_freed, expected) in cases {
            assert_eq!(drawn(size, offset, length, is_freed).as_deref(), Some(expected), "{size} {offset} {length}");
        }
    }

    #[test]
    fn bars_are_short_whatever_is_asked_for() {
        for size in [0, 1, 7, 49, 50, 51, 399, 400, 4096, 1_000_003, u32::MAX.into(), 1 << 62] {
            for offset in [-9, -1, 0, 1, 13, size as i64 - 1, size as i64, size as i64 + 5] {
                for length in [0, 1, 4, 64] {
                    let text = drawn(size, offset, length, false).unwrap_or_default();
                    let signs = text.split("  ").next().unwrap_or_default();
                    assert!(signs.len() <= (SIGNS + 2 * OUTSIDE + 2) as usize, "{text}");
                    assert!(text.is_empty() || signs.contains('X'), "{text}");
                }
            }
        }
        assert_eq!(drawn(4, 4000, 4, false), None);
        assert_eq!(drawn(4, -4000, 4, false), None);
        assert_eq!(drawn(u64::MAX, 0, 4, false), None);
        assert_eq!(drawn(4, i64::MAX, 4, false), None);
    }
}
