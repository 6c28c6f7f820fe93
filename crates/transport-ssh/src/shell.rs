//! Words as a shell reads them: for sshd, which hands a command to one, and for
//! people, who paste it into one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The words as one line for `sh`, each quoted where it must be.
///
/// ```
/// use logchain_transport_ssh::shell_line;
///
/// let line = shell_line(["show", "it's", "/var/log/vm.log"]);
/// assert_eq!(line, r"show 'it'\''s' /var/log/vm.log");
/// ```
pub fn shell_line<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> OsString {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        quote(word.as_ref().as_bytes(), &mut line);
    }
    OsString::from_vec(line)
}

fn quote(word: &[u8], line: &mut Vec<u8>) {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-=:,@%+".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        line.extend_from_slice(word);
        return;
    }
    line.push(b'\'');
    for byte in word {
        if *byte == b'\'' {
            line.extend_from_slice(b"'\\''");
        } else {
            line.push(*byte);
        }
    }
    line.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What `sh` makes of a line, each word ended by a NUL.
    fn by_shell(line: &OsStr) -> Vec<u8> {
        let mut script = OsString::from("printf '%s\\0' ");
        script.push(line);
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{line:?}");
        output.stdout
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        let words = [
            "logchain",
            "offer",
            "--console",
            "serial0=/var/log/vm-1_2.log",
        ];
        assert_eq!(shell_line(words).to_str().unwrap(), words.join(" "));
        assert_eq!(shell_line([""]).to_str().unwrap(), "''");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        /// Whatever the words are made of, the shell gives the same words back.
        #[test]
        fn a_shell_gives_the_same_words_back(
            words in proptest::collection::vec(
                proptest::prelude::prop_oneof![
                    proptest::collection::vec(1_u8..=255, 0..12),
                    proptest::collection::vec(
                        proptest::sample::select(b" '\"\\$`~#!*?[]{}()<>|&;-=\n\t".to_vec()),
                        0..8,
                    ),
                ],
                1..6,
            ),
        ) {
            let line = shell_line(words.iter().map(|w| OsStr::from_bytes(w)));
            let mut expected = Vec::new();
            for word in &words {
                expected.extend_from_slice(word);
                expected.push(0);
            }
            proptest::prop_assert_eq!(by_shell(&line), expected);
        }
    }
}
