//! The shop of [`crate::split_services`] with the data of its services sharded over several databases.
//!
//! A marker stands in the database of the business rows that it speaks for. Each process announces the identities of all
//! its databases, a half message names one of them, and so a check-back finds the database that knows.

use crate::shop::databases::Layout;
use crate::split_services::Scene;

/// Orders by customer, payments by order, and stock in two warehouses.
pub const SPLIT_SHARDED: Scene = Scene {
    name: "split_sharded",
    about: "A shop whose services are processes of their own, with their data sharded over several databases",
    layout: Layout {
        orders: 4,
        payments: 3,
        stock: 2,
        tills: false,
    },
};
