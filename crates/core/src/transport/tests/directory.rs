//! The transport that is a folder: what lies there that is not ours, what is left behind, and
//! who may read it.

use super::*;

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
