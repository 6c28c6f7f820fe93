use proptest::prelude::*;

use super::*;

fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    let mut escaper = Escaper::default();
    escaper.push(bytes, &mut out);
    escaper.finish(&mut out);
    String::from_utf8(out).expect("what is shown is UTF-8")
}

#[test]
fn what_passes_and_what_does_not() {
    let cases: &[(&[u8], &str)] = &[
        (b"plain\ttext\r\nnext\n", "plain\ttext\r\nnext\n"),
        ("grüße 日本".as_bytes(), "grüße 日本"),
        (b"\x1b[0;32mok\x1b[0m", "\x1b[0;32mok\x1b[0m\x1b[0m"),
        (b"\x1b[38;5;8mgrey", "\x1b[38;5;8mgrey\x1b[0m"),
        (b"\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b[8mhidden", "\\x1b[8mhidden"),
        (b"\x1b[1;8mhidden", "\\x1b[1;8mhidden"),
        (b"\x1b[008mhidden", "\\x1b[008mhidden"),
        (b"good\rbad", "good\\x0dbad"),
        (b"end\r\r\n", "end\r\r\n"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
        ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        (b"\0\x7f", "\\x00\\x7f"),
        (b"cut \xe6\x97", "cut \\xe6\\x97"),
        (b"cut \x1b[3", "cut \\x1b[3"),
    ];
    for (bytes, shown) in cases {
        assert_eq!(&escaped(bytes), shown, "{bytes:?}");
    }
}

proptest! {
    /// However the stream is cut, the result is the same, and nothing dangerous is in it.
    #[test]
    fn cuts_change_nothing_and_nothing_dangerous_passes(
        bytes in proptest::collection::vec(
            prop_oneof![
                any::<u8>(),
                proptest::sample::select(&b"\x1b[;:m0138\r\n\xc2\x9b\xe2\x80\xae"[..]),
            ],
            0..200,
        ),
        cuts in proptest::collection::vec(0usize..200, 0..10),
    ) {
        let whole = escaped(&bytes);
        let mut parts = Vec::new();
        let mut escaper = Escaper::default();
        let mut from = 0;
        let mut cuts = cuts;
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let cut = cut.min(bytes.len());
            escaper.push(&bytes[from..cut], &mut parts);
            from = cut;
        }
        escaper.finish(&mut parts);
        prop_assert_eq!(&whole.as_bytes(), &parts);

        let mut rest = whole.as_str();
        while let Some(at) = rest.find('\x1b') {
            rest = &rest[at + 1..];
            let end = rest.find('m').expect("a sequence ends");
            prop_assert!(rest[..end].starts_with('['));
            prop_assert!(rest[1..end].bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':')));
        }
        let mut before_lf = whole.as_str();
        while let Some(at) = before_lf.find('\r') {
            before_lf = &before_lf[at + 1..];
            prop_assert!(before_lf.starts_with(['\r', '\n']));
        }
        for c in whole.chars().filter(|c| c.is_control()) {
            prop_assert!(matches!(c, '\n' | '\t' | '\r' | '\x1b'), "{:?}", c);
        }
    }
}
