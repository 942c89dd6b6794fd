//! What is fed: everything that reads bytes which somebody else has written. Beside not panicking, what was read and can be
//! written again must be read again as the same.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use halfmoon::settings::{Given, Program, Settings};
use mq_core::wire::command::{Command, Dialect};
use mq_core::wire::properties::{self, Properties};
use mq_core::wire::record::{RecordView, set_store_host};
use mq_core::wire::{batch, binary_header, frame, heartbeat, json_header};

/// A reader of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads the bytes; panics if they uncover a mistake.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "frame",
        run: frames,
    },
    Target {
        name: "json_header",
        run: json,
    },
    Target {
        name: "binary_header",
        run: binary,
    },
    Target {
        name: "stored_record",
        run: stored_record,
    },
    Target {
        name: "properties",
        run: pairs,
    },
    Target {
        name: "batch",
        run: messages,
    },
    Target {
        name: "heartbeat",
        run: heart_beat,
    },
    Target {
        name: "settings",
        run: settings,
    },
];

fn frames(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut before = buffer.len();
    while let Ok(Some(command)) = frame::take(&mut buffer) {
        assert!(buffer.len() + 8 <= before, "a frame has at least 8 bytes");
        before = buffer.len();
        again(&command);
    }
    assert!(buffer.len() <= before);
    let _ = frame::wanted(&buffer);
}

fn json(bytes: &[u8]) {
    if let Ok(command) = json_header::decode(bytes) {
        again(&command);
    }
}

fn binary(bytes: &[u8]) {
    if let Ok(command) = binary_header::decode(bytes) {
        again(&command);
    }
}

fn again(command: &Command) {
    let mut bytes = BytesMut::from(&frame::encoded(command)[..]);
    if bytes.len() > frame::HEADER_MAX_BYTES {
        return;
    }
    let mut expected = command.clone();
    let name_max = usize::from(i16::MAX.cast_unsigned());
    if command.dialect == Dialect::Json {
        // Numbers without a name become OTHER; numbers above are those of the names.
        if command.language.0 > 13 {
            return;
        }
    } else if command.fields.iter().any(|(name, _)| name.len() > name_max) {
        return;
    }
    expected.body = Bytes::copy_from_slice(&command.body);
    assert_eq!(frame::take(&mut bytes), Ok(Some(expected)));
    assert!(bytes.is_empty());
}

fn stored_record(bytes: &[u8]) {
    let Ok(view) = RecordView::parse(bytes) else {
        return;
    };
    let _ = view.check_body();
    let _ = view.keys().count();
    let mut copy = bytes.get(..view.size).unwrap_or(bytes).to_vec();
    set_store_host(&mut copy, view.store_host);
    let seen = RecordView::parse(&copy).map(|again| (again.store_host, again.position));
    assert_eq!(seen, Ok((view.store_host, view.position)));
}

fn pairs(bytes: &[u8]) {
    let all = Properties(bytes);
    let count = all.iter().count();
    for (name, _) in all.iter() {
        let _ = all.get(name);
    }
    let kept = properties::retain(all, |_| true);
    assert_eq!(Properties(&kept).iter().count(), count);
}

fn messages(bytes: &[u8]) {
    if let Ok(messages) = batch::decode(Bytes::copy_from_slice(bytes)) {
        let read: usize = messages.iter().map(|message| message.body.len()).sum();
        assert!(read <= bytes.len());
    }
}

fn heart_beat(bytes: &[u8]) {
    let _ = heartbeat::Heartbeat::parse(bytes);
}

/// A configuration file, as each of the three programs would read it.
fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (name, of) in [
        ("broker.conf", Program::Broker),
        ("namesrv.conf", Program::Nameserver),
        ("halfmoon.toml", Program::Broker),
    ] {
        let mut given = Given::default();
        let decided = given
            .text(Path::new(name), &text, of)
            .and_then(|_| Settings::decide(&given));
        if let Err(error) = decided {
            let told = error.line().unwrap_or_default();
            assert!(!told.contains('\n') && told.len() < 4096, "{told:?}");
        }
    }
}
