//! Makes a guest's bytes safe for a terminal.
//!
//! A guest is not trusted: on an operator's terminal its bytes may colour text,
//! but never move the cursor, change the title, hide or reorder what was
//! written. What may not pass is shown as an escape, so nothing goes unseen.
//!
//! Passed: printable UTF-8, tab, line ends, and the colour sequences
//! `ESC [ … m` but for concealment. Everything else is shown as `\x1b` or
//! `\u{202e}`.
//!
//! Must not know: where the bytes come from or go to.
//!
//! ```
//! use logchain_core::escape::Escaper;
//!
//! let mut escaper = Escaper::default();
//! let mut safe = Vec::new();
//! // In any parts: here a colour is cut in the middle, and a title is set.
//! escaper.push(b"\x1b[3", &mut safe);
//! escaper.push(b"1mred\x1b]0;gotcha\x07", &mut safe);
//! escaper.finish(&mut safe);
//! assert_eq!(safe, b"\x1b[31mred\\x1b]0;gotcha\\x07\x1b[0m");
//! ```

use std::fmt::Write;

/// A colour sequence is short; what is longer is none.
const MAX_SEQUENCE: usize = 64;

/// Back to the terminal's own colours.
const RESET: &[u8] = b"\x1b[0m";

/// Escapes a stream given in any number of parts.
#[derive(Debug, Default)]
pub struct Escaper {
    /// The end of the last part, where it may be the beginning of something.
    carry: Vec<u8>,
    coloured: bool,
}

enum Unit {
    /// Pass so many bytes as they are.
    Pass(usize),
    /// Pass a colour sequence of so many bytes.
    Colour(usize),
    /// Show so many bytes as an escape.
    Show(usize),
    /// Cannot be told before more bytes come.
    Unfinished,
}

impl Escaper {
    /// The safe form of the next `bytes`, appended to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut all = std::mem::take(&mut self.carry);
        all.extend_from_slice(bytes);
        let rest = self.run(&all, false, out);
        self.carry = rest.to_vec();
    }

    /// The safe form of what is left, and the terminal's own colours again.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let all = std::mem::take(&mut self.carry);
        self.run(&all, true, out);
        if self.coloured {
            out.extend_from_slice(RESET);
        }
    }

    fn run<'a>(&mut self, mut rest: &'a [u8], last: bool, out: &mut Vec<u8>) -> &'a [u8] {
        while !rest.is_empty() {
            let plain = rest
                .iter()
                .take_while(|b| matches!(b, b' '..=b'~' | b'\n' | b'\t'))
                .count();
            let unit = if plain > 0 {
                Unit::Pass(plain)
            } else {
                unit(rest, last)
            };
            let (taken, left) = match unit {
                Unit::Unfinished => return rest,
                Unit::Pass(n) | Unit::Colour(n) | Unit::Show(n) => rest.split_at(n.min(rest.len())),
            };
            match unit {
                Unit::Pass(_) => out.extend_from_slice(taken),
                Unit::Colour(_) => {
                    self.coloured = true;
                    out.extend_from_slice(taken);
                }
                Unit::Show(_) | Unit::Unfinished => show(taken, out),
            }
            rest = left;
        }
        rest
    }
}

fn unit(rest: &[u8], last: bool) -> Unit {
    let unfinished = |unit| if last { unit } else { Unit::Unfinished };
    match rest {
        [b'\r', ..] => {
            // A serial console ends lines with CR LF, some with more than one CR.
            let returns = rest
                .iter()
                .take(MAX_SEQUENCE)
                .take_while(|b| **b == b'\r')
                .count();
            match rest.get(returns) {
                Some(b'\n') => Unit::Pass(returns + 1),
                None if returns < MAX_SEQUENCE => unfinished(Unit::Show(1)),
                _ => Unit::Show(1),
            }
        }
        [0x1b, b'[', parameters @ ..] => {
            let len = parameters
                .iter()
                .take(MAX_SEQUENCE)
                .take_while(|b| matches!(b, b'0'..=b'9' | b';' | b':'))
                .count();
            match parameters.get(len) {
                Some(b'm') if is_colour(parameters.get(..len).unwrap_or_default()) => {
                    Unit::Colour(len + 3)
                }
                None if len < MAX_SEQUENCE => unfinished(Unit::Show(1)),
                _ => Unit::Show(1),
            }
        }
        [0x1b] => unfinished(Unit::Show(1)),
        [0x80..=0xff, ..] => character(rest, last),
        _ => Unit::Show(1),
    }
}

/// Whether the parameters of `ESC [ … m` change nothing but how text looks.
/// 8 conceals it.
fn is_colour(parameters: &[u8]) -> bool {
    let mut fields = parameters.split(|b| matches!(b, b';' | b':'));
    while let Some(field) = fields.next() {
        match field {
            b"8" | b"08" => return false,
            b"38" | b"48" | b"58" => {
                let skip = match fields.next() {
                    Some(b"5") => 1,
                    Some(b"2") => 3,
                    _ => return false,
                };
                for _ in 0..skip {
                    fields.next();
                }
            }
            // Leading zeros could hide an 8.
            field if field.len() > 3 || (field.len() > 1 && field.starts_with(b"00")) => {
                return false;
            }
            _ => {}
        }
    }
    true
}

fn character(rest: &[u8], last: bool) -> Unit {
    let head = rest.get(..rest.len().min(4)).unwrap_or_default();
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.valid_up_to() > 0 => head
            .get(..e.valid_up_to())
            .and_then(|v| std::str::from_utf8(v).ok())
            .unwrap_or_default(),
        Err(e) if e.error_len().is_none() && !last => return Unit::Unfinished,
        Err(e) => return Unit::Show(e.error_len().unwrap_or(head.len()).max(1)),
    };
    match valid.chars().next() {
        Some(c) if is_harmless(c) => Unit::Pass(c.len_utf8()),
        Some(c) => Unit::Show(c.len_utf8()),
        None => Unit::Show(1),
    }
}

/// Neither a control character nor one that reorders or joins what stands around it.
fn is_harmless(c: char) -> bool {
    let reorders = matches!(
        c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !c.is_control() && !reorders
}

fn show(bytes: &[u8], out: &mut Vec<u8>) {
    let mut shown = String::new();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_ascii() => {
            for c in text.chars() {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
        }
        _ => {
            for byte in bytes {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
    }
    out.extend_from_slice(shown.as_bytes());
}

#[cfg(test)]
mod tests;
