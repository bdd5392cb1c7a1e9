//! The binary: parse arguments, run, exit.

fn main() {}
