//! The relay's frames as a client and a relay read them: any bytes, in pieces of any size. The first byte of the input
//! sets the size of the pieces. However they come, the frames are the same, and what is put again is read again.
#![no_main]

use bytes::BytesMut;
use labctl_ssh_proxy::hold::frames::{Decoder, Frame, Violation};
use libfuzzer_sys::fuzz_target;

fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<Violation>) {
    let (mut decoder, mut input, mut all) = (Decoder::default(), BytesMut::new(), Vec::<Frame>::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(frame)) => match (all.last_mut(), &frame) {
                    (Some(Frame::Data(before)), Frame::Data(more)) => *before = [&before[..], more].concat().into(),
                    _ => all.push(frame),
                },
                Err(violation) => return (all, Some(violation)),
            }
        }
    }
    (all, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let (mut frames, violation) = decoded(std::iter::once(bytes));
    assert_eq!(decoded(bytes.chunks(usize::from(*piece) + 1)), (frames.clone(), violation));
    for frame in &mut frames {
        if let Frame::End { words, .. } = frame {
            // They are cut and cleaned where they are read, so that they are not the same when they come again.
            assert!(words.chars().count() <= 200);
            words.clear();
        }
    }
    let mut again = BytesMut::new();
    for frame in &frames {
        // Neighbouring pieces of data were joined, and may be too long for one frame.
        match frame {
            Frame::Data(data) => data.chunks(60_000).for_each(|data| Frame::Data(data.to_vec().into()).put(&mut again)),
            frame => frame.put(&mut again),
        }
    }
    assert_eq!(decoded(std::iter::once(&again[..])), (frames, None));
});
