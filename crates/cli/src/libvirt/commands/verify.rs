//! `logchain verify`.

use std::path::Path;

use logchain::args::{Format, Verify};
use logchain::exit::Exit;
use logchain_core::verify::{Finding, Verdict};
use logchain_host::verify::{Options, Report, verify};
use serde_json::json;

use crate::report::{self, Watch};
use crate::subject;

pub(super) async fn run(args: Verify) -> anyhow::Result<Exit> {
    let subject = subject::subject(&args.log).await?;
    let mut options = Options::new(&subject.path);
    options.numbering = subject.numbering;
    options.repair = args.repair;
    options.not_written_here = subject::not_written_here(&args.log, &subject).await;
    let work = move || {
        let events = report::events(Format::Text, Watch::Terminal);
        verify(&options, &events)
    };
    let Report {
        verdict, repaired, ..
    } = tokio::task::spawn_blocking(work).await??;
    tell(args.format, &subject.path, &verdict, &repaired);
    Ok(if verdict.is_whole() {
        Exit::Done
    } else {
        Exit::Failed
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
