//! A failure in one line, for a message to people or to the other host.

use std::error::Error;

/// A failure and its causes, on one line. A cause that the sentence before names already is
/// left out.
#[must_use]
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut sentence = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
        next = error.source();
    }
    // libvirt hands on what QEMU said, line by line.
    let lines = sentence.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot open /x: {0}")]
        Names(#[source] io::Error),
        #[error("h2")]
        Context(#[source] Box<Self>),
        #[error("qemu said: one\n two\n\n")]
        Lines,
    }

    #[test]
    fn a_cause_that_is_named_is_not_named_again() {
        let denied = || Failure::Names(io::Error::from_raw_os_error(13));
        let plain = "cannot open /x: Permission denied (os error 13)";
        assert_eq!(sentence(&denied()), plain);
        let context = Failure::Context(Box::new(denied()));
        assert_eq!(sentence(&context), format!("h2: {plain}"));
    }

    #[test]
    fn a_failure_of_many_lines_is_one() {
        assert_eq!(sentence(&Failure::Lines), "qemu said: one; two");
    }
}
