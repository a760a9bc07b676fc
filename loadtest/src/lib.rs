//! Loads for Roomgate: [`bench`] measures servers that it starts itself, [`attack`] plays users against servers that
//! run, [`bare`] is the yardstick of the first; [`chaos`] breaks servers that it starts itself and judges what their
//! clients saw.

pub mod attack;
pub mod bare;
pub mod bars;
pub mod bench;
pub mod calibrate;
pub mod chaos;
pub mod client;
pub mod cpu;
pub mod failure;
pub mod process;
pub mod report;
pub mod scenarios;
