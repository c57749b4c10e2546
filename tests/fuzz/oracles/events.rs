//! An event stream: wherever its chunks end, the same events come out, and no byte is lost.

use patgate::mcp::sse::{self, Events};

/// The first byte says how large the chunks are.
pub fn check(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    // a byte-order mark belongs to the beginning of a stream; within one it may go either way
    if stream.windows(3).skip(1).any(|bytes| bytes == "\u{feff}".as_bytes()) {
        return;
    }
    let (whole, at_once) = split(stream, stream.len().max(1));
    let (pieces, in_chunks) = split(stream, usize::from(*size).max(1));
    assert_eq!(whole, stream, "bytes were lost or made up");
    assert_eq!(pieces, stream, "bytes were lost or made up");
    assert_eq!(at_once, in_chunks, "the events depend on the chunks");
}

/// Everything that came out, and the data of each event.
fn split(stream: &[u8], size: usize) -> (Vec<u8>, Vec<String>) {
    let (mut events, mut bytes, mut found) = (Events::default(), Vec::new(), Vec::new());
    for chunk in stream.chunks(size) {
        events.push(chunk);
        while let Some(event) = events.next_event() {
            bytes.extend_from_slice(&event);
            if let Some(data) = sse::data(&event) {
                let again = sse::with_data(&event, &data);
                assert_eq!(sse::data(&again), Some(data.clone()), "data changes when it is written again");
                found.push(data.into_owned());
            }
        }
    }
    bytes.extend_from_slice(&events.rest());
    (bytes, found)
}
