//! The guides in docs/, followed word for word: their files are written, their commands typed, and what they show must come.
//!
//! The word behind a block's language says what it is for: a file's name for its text, a terminal's name for what is typed
//! there or shown there. A block of `sh` without one runs to its end, and the folder it ends in is where the next begins.

mod page;
mod reader;

use reader::Reader;

#[test]
fn the_first_service_works_as_its_guide_says() {
    Reader::new().follow(include_str!("../../docs/first-service.md"));
}

#[test]
fn diesel_writes_the_marker_and_answers_as_its_guide_says() {
    Reader::new().follow(include_str!("../../docs/with-diesel.md"));
}

#[test]
fn an_outbox_is_left_behind_as_its_guide_says() {
    Reader::new().follow(include_str!("../../docs/from-an-outbox.md"));
}
