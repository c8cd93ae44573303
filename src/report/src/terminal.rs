//! What people at a terminal get beyond the text: colours, and the source of what is reported.
//!
//! A log that a program reads stays as Valgrind writes it. So both are for a standard error that is a terminal, unless the options
//! say otherwise; under a name that promises Valgrind's own output only on request. Colours also heed `NO_COLOR`, `TERM` and their kin.

use std::io::{IsTerminal, stderr};

use owo_colors::{OwoColorize, Stream};

use crate::options::{Options, When};
use crate::render::paint::Painter;
use crate::sink::Destination;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    pub painter: Painter,
    pub details: bool,
}

impl Terminal {
    /// As these options want it, for the standard error of this process.
    pub fn of(options: &Options) -> Self {
        Terminal::with(options, stderr().is_terminal(), takes_colours)
    }

    fn with(options: &Options, is_terminal: bool, takes_colours: fn() -> bool) -> Self {
        let is_watched = is_terminal && options.log == Destination::Stderr && !options.compat;
        Terminal {
            painter: Painter { on: decide(options.color, || is_watched && takes_colours()) },
            details: decide(options.details, || is_watched && !options.is_quiet()),
        }
    }
}

fn decide(when: When, auto: impl FnOnce() -> bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => auto(),
    }
}

/// Does a coloured text for standard error come out coloured?
fn takes_colours() -> bool {
    "x".if_supports_color(Stream::Stderr, |text| text.red()).to_string() != "x"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_for_programs_stay_plain() {
        let decided = |change: fn(&mut Options), is_terminal| {
            let mut options = Options::default();
            change(&mut options);
            let terminal = Terminal::with(&options, is_terminal, || true);
            (terminal.painter.on, terminal.details)
        };
        assert_eq!(decided(|_| {}, true), (true, true));
        assert_eq!(decided(|_| {}, false), (false, false));
        assert_eq!(decided(|options| options.compat = true, true), (false, false));
        assert_eq!(decided(|options| options.log = Destination::Descriptor(3), true), (false, false));
        assert_eq!(decided(|options| options.verbosity = 0, true), (true, false));
        assert_eq!(decided(|options| (options.color, options.details) = (When::Always, When::Always), false), (true, true));
        assert_eq!(decided(|options| (options.color, options.details) = (When::Never, When::Never), true), (false, false));
    }
}
