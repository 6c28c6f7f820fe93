//! `cargo xtask demo --nova`: what a tenant reads before a live migration by Nova and after it,
//! with agents and without, by the commands that a tenant and an operator type.

use anyhow::{Context as _, Result, bail};

use super::agents::{Agents, Meet};
use super::cloud::{CALM, Cloud};
use super::lines::Lines;
use super::stage::{Server, Stage};
use crate::demo::heading;
use crate::progress::begin;

/// Shows it.
pub(super) fn show(cloud: &Cloud) -> Result<()> {
    heading("Without agents");
    let stage = Stage {
        cloud,
        agents: None,
    };
    let (before, after) = moved(&stage, "plain")?;
    let lost = before.runs().first().map_or(0, |(first, last)| {
        let kept = after.runs().first().map_or(*last, |(from, _)| *from - 1);
        kept.min(*last).saturating_sub(*first - 1)
    });
    println!("{lost} lines that could be read before cannot be read any more");

    heading("With an agent on each hypervisor");
    let agents = Agents::start(&cloud.lab, Meet::Store)?;
    let stage = Stage {
        cloud,
        agents: Some(&agents),
    };
    let (before, after) = moved(&stage, "carried")?;

    heading("Verdict");
    if !after.whole() || after.last() < before.last() {
        bail!("the log is not whole: {after}\n{}", agents.last_lines());
    }
    println!("{} lines, all there, once, in order", after.last());
    Ok(())
}

/// Has a server made and migrated. Gives what its console showed before and after.
fn moved(stage: &Stage<'_>, name: &str) -> Result<(Lines, Lines)> {
    let cloud = stage.cloud;
    let create = format!(
        "server create --flavor tiny --image {CALM} --nic none --host h1 --wait {name} -f value -c id"
    );
    let id = openstack(cloud, &create)?;
    let server = Server::of(stage, id.trim());
    server.wait_for_lines(200)?;
    let before = console(cloud, name)?;
    openstack(
        cloud,
        &format!("server migrate --live-migration --host h2 {name}"),
    )?;
    let step = begin("waiting for Nova to be done");
    server.end_migration("h2")?;
    step.done();
    let after = console(cloud, name)?;
    openstack(cloud, &format!("server delete --wait {name}"))?;
    Ok((before, after))
}

fn console(cloud: &Cloud, name: &str) -> Result<Lines> {
    let log = openstack(cloud, &format!("console log show {name}"))?;
    let lines = Lines::of(log.as_bytes());
    println!("the guest's lines in it: {lines}");
    Ok(lines)
}

fn openstack(cloud: &Cloud, line: &str) -> Result<String> {
    let step = begin(format!("openstack {line}"));
    let args: Vec<&str> = line.split(' ').collect();
    let out = cloud
        .openstack(&args)
        .with_context(|| format!("openstack {line}"))?;
    step.done();
    Ok(out)
}
