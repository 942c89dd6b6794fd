//! A whole shop in one process.

fn main() {}
