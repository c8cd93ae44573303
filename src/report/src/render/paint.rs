//! Colours for a terminal.
//!
//! A [`Painter`] that is off gives every text back as it came, so each renderer is written once. Colours stand behind the prefix of
//! a line, never in front of it: what reads logs looks for `==`. Meanings are few ([`Tone`]), so that red is always the mistake itself.

use std::borrow::Cow;

use owo_colors::{OwoColorize, Style};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The mistake.
    Wrong,
    /// What may be one, or is its consequence.
    Doubtful,
    /// Nothing is wrong here.
    Fine,
    /// A place in the source.
    Place,
    /// Somebody else's code, and what only leads the eye.
    Faint,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Tone::Wrong => Style::new().red().bold(),
            Tone::Doubtful => Style::new().yellow().bold(),
            Tone::Fine => Style::new().green().bold(),
            Tone::Place => Style::new().cyan(),
            Tone::Faint => Style::new().dimmed(),
        }
    }
}

/// Puts colours on, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Painter {
    pub on: bool,
}

impl Painter {
    pub fn paint<'a>(self, tone: Tone, text: &'a str) -> Cow<'a, str> {
        if !self.on || text.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.style(tone.style()).to_string())
    }

    /// `text` with everything from `at` on in one tone.
    pub fn paint_from<'a>(self, at: usize, tone: Tone, text: &'a str) -> Cow<'a, str> {
        match text.split_at_checked(at) {
            Some((before, rest)) if self.on => Cow::Owned(format!("{before}{}", self.paint(tone, rest))),
            _ => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_if_they_are_on() {
        let (on, off) = (Painter { on: true }, Painter::default());
        assert_eq!(off.paint(Tone::Wrong, "x"), "x");
        assert_eq!(on.paint(Tone::Wrong, "x"), "\u{1b}[31;1mx\u{1b}[0m");
        assert_eq!(on.paint(Tone::Wrong, ""), "");
        assert_eq!(on.paint_from(2, Tone::Place, "f (a.c:1)"), "f \u{1b}[36m(a.c:1)\u{1b}[0m");
        assert_eq!(off.paint_from(2, Tone::Place, "f (a.c:1)"), "f (a.c:1)");
        assert_eq!(on.paint_from(9, Tone::Place, "f"), "f");
    }
}
