use super::*;
use crate::testing::Machine;

fn request(change: impl FnOnce(&mut MigrateFlags, &mut MigrateParams)) -> MigrateRequest {
    let mut request = MigrateRequest {
        dest_uri: "qemu+tcp://h2/system".to_owned(),
        ..MigrateRequest::default()
    };
    change(&mut request.flags, &mut request.params);
    request
}

#[test]
fn flags_are_libvirts_bits() {
    let request = request(|f, _| {
        f.live = true;
        f.p2p = true;
        f.tunnelled = true;
        f.persistent = true;
        f.undefine_source = true;
    });
    assert_eq!(request.flags.bits(), 1 | 2 | 4 | 8 | 16);
    request.check().unwrap();
    // Unmanaged is another call, not a bit.
    let direct = MigrateFlags {
        direct: true,
        ..MigrateFlags::default()
    };
    assert_eq!(direct.bits(), 0);
}

#[test]
fn values_become_typed_parameters() {
    let text = |t: &str| ffi::Value::Text(std::ffi::CString::new(t).unwrap());
    let request = request(|_, p| {
        p.dname = Some("new".to_owned());
        p.bandwidth = Some(7);
        p.disks_port = Some(49152);
        p.migrate_disks = vec!["vda".to_owned(), "vdb".to_owned()];
    });
    let values: Vec<_> = request
        .params
        .values()
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name.to_str().unwrap(), value))
        .collect();
    assert_eq!(
        values,
        [
            ("destination_name", text("new")),
            ("migrate_disks", text("vda")),
            ("migrate_disks", text("vdb")),
            ("bandwidth", ffi::Value::ULong(7)),
            ("disks_port", ffi::Value::Int(49152)),
        ]
    );
}

#[test]
fn options_that_do_not_go_together_are_refused_by_name() {
    type Change = fn(&mut MigrateFlags, &mut MigrateParams);
    let table: &[(Change, &str)] = &[
        (
            |f, _| (f.live, f.offline) = (true, true),
            "--live and --offline exclude each other",
        ),
        (
            |f, _| (f.p2p, f.direct) = (true, true),
            "--p2p and --direct exclude each other",
        ),
        (|f, _| f.tunnelled = true, "--tunnelled needs --p2p"),
        (|f, _| f.offline = true, "--offline needs --persistent"),
        (
            |f, _| (f.copy_storage_all, f.copy_storage_inc) = (true, true),
            "--copy-storage-all and --copy-storage-inc exclude each other",
        ),
        (
            |f, _| f.copy_storage_synchronous_writes = true,
            "--copy-storage-synchronous-writes needs --copy-storage-all or --copy-storage-inc",
        ),
        (
            |_, p| p.migrate_disks = vec!["vda".to_owned()],
            "--migrate-disks needs --copy-storage-all or --copy-storage-inc",
        ),
        (
            |f, _| f.postcopy_resume = true,
            "--postcopy-resume needs --postcopy",
        ),
        (|f, _| f.zerocopy = true, "--zerocopy needs --parallel"),
        (
            |f, _| (f.p2p, f.tunnelled, f.postcopy) = (true, true, true),
            "--tunnelled and --postcopy exclude each other",
        ),
        (
            |f, p| {
                (f.p2p, f.tunnelled) = (true, true);
                p.migrate_uri = Some("tcp://h2".to_owned());
            },
            "--tunnelled and --migrateuri exclude each other",
        ),
        (
            |_, p| p.persist_xml = Some("<domain/>".to_owned()),
            "--persistent-xml needs --persistent",
        ),
        (
            |_, p| p.tls_destination = Some("h2".to_owned()),
            "--tls-destination needs --tls",
        ),
        (
            |_, p| p.comp_mt_level = Some(3),
            "a --comp-… option needs --compressed",
        ),
        (
            |_, p| p.auto_converge_initial = Some(10),
            "an --auto-converge-… option needs --auto-converge",
        ),
        (
            |_, p| p.parallel_connections = Some(2),
            "--parallel-connections needs --parallel",
        ),
        (
            |_, p| p.disks_port = Some(65536),
            "--disks-port is 65536, not 0 to 65535",
        ),
        (
            |_, p| p.dname = Some("a/b".to_owned()),
            "--dname \"a/b\" is no name of a domain",
        ),
    ];
    for (change, says) in table {
        let error = request(change).check().unwrap_err();
        assert_eq!(error, Error::BadRequest((*says).to_owned()));
    }
    let nowhere = MigrateRequest::default();
    assert!(nowhere.check().is_err());
}

#[tokio::test]
async fn a_bad_request_touches_nothing() {
    let machine = Machine::define("bad-request", "").await;
    let domain = machine.domain().await;
    machine.start().await;
    let before = domain.state().await;
    let tunnelled = request(|f, _| f.tunnelled = true);
    let nul = request(|_, p| p.dname = Some("a\0b".to_owned()));
    let managed = request(|f, _| f.live = true);
    for (request, says) in [
        (tunnelled, "--tunnelled needs --p2p"),
        (nul, "\"a\\0b\" has a NUL byte in it"),
        (
            managed,
            "migrating without --p2p needs a connection to qemu+tcp://h2/system",
        ),
    ] {
        let error = migrate(&domain, None, &request).await.unwrap_err();
        assert_eq!(error, Error::BadRequest(says.to_owned()));
    }
    assert_eq!(domain.state().await, before);
}

/// The driver for tests cannot migrate: both calls reach it and come back.
#[tokio::test]
async fn a_driver_that_cannot_says_so() {
    let machine = Machine::define("unsupported", "").await;
    machine.start().await;
    let domain = machine.domain().await;
    let texts: fn(&mut MigrateFlags, &mut MigrateParams) = |f, p| {
        f.live = true;
        p.dname = Some("other".to_owned());
        p.bandwidth = Some(10);
    };
    let managed = request(texts);
    let p2p = request(|f, p| {
        texts(f, p);
        f.p2p = true;
    });
    for request in [managed, p2p] {
        let error = migrate(&domain, Some(&machine.connection), &request)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("migrate {} to qemu+tcp://h2/system", machine.name)));
    }
    assert!(domain.state().await.unwrap().is_active());
}

#[tokio::test]
async fn without_a_migration_there_is_nothing_to_end() {
    let machine = Machine::define("no-job", "").await;
    machine.start().await;
    let domain = machine.domain().await;
    assert!(abort(&domain).await.is_err());
    assert!(start_post_copy(&domain).await.is_err());
    assert!(!matches!(progress(&domain).await, Ok(Some(_))));
}

#[test]
fn progress_is_reckoned_as_virsh_does() {
    let mut info = sys::virDomainJobInfo {
        type_: 2,
        timeElapsed: 1500,
        timeRemaining: 0,
        dataTotal: 1000,
        dataProcessed: 900,
        dataRemaining: 250,
        memTotal: 600,
        memProcessed: 0,
        memRemaining: 200,
        fileTotal: 400,
        fileProcessed: 0,
        fileRemaining: 50,
    };
    let progress = JobProgress::from_raw(&info).unwrap();
    assert_eq!(progress.elapsed, Duration::from_millis(1500));
    assert_eq!(progress.fraction(), Some(0.75));
    assert_eq!(
        (progress.memory_remaining, progress.disk_remaining),
        (200, 50)
    );
    info.dataTotal = 0;
    assert_eq!(JobProgress::from_raw(&info).unwrap().fraction(), None);
    info.dataTotal = 100;
    assert_eq!(JobProgress::from_raw(&info).unwrap().fraction(), Some(0.0));
    for over in [0, 3, 4, 5, -1] {
        info.type_ = over;
        assert_eq!(JobProgress::from_raw(&info), None);
    }
}
