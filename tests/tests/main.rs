//! The whole system from outside. The list of modules is the table of contents; `tests/run NAME` runs one.

mod contract;
mod crash;
mod documents;
mod features;
mod fuzz;
mod judged;
mod readme;
mod shop;
mod tidy;
