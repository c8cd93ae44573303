//! Numbers as Valgrind prints them: thousands commas in sizes and offsets, none in error counts.

/// `1234567` as `1,234,567`.
pub fn commas(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A change since the previous leak check, always with its sign: `+1,024`, `-20`, `+0`.
pub fn signed_commas(value: i64) -> String {
    let sign = if value < 0 { '-' } else { '+' };
    format!("{sign}{}", commas(value.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_before_every_third_digit_from_the_right() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (u64::MAX, "18,446,744,073,709,551,615")] {
            assert_eq!(commas(value), text);
        }
    }

    #[test]
    fn deltas_always_carry_a_sign() {
        for (value, text) in [(0, "+0"), (-20, "-20"), (1234, "+1,234"), (i64::MIN, "-9,223,372,036,854,775,808")] {
            assert_eq!(signed_commas(value), text);
        }
    }
}
