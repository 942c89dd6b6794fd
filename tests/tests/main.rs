//! The whole system from outside. The list of modules is the table of contents; `tests/run NAME` runs one.

mod check_back;
mod clients;
mod contract;
mod crash;
mod documents;
mod features;
mod fuzz;
mod guides;
mod judged;
mod one_history;
mod planted;
mod power;
mod quickstart;
mod readme;
mod rust_client;
mod shop;
mod simulation;
mod split;
mod stock_kills;
mod tidy;
