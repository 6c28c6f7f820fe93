//! History that is shown before it is complete.

use super::*;

fn open_written(bed: &Host, rules: Rules) -> Staging {
    Staging::open(
        &bed.log,
        HandoffId::random(),
        rules,
        Arc::new(FakeWriters::SOMEBODY),
    )
    .unwrap()
}

#[test]
fn what_is_shown_takes_what_comes() {
    let bed = Host::new();
    bed.write("console.log", "");
    let mut staging = open_written(&bed, rules(100, 3));
    assert!(!staging.show(owed()).unwrap(), "there is nothing yet");
    staging.append(true, &[b'a'; 100]).unwrap();
    staging.append(true, &[b'b'; 99]).unwrap();
    assert!(staging.show(owed()).unwrap());
    assert_eq!(bed.merged().len(), 199);
    // The end of the source's log, and more files of it.
    for piece in [1, 30, 60] {
        staging.append(true, &[b'c'; 1].repeat(piece)).unwrap();
    }
    assert_eq!(bed.merged().len(), 290);
    // What is more than a part takes is seen once it is placed.
    staging.append(true, &[b'd'; 50]).unwrap();
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    let names: Vec<_> = placed
        .files
        .iter()
        .map(|(name, size)| (name.as_str(), *size))
        .collect();
    let expected = [
        ("console.log.0", 40),
        ("console.log.1", 200),
        ("console.log.2", 100),
    ];
    assert_eq!(names, expected);
    staging.clean().unwrap();
    let letters = [
        "a".repeat(100),
        "b".repeat(99),
        "c".repeat(91),
        "d".repeat(50),
    ];
    assert_eq!(bed.merged(), letters.concat());
}

#[test]
fn what_is_shown_and_outgrown_is_dropped_as_the_rotation_does() {
    let bed = Host::new();
    bed.write("console.log", "");
    let mut staging = open_written(&bed, rules(100, 2));
    staging.append(true, &[b'a'; 100]).unwrap();
    staging.append(true, &[b'b'; 100]).unwrap();
    assert!(staging.show(owed()).unwrap());
    for letter in [b'c', b'd', b'e'] {
        staging.append(true, &[letter; 200]).unwrap();
    }
    staging.seal(None).unwrap();
    let placed = staging.place().unwrap();
    assert_eq!(placed.files.len(), 2);
    staging.clean().unwrap();
    let all = bed.merged();
    assert_eq!(placed.dropped + all.len() as u64, 800);
    assert!(all.ends_with(&"e".repeat(200)), "{all}");
    let names = bed.all_names();
    assert_eq!(
        names[1..],
        ["console.log", "console.log.0", "console.log.1"]
    );
}

#[test]
fn nothing_is_shown_where_it_could_be_wiped_or_is_in_the_way() {
    let bed = Host::new();
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "no base");
    drop(staging);
    bed.write("console.log", "");
    let mut staging = open(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "no writer");
    drop(staging);
    bed.write("console.log.1", "older ");
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(!staging.show(owed()).unwrap(), "a file in the way");
    drop(staging);
    fs::remove_file(bed.dir.path().join("console.log.1")).unwrap();
    bed.write("console.log.3", "beyond the limit ");
    let mut staging = open_written(&bed, rules(100, 3));
    staging.append(true, b"history ").unwrap();
    assert!(staging.show(owed()).unwrap());
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log", "console.log.3"]);
}
