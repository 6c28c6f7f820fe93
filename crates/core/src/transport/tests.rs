mod directory;

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
