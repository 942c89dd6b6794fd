//! Whole programs that show one way to use Halfmoon each; what they have in common is the shop.
//!
//! | module | owns |
//! |---|---|
//! | [`shop`] | the services of a shop: orders, stock, payments, and the books that must balance |
//! | [`one_process`] | all of them in one process, beside the coordinator |
//! | [`split_services`] | each in processes of its own, over HTTP and `halfmoon server`, killed in the middle |
//! | [`split_sharded`] | the same, and every service's data in several databases |
//! | [`process`] | what every example's process has |

pub mod one_process;
pub mod process;
pub mod shop;
pub mod split_services;
pub mod split_sharded;
