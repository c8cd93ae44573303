//! What the proof needs: the processor itself ([`native`]), every instruction form ([`forms`]), random states ([`states`], from [`random`])
//! and their comparison ([`differences`]).
pub mod differences;
pub mod forms;
pub mod native;
pub mod random;
pub mod states;
