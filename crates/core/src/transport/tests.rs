use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::fault::{Call, Fault, FaultTransport, Verb};
use super::*;
use crate::ids::HandoffId;

fn key(object: ObjectName) -> Key {
    Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse().unwrap(),
        collection: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
        object,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run_all(Arc::new(MemoryTransport::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run_all(Arc::new(DirectoryTransport::open(dir.path()).unwrap())).await;
}

#[tokio::test]
async fn what_is_not_ours_in_the_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let transport = DirectoryTransport::create(&dir.path().join("a/spool")).unwrap();
    let spool = dir.path().join("a/spool");
    assert_eq!(
        std::fs::metadata(&spool).unwrap().permissions().mode() & 0o777,
        0o700
    );
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    std::fs::write(spool.join("README"), "hello").unwrap();
    std::fs::write(spool.join("v1/file"), "hello").unwrap();
    std::fs::create_dir(spool.join("v1/../other")).unwrap();
    let handoff = spool
        .join(key(ObjectName::Begin).to_string())
        .parent()
        .unwrap()
        .to_owned();
    std::fs::write(handoff.join(".new-1"), "half").unwrap();
    std::fs::write(handoff.join("chunk-1-1"), "unpadded").unwrap();
    symlink("/etc/passwd", handoff.join("commit")).unwrap();
    symlink(
        "/etc",
        spool.join("v1").join(Uuid::from_u128(9).to_string()),
    )
    .unwrap();
    let all = transport.list_all(&Prefix::All).await.unwrap();
    assert_eq!(
        all.into_iter().map(|e| e.key).collect::<Vec<_>>(),
        [key(ObjectName::Begin)]
    );
    assert!(transport.get(&key(ObjectName::Commit), None).await.is_err());
    transport.delete(&key(ObjectName::Begin)).await.unwrap();
    assert!(spool.join("README").exists() && handoff.exists());
}

#[tokio::test]
async fn an_emptied_handoff_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let transport = DirectoryTransport::open(dir.path()).unwrap();
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    transport.delete(&key(ObjectName::Begin)).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("v1")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn spool_with(object: &Key) -> (tempfile::TempDir, DirectoryTransport, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let transport = DirectoryTransport::open(dir.path()).unwrap();
    let handoff = dir.path().join(object.to_string());
    (dir, transport, handoff.parent().unwrap().to_owned())
}

#[tokio::test]
async fn what_killed_writers_left_is_swept() {
    let begin = key(ObjectName::Begin);
    let (dir, transport, handoff) = spool_with(&begin);
    transport.put(&begin, Bytes::new()).await.unwrap();
    let other = HandoffId::random().to_string();
    let other = handoff.parent().unwrap().join(other);
    std::fs::create_dir(&other).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    for (path, stale) in [
        (handoff.join(".new-dead"), true),
        (handoff.join(".new-live"), false),
        (handoff.join("notes"), true),
        (other.join(".new-dead"), true),
        (dir.path().join(".new-elsewhere"), true),
    ] {
        let file = std::fs::File::create(path).unwrap();
        if stale {
            file.set_modified(old).unwrap();
        }
    }
    // A deletion of what is not there is the first all the same.
    transport.delete(&key(ObjectName::Commit)).await.unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&handoff)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".new-live", "begin", "notes"]);
    assert!(!other.exists());
    assert!(dir.path().join(".new-elsewhere").exists());
    assert_eq!(transport.sweep().await.unwrap(), 0);
}

fn set_modified(path: &std::path::Path, at: std::time::SystemTime) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(at).unwrap();
}

#[tokio::test]
async fn handoffs_that_nobody_takes_up_are_swept() {
    let week = std::time::Duration::from_secs(7 * 24 * 3600 + 60);
    // Committed; received; how old its newest object is; whether it goes.
    for (committed, received, newest, goes) in [
        (false, false, week, true),
        (false, false, week / 2, false),
        (true, false, week, false),
        (true, true, week, true),
        (true, true, week / 2, false),
    ] {
        let begin = key(ObjectName::Begin);
        let (_dir, transport, handoff) = spool_with(&begin);
        let of = |object| Key {
            object,
            ..begin.clone()
        };
        let mut objects = vec![ObjectName::Begin, ObjectName::Chunk { offset: 0, len: 3 }];
        objects.extend(committed.then_some(ObjectName::Commit));
        objects.extend(received.then_some(ObjectName::Receipt));
        for object in &objects {
            transport
                .put(&of(*object), Bytes::from_static(b"abc"))
                .await
                .unwrap();
        }
        let now = std::time::SystemTime::now();
        for object in &objects {
            let age = if *object == ObjectName::Begin {
                week
            } else {
                newest
            };
            set_modified(&handoff.join(object.to_string()), now - age);
        }
        // A stream of the same age stays.
        let batch = Key {
            collection: Collection::Stream,
            object: ObjectName::Batch { offset: 0 },
            ..begin.clone()
        };
        transport.put(&batch, Bytes::new()).await.unwrap();
        let path = handoff
            .parent()
            .unwrap()
            .join("stream/batch-18446744073709551615");
        set_modified(&path, now - week);

        let taken = transport.sweep().await.unwrap();
        let prefix = Prefix::Collection(begin.domain, begin.console.clone(), begin.collection);
        let left = transport.list_all(&prefix).await.unwrap().len();
        let what = (committed, received, newest);
        if goes {
            assert_eq!((left, taken), (0, objects.len() as u64 + 1), "{what:?}");
            assert!(!handoff.exists());
        } else {
            assert_eq!((left, taken), (objects.len(), 0), "{what:?}");
        }
        assert_eq!(
            transport.list_all(&Prefix::All).await.unwrap().len(),
            left + 1
        );
    }
}

#[tokio::test]
async fn pieces_that_came_after_all_was_cleared_are_swept_soon() {
    let hour = std::time::Duration::from_secs(3600);
    let minute = hour / 60;
    for (age, begun, goes) in [
        (hour + minute, false, true),
        (hour - minute, false, false),
        // One that is begun waits for its source.
        (hour + minute, true, false),
    ] {
        let begin = key(ObjectName::Begin);
        let (_dir, transport, handoff) = spool_with(&begin);
        let mut objects = vec![ObjectName::Chunk { offset: 3, len: 3 }];
        objects.extend(begun.then_some(ObjectName::Begin));
        for object in &objects {
            let key = Key {
                object: *object,
                ..begin.clone()
            };
            transport.put(&key, Bytes::new()).await.unwrap();
            let at = std::time::SystemTime::now() - age;
            set_modified(&handoff.join(object.to_string()), at);
        }
        transport.sweep().await.unwrap();
        assert_eq!(handoff.exists(), !goes, "{age:?} {begun}");
    }
}

#[tokio::test]
async fn what_cannot_be_ours_is_not_entered() {
    let begin = key(ObjectName::Begin);
    let (dir, transport, _) = spool_with(&begin);
    transport.put(&begin, Bytes::new()).await.unwrap();
    // Under a name that is no UUID everything else is as it should be.
    let text = begin.to_string();
    let foreign = text.replace(&begin.domain.to_string(), "backup");
    std::fs::create_dir_all(dir.path().join(&foreign).parent().unwrap()).unwrap();
    std::fs::write(dir.path().join(&foreign), "").unwrap();
    assert_eq!(transport.list_all(&Prefix::All).await.unwrap().len(), 1);
    assert_eq!(transport.sweep().await.unwrap(), 0);
    assert!(dir.path().join(&foreign).exists());
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let begin = key(ObjectName::Begin);
    let (dir, transport, _) = spool_with(&begin);
    transport.put(&begin, Bytes::new()).await.unwrap();
    let mut path = dir.path().join(begin.to_string());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path) & 0o777, 0o600);
    while path.pop() && path != dir.path() {
        assert_eq!(mode(&path) & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test]
async fn an_object_cut_from_outside_is_said_to_be_damaged() {
    let begin = key(ObjectName::Begin);
    let (dir, transport, _) = spool_with(&begin);
    transport
        .put(&begin, Bytes::from(vec![1; 4 << 20]))
        .await
        .unwrap();
    let mut parts = transport.get(&begin, None).await.unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join(begin.to_string()))
        .unwrap();
    file.set_len(1_500_000).unwrap();
    let mut end = None;
    while let Some(part) = parts.next().await {
        end = Some(part.map(|part| part.len()));
    }
    assert!(matches!(end, Some(Err(Error::Corrupt { .. }))));
    file.set_len(MAX_OBJECT as u64 + 1).unwrap();
    let larger = transport.get(&begin, None).await.err();
    assert!(matches!(larger, Some(Error::Corrupt { .. })), "{larger:?}");
}

/// Lists what it is told to.
#[derive(Debug)]
struct Liar(Vec<Key>);

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("liar")
    }
}

#[async_trait]
impl LogTransport for Liar {
    async fn put(&self, _: &Key, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn get(&self, _: &Key, _: Option<Range<u64>>) -> Result<ByteStream> {
        Ok(futures_util::stream::empty().boxed())
    }

    async fn list(&self, _: &Prefix, _: Option<&Key>) -> Result<Vec<Entry>> {
        let entry = |key: &Key| Entry {
            key: key.clone(),
            size: 0,
        };
        Ok(self.0.iter().map(entry).collect())
    }

    async fn delete(&self, _: &Key) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_listing_is_not_trusted() {
    let (begin, commit) = (key(ObjectName::Begin), key(ObjectName::Commit));
    for listed in [vec![begin.clone()], vec![commit, begin.clone()]] {
        let said = Liar(listed).list_all(&Prefix::All).await;
        assert!(matches!(said, Err(Error::Corrupt { .. })), "{said:?}");
    }
    let other = Prefix::Domain(Uuid::from_u128(7));
    let said = Liar(vec![begin]).list_all(&other).await;
    assert!(matches!(said, Err(Error::Corrupt { .. })), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_faults_the_wrapper_conforms() {
    let inner = Arc::new(MemoryTransport::new());
    conformance::run_all(Arc::new(FaultTransport::new(inner, |_| None))).await;
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let inner = Arc::new(MemoryTransport::new());
    let plan = |call: &Call<'_>| match (call.number, call.verb) {
        (0, Verb::Put) => Some(Fault::unreachable()),
        (1, Verb::Put) => Some(Fault::LoseAnswer),
        (3, Verb::Get) => Some(Fault::Alter),
        (4, Verb::Get) => Some(Fault::Cut(2)),
        (6, Verb::Delete) => Some(Fault::LoseAnswer),
        _ => None,
    };
    let faulty = FaultTransport::new(Arc::clone(&inner) as Arc<dyn LogTransport>, plan);
    let (begin, data) = (key(ObjectName::Begin), Bytes::from_static(b"abc"));
    let broken = |e: Option<Error>| matches!(e, Some(Error::Unreachable { .. }));
    assert!(broken(faulty.put(&begin, data.clone()).await.err()));
    assert!(inner.get_opt(&begin, 10).await.unwrap().is_none());
    assert!(broken(faulty.put(&begin, data.clone()).await.err()));
    assert_eq!(inner.get_bytes(&begin, 10).await.unwrap(), data);
    assert!(faulty.put(&begin, data.clone()).await.is_err());
    assert_eq!(faulty.get_bytes(&begin, 10).await.unwrap(), "abb");
    assert!(broken(faulty.get_bytes(&begin, 10).await.err()));
    assert_eq!(faulty.get_bytes(&begin, 10).await.unwrap(), data);
    assert!(broken(faulty.delete(&begin).await.err()));
    assert!(inner.get_opt(&begin, 10).await.unwrap().is_none());
    assert_eq!(faulty.calls(), 7);
}

#[test]
fn only_well_formed_keys_are_keys() {
    let good = key(ObjectName::Chunk { offset: 7, len: 3 }).to_string();
    assert_eq!(
        good,
        "v1/00000000-0000-0000-0000-000000000001/serial0/00000000-0000-0000-0000-000000000002/\
         chunk-00000000000000000007-0000000003"
    );
    assert!(good.parse::<Key>().is_ok());
    for bad in [
        "",
        "v1",
        &good[1..],
        &format!("/{good}"),
        &format!("{good}/"),
        &format!("{good}/x"),
        &good.replace("v1", "v2"),
        &good.replace("serial0", ".."),
        &good.replace("serial0", ""),
        &good.replace("serial0", "a b"),
        &good.replace("0001/", "000A/"),
        &good.replace("0007", "07"),
        &good.replace("chunk-0", "chunk-+"),
        &good.replace("-0000000003", "-0000000000"),
        &good.replace("00000000000000000007", "18446744073709551615"),
        &good.replace(
            "00000000-0000-0000-0000-000000000001",
            "{00000000-0000-0000-0000-000000000001}",
        ),
        &good.replace("00000000-0000-0000-0000-000000000002", "stream"),
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
    let batch = Key {
        collection: Collection::Stream,
        ..key(ObjectName::Batch { offset: 7 })
    };
    let good = batch.to_string();
    assert!(good.ends_with("/serial0/stream/batch-18446744073709551608"));
    assert_eq!(good.parse::<Key>(), Ok(batch));
    for bad in [
        good.replace("/stream/", "/00000000-0000-0000-0000-000000000002/"),
        good.replace("18446744073709551608", "18446744073709551616"),
        good.replace("-18446744073709551608", "-8446744073709551608"),
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Get(u8),
    List(Option<u8>),
    Delete(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0u8..9, any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        (0u8..9).prop_map(Op::Get),
        proptest::option::of(0u8..9).prop_map(Op::List),
        (0u8..9).prop_map(Op::Delete),
    ]
}

fn arbitrary_object() -> impl Strategy<Value = ObjectName> {
    prop_oneof![
        Just(ObjectName::Begin),
        Just(ObjectName::Commit),
        Just(ObjectName::Abort),
        Just(ObjectName::Receipt),
        (0u64..200, 1u32..200).prop_map(|(offset, len)| ObjectName::Chunk { offset, len }),
        (0u64..200).prop_map(|offset| ObjectName::Batch { offset }),
    ]
}

fn nth(n: u8) -> Key {
    let mut key = key(ObjectName::Chunk {
        offset: u64::from(n / 3),
        len: 1,
    });
    match n % 3 {
        0 => {}
        1 => key.domain = Uuid::from_u128(5),
        _ => key.console = "serial0-b".parse().unwrap(),
    }
    key
}

async fn apply(transport: &dyn LogTransport, op: &Op) -> String {
    match op {
        Op::Put(k, v) => match transport.put(&nth(*k), Bytes::from(vec![*v])).await {
            Err(Error::AlreadyExists { .. }) => "exists".to_owned(),
            other => format!("{other:?}"),
        },
        Op::Get(k) => format!("{:?}", transport.get_opt(&nth(*k), 100).await.unwrap()),
        Op::List(after) => {
            let after = after.map(nth);
            format!(
                "{:?}",
                transport.list(&Prefix::All, after.as_ref()).await.unwrap()
            )
        }
        Op::Delete(k) => format!("{:?}", transport.delete(&nth(*k)).await),
    }
}

proptest! {
    // Every one syncs to disk many times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_folder_behaves_as_memory_does(ops in proptest::collection::vec(op(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = MemoryTransport::new();
            let folder = DirectoryTransport::open(dir.path()).unwrap();
            for op in &ops {
                prop_assert_eq!(apply(&memory, op).await, apply(&folder, op).await, "{:?}", op);
            }
            Ok(())
        })?;
    }
}

proptest! {
    #[test]
    fn keys_come_back(offset: u64, len in 1u32.., domain: u128, console in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}") {
        let mut key = key(ObjectName::Chunk { offset, len });
        key.domain = Uuid::from_u128(domain);
        key.console = console.parse().unwrap();
        match key.to_string().parse::<Key>() {
            Ok(read) => prop_assert_eq!(read, key),
            Err(_) => prop_assert!(offset.checked_add(u64::from(len)).is_none()),
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_texts(
        one in ("[0-9]{0,1}[a.-]{1,3}", 0u8..4, arbitrary_object()),
        two in ("[0-9]{0,1}[a.-]{1,3}", 0u8..4, arbitrary_object()),
    ) {
        let make = |(console, domain, object): &(String, u8, ObjectName)| {
            let mut key = key(*object);
            if matches!(object, ObjectName::Batch { .. }) {
                key.collection = Collection::Stream;
            }
            key.domain = Uuid::from_u128(u128::from(*domain) << 120);
            key.console = format!("a{console}").parse().unwrap();
            key
        };
        let (one, two) = (make(&one), make(&two));
        prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
    }

    /// Whoever tries again with `put_same` ends with just what it put, whatever fails.
    #[test]
    fn trying_again_ends_with_what_was_put(faults in proptest::collection::vec(0u8..4, 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let inner = Arc::new(MemoryTransport::new());
            let plan = move |call: &Call<'_>| {
                match faults.get(usize::try_from(call.number).unwrap()) {
                    Some(1) => Some(Fault::unreachable()),
                    Some(2) => Some(Fault::LoseAnswer),
                    Some(3) => Some(Fault::Cut(1)),
                    _ => None,
                }
            };
            let faulty = FaultTransport::new(Arc::clone(&inner) as Arc<dyn LogTransport>, plan);
            let mut keys = Vec::new();
            for n in 0..6 {
                let (key, data) = (nth(n), Bytes::from(vec![n; 3]));
                while let Err(e) = faulty.put_same(&key, data.clone()).await {
                    prop_assert_eq!(e.advice(), Advice::Retry, "{}", e);
                }
                prop_assert_eq!(inner.get_bytes(&key, 10).await.unwrap(), data);
                keys.push(key);
            }
            keys.sort();
            let listed = inner.list_all(&Prefix::All).await.unwrap();
            prop_assert_eq!(listed.into_iter().map(|e| e.key).collect::<Vec<_>>(), keys);
            Ok(())
        })?;
    }

    #[test]
    fn no_text_makes_parsing_fall_over(text in ".{0,120}") {
        if let Ok(key) = text.parse::<Key>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
