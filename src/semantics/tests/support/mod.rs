//! What the proof needs: the processor itself ([`native`]), every instruction form ([`forms`]) and random states ([`random`]).
pub mod forms;
pub mod native;
pub mod random;
