//! Names in two grades, so that findings that nobody sees do not cost what finding names costs.
//!
//! Symbol tables are read in a moment; debug information has to be inflated and indexed, which takes longer than many programs run. A loss
//! record that is hidden by its kind needs no names at all, and one that is compared with suppressions mostly needs the symbols alone.
//!
//! | grade   | function, object | inlined functions                                                    | file, line |
//! |---------|------------------|----------------------------------------------------------------------|------------|
//! | outline | of every frame   | before a frame that may have some: one frame with the object, no name | none       |
//! | full    | of every frame   | all                                                                  | all        |

use crate::frame::Stack;

/// Who can name the addresses of a stack. (Addresses and no frames: a search has thousands of stacks with thirty of them each.)
pub trait Names {
    fn outline(&mut self, addresses: &[u64]) -> Stack;
    fn full(&mut self, addresses: &[u64]) -> Stack;
}

/// A stack whose names are found when somebody asks, once.
pub struct Unnamed<'a> {
    addresses: &'a [u64],
    names: &'a mut dyn Names,
    outline: Option<Stack>,
    full: Option<Stack>,
}

impl<'a> Unnamed<'a> {
    pub fn new(addresses: &'a [u64], names: &'a mut dyn Names) -> Self {
        Unnamed { addresses, names, outline: None, full: None }
    }

    pub fn outline(&mut self) -> &Stack {
        self.outline.get_or_insert_with(|| self.names.outline(self.addresses))
    }

    pub fn full(&mut self) -> &Stack {
        self.full.get_or_insert_with(|| self.names.full(self.addresses))
    }

    pub fn into_full(mut self) -> Stack {
        self.full.take().unwrap_or_else(|| self.names.full(self.addresses))
    }
}
