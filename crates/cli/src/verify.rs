//! `logchain verify`: whether a chain is whole, and what mends it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use logchain_core::chain::{self, LogChain, Numbering};
use logchain_core::folder::Folder;
use logchain_core::offsets::Offsets;
use logchain_core::placement::{ChainWorkspace, Rules};
use logchain_core::record::Record;
use logchain_core::verify::{Finding, Repair, Verdict, verify};
use logchain_host::leases::Leases;
use logchain_host::limits::{self, Limits};
use logchain_host::neighbours;
use serde_json::json;

use crate::args::{Format, Verify};
use crate::domain;
use crate::exit::Exit;
use crate::report::{self, Watch};
use crate::show::Subject;

pub(crate) async fn run(args: Verify) -> anyhow::Result<Exit> {
    let subject = domain::subject(&args.log).await?;
    let elsewhere = domain::not_written_here(&args.log, &subject).await;
    let work = move || check(&args, &subject, elsewhere);
    tokio::task::spawn_blocking(work).await?
}

/// `elsewhere`: why what the guest prints is not in the file at its path.
fn check(args: &Verify, subject: &Subject, elsewhere: Option<String>) -> anyhow::Result<Exit> {
    let chain = neighbours::chain(&subject.path, subject.numbering);
    let chain = match &elsewhere {
        // Its folder was removed or renamed under it, maybe.
        Some(elsewhere) => chain.with_context(|| elsewhere.clone())?,
        None => chain?,
    };
    let numbering = chain.numbering();
    let limits = limits::limits();
    limits.warn(&report::events(Format::Text, Watch::Terminal));
    let rules = Rules {
        numbering,
        ..limits.rules(&subject.path)
    };
    // What is numbered from one is not virtlogd's.
    let limit = rules.retention.max_backups;
    let limit = limit.filter(|_| numbering == Numbering::FromZero);
    let look = || -> anyhow::Result<Verdict> {
        let mut verdict = match verify(&chain, limit) {
            // Of a removed log there may be no file left.
            Err(chain::Error::NotFound { .. }) if elsewhere.is_some() => Verdict::default(),
            verdict => verdict?,
        };
        add_cleaned(&mut verdict, &chain, &limits)?;
        Ok(verdict)
    };
    let mut verdict = look()?;
    let mut done = Vec::new();
    if args.repair {
        // Finishing what was begun changes what else there is to mend.
        for repair in [Repair::Recover, Repair::SetRecordAside, Repair::CloseGaps] {
            if verdict.findings.iter().any(|f| f.repair() == Some(repair)) {
                done.push(mend(repair, &subject.path, rules)?);
                verdict = look()?;
            }
        }
    }
    let elsewhere = elsewhere.map(|reason| Finding::NotWrittenHere { reason });
    verdict.findings.extend(elsewhere);
    tell(args.format, &subject.path, &verdict, &done);
    Ok(if verdict.is_whole() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// What lies beyond the rotation stays, but where virtlogd clears up there.
fn add_cleaned(verdict: &mut Verdict, chain: &LogChain, limits: &Limits) -> anyhow::Result<()> {
    let cleaned = limits.cleaned(&chain.path())?;
    verdict.findings.retain(|finding| {
        let Finding::OutOfReach { name, .. } = finding else {
            return true;
        };
        !cleaned
            .iter()
            .any(|c| matches!(c, Finding::Cleaned { name: cleaned, .. } if cleaned == name))
    });
    verdict.findings.extend(cleaned);
    Ok(())
}

fn mend(repair: Repair, path: &Path, rules: Rules) -> anyhow::Result<String> {
    let writers = Arc::new(Leases::default());
    Ok(match repair {
        Repair::Recover => {
            ChainWorkspace::recover_all(path, rules, writers)?;
            "what was begun is finished or undone".to_owned()
        }
        Repair::CloseGaps => {
            // Afterwards no name tells that bytes are missing there. Where it cannot be put
            // down, a file is damaged or the record is, which is told by itself.
            let chain = neighbours::chain(path, rules.numbering.into())?;
            if let Ok(offsets) = Offsets::of(&chain) {
                let _ = offsets.remember(&chain);
            }
            let moved = ChainWorkspace::close_gaps(path, rules, writers)?;
            format!("{moved} rotated files were renamed")
        }
        Repair::SetRecordAside => {
            let (folder, base) = Folder::of_file(path)?;
            let name = Record::name(&base);
            let mut aside: OsString = name.clone();
            aside.push(".damaged");
            folder.rename_over(&name, &aside)?;
            format!("the damaged record is now {}", aside.display())
        }
    })
}

fn tell(format: Format, path: &Path, verdict: &Verdict, done: &[String]) {
    let (files, bytes) = (verdict.files, verdict.bytes);
    if let Format::Json = format {
        let finding = |f: &Finding| json!({ "finding": f.to_string(), "repair": f.repair().map(|r| r.to_string()) });
        let findings: Vec<_> = verdict.findings.iter().map(finding).collect();
        let verdict = json!({
            "path": path.to_string_lossy(),
            "whole": verdict.is_whole(),
            "files": files,
            "bytes": bytes,
            "findings": findings,
            "repaired": done,
        });
        println!("{verdict}");
        return;
    }
    for done in done {
        println!("{done}");
    }
    for finding in &verdict.findings {
        match finding.repair() {
            Some(repair) => println!("{finding} (--repair would {repair})"),
            None => println!("{finding}"),
        }
    }
    let path = path.display();
    if verdict.is_whole() {
        println!("{path} is whole: {bytes} bytes in {files} files");
    } else {
        println!("{path} is not whole: {bytes} bytes can be read, in {files} files");
    }
}
