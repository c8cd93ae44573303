//! Packets of gdb's remote protocol over a socket.
//!
//! ```text
//! $qSupported:…#37      the text between $ and #, then the sum of its bytes modulo 256 in base 16
//! +                     "arrived": both sides say so, until gdb asks for silence
//! }x                    in a packet: the next byte with bit 5 changed, for the bytes # $ } *
//! ```
//! Source: the appendix "Remote Serial Protocol" of gdb's manual.

use std::io::{self, ErrorKind, Read, Write};

const ESCAPE: u8 = b'}';
const CHANGED: u8 = 0x20;
/// Longest packet from gdb, bytes; we tell it so.
pub const LONGEST: usize = 0x4000;

/// One end of a conversation.
pub struct Line<S> {
    stream: S,
    /// Packets are confirmed.
    pub confirms: bool,
}

impl<S: Read + Write> Line<S> {
    pub fn new(stream: S) -> Self {
        Line { stream, confirms: true }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The next packet. What comes between packets (confirmations, the wish to interrupt a program that stands still) is dropped.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            while self.byte()? != b'$' {}
            let (mut packet, mut sum) = (Vec::new(), 0u8);
            loop {
                let byte = self.byte()?;
                if byte == b'#' {
                    break;
                }
                sum = sum.wrapping_add(byte);
                packet.push(byte);
                if packet.len() > LONGEST {
                    return Err(ErrorKind::InvalidData.into());
                }
            }
            let told = [self.byte()?, self.byte()?];
            let good = from_hex(&told).is_some_and(|told| told == [sum]);
            if self.confirms {
                self.stream.write_all(if good { b"+" } else { b"-" })?;
            }
            if good {
                return Ok(unescaped(&packet));
            }
        }
    }

    pub fn send(&mut self, text: &[u8]) -> io::Result<()> {
        let body = escaped(text);
        let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let packet = [b"$", &body[..], b"#", to_hex(&[sum]).as_bytes()].concat();
        self.stream.write_all(&packet)
    }
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let special = |byte: u8| matches!(byte, b'#' | b'$' | b'}' | b'*');
    text.iter().flat_map(|&byte| if special(byte) { vec![ESCAPE, byte ^ CHANGED] } else { vec![byte] }).collect()
}

fn unescaped(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.iter();
    let mut text = Vec::with_capacity(packet.len());
    while let Some(&byte) = bytes.next() {
        text.push(if byte == ESCAPE { bytes.next().map_or(ESCAPE, |next| next ^ CHANGED) } else { byte });
    }
    text
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gdb sends, and what it gets.
    struct Both(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Both {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0.read(out)
        }
    }

    impl Write for Both {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn packets() {
        let mut line = Line::new(Both(io::Cursor::new(b"+$g#67\x03$m1#00$a}\x03b#43".to_vec()), Vec::new()));
        assert_eq!(line.receive().expect("whole"), b"g");
        assert_eq!(line.receive().expect("after one with a wrong sum"), b"a#b");
        line.send(b"O}K").expect("memory");
        assert_eq!(String::from_utf8_lossy(&line.stream.1), "+-+$O}]K#74");
        assert!(line.receive().is_err(), "the end");
    }

    #[test]
    fn bytes_in_base_16() {
        assert_eq!(from_hex(b"00fF"), Some(vec![0, 255]));
        assert_eq!((from_hex(b"0"), from_hex(b"0g")), (None, None));
        assert_eq!(to_hex(&[0, 171]), "00ab");
    }
}
