use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn key(object: ObjectName) -> Key {
    Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse().unwrap(),
        handoff: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
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
        (0u8..6, any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        (0u8..6).prop_map(Op::Get),
        proptest::option::of(0u8..6).prop_map(Op::List),
        (0u8..6).prop_map(Op::Delete),
    ]
}

fn nth(n: u8) -> Key {
    let mut key = key(ObjectName::Chunk {
        offset: u64::from(n / 2),
        len: 1,
    });
    if n % 2 == 1 {
        key.domain = Uuid::from_u128(5);
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
    fn no_text_makes_parsing_fall_over(text in ".{0,120}") {
        if let Ok(key) = text.parse::<Key>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
