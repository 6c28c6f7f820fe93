use super::*;

fn stat(ino: u64) -> Stat {
    let id = FileId { ino, born: None };
    Stat {
        id,
        size: 1,
        allocated: 512,
        modified: (0, 0),
        mode: 0o600,
        owner: (0, 0),
        regular: true,
    }
}

fn rotated(number: u32, compression: Option<Compression>, ino: u64) -> Rotated {
    let mut name = super::super::rotated_name(OsStr::new("l"), number);
    name.push(compression.map_or("", Compression::suffix));
    Rotated {
        name,
        number,
        compression,
        stat: stat(ino),
    }
}

fn of(numbers: &[u32]) -> Listing {
    let files = numbers
        .iter()
        .map(|n| rotated(*n, None, u64::from(*n) + 10));
    Listing::new(Some(stat(1)), files, [])
}

#[test]
fn gaps_by_numbering() {
    let gaps = |numbers: &[u32], numbering| {
        of(numbers)
            .gaps(numbering)
            .iter()
            .map(|g| (g.first, g.last))
            .collect::<Vec<_>>()
    };
    let (zero, one) = (Numbering::FromZero, Numbering::FromOne);
    assert_eq!(gaps(&[], zero), []);
    assert_eq!(gaps(&[2, 0, 1], zero), []);
    assert_eq!(gaps(&[1], zero), [(0, 0)]);
    assert_eq!(gaps(&[1, 2], one), []);
    assert_eq!(gaps(&[0, 1], one), []);
    assert_eq!(gaps(&[0, 2], one), [(1, 1)]);
    assert_eq!(gaps(&[3, 7], zero), [(0, 2), (4, 6)]);
    assert_eq!(gaps(&[3, 7], one), [(1, 2), (4, 6)]);
}

#[test]
fn of_one_number_the_plain_file_counts() {
    let (gz, zst) = (Some(Compression::Gzip), Some(Compression::Zstd));
    let files = [
        rotated(1, zst, 3),
        rotated(1, gz, 2),
        rotated(1, None, 1),
        rotated(2, zst, 5),
        rotated(2, gz, 4),
    ];
    let listing = Listing::new(None, files, []);
    let names: Vec<_> = listing.rotated().iter().map(|r| r.name.clone()).collect();
    assert_eq!(names, ["l.1", "l.2.gz"]);
}

#[test]
fn identities_are_compared_and_sizes_are_not() {
    let mut grown = stat(1);
    grown.size = 99;
    let a = of(&[0, 1]);
    let mut b = of(&[0, 1]);
    b.base = Some(grown);
    assert!(a.same_files(&b));
    assert!(!a.same_files(&of(&[0])));
    assert!(!a.same_files(&of(&[0, 2])));
    b.base = None;
    assert!(!a.same_files(&b));
    let swapped = [rotated(0, None, 11), rotated(1, None, 10)];
    assert!(!a.same_files(&Listing::new(Some(stat(1)), swapped, [])));
}

#[test]
fn one_file_under_two_names() {
    assert_eq!(of(&[0, 1]).same_file_twice(), None);
    let files = [rotated(0, None, 5), rotated(1, None, 1)];
    let listing = Listing::new(Some(stat(1)), files, []);
    assert_eq!(
        listing.same_file_twice(),
        Some((None, Some(OsStr::new("l.1"))))
    );
}
