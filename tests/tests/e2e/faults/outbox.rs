//! The log is not carried, and its files go: the orchestrator removes the folder of
//! a VM that left, whatever became of its log.

use super::{Fallible, P2P, PACE, Scene, Side, row, row_with, says};
use crate::common::{MIGRATION, Outcome, migrate_json};
use logchain_tests::{Guest, Output, Pace};

/// Nobody takes the log in, and its folder goes.
fn gone_with_its_folder(scene: &Scene) -> Fallible<Output> {
    scene.h2().stop_sshd()?;
    let output = left_without_its_folder(scene)?;
    scene.h2().start_sshd()?;
    Ok(output)
}

/// The folder of the log goes as Nova does it, once the guest left.
fn left_without_its_folder(scene: &Scene) -> Fallible<Output> {
    let running = scene.migrate(&["--undefinesource", "--bandwidth", PACE])?;
    scene.while_copying()?;
    // QEMU has ended: the guest's last byte was printed.
    scene.once_it_left()?;
    let remove = "mv /var/log/lab/vm /var/log/lab/vm_del && rm -r /var/log/lab/vm_del";
    scene.h1().run(["sh", "-c", remove])?.checked()?;
    let output = running.wait(MIGRATION)?;
    says(&output, 3)?;
    Ok(output)
}

fn uuid(scene: &Scene) -> Fallible<String> {
    let said = scene.h2().run(["virsh", "domuuid", "vm"])?.checked()?;
    Ok(said.out().trim().to_owned())
}

fn outbox_is_empty(scene: &Scene) -> Outcome {
    let find = ["find", "/var/lib/logchain/outbox", "-mindepth", "1"];
    let found = scene.h1().run(find)?.checked()?.out();
    if !found.is_empty() {
        return Err(format!("something is left in the outbox: {found}").into());
    }
    Ok(())
}

#[test]
fn a_log_whose_folder_went_is_put_down_and_offered_later() -> Outcome {
    row(
        "no ssh, and the log's folder is removed | as soon as the guest left",
        |scene| {
            let output = gone_with_its_folder(scene)?;
            let said = output.err();
            let command = said.split("bring it over with: ").nth(1);
            let command = command.and_then(|c| c.lines().next()).ok_or("no command")?;
            let status = scene.h1().run(["logchain", "status"])?.checked()?.out();
            if !status.contains("put down at /var/lib/logchain/outbox/")
                || !status.contains(command)
            {
                return Err(format!("status says: {status}").into());
            }
            let kept = scene.h1().run(["logchain", "reap"])?.checked()?.out();
            if !kept.contains("it is put down at") {
                return Err(format!("reap says: {kept}").into());
            }
            scene
                .h1()
                .command(["sh", "-c", command])
                .limit(MIGRATION)
                .run()?
                .checked()?;
            let report = scene.whole_at(Side::Destination)?;
            outbox_is_empty(scene)?;
            let reaped = scene.h1().run(["logchain", "reap"])?.checked()?.out();
            if !reaped.contains("is not defined here any more") {
                return Err(format!("reap says: {reaped}").into());
            }
            scene.is_clean()?;
            Ok(format!(
                "status 3, put down, and brought over by offer: {} lines",
                report.count
            ))
        },
    )
}

#[test]
fn what_was_put_down_joins_when_the_vm_comes_back() -> Outcome {
    row(
        "no ssh, and the log's folder is removed | and the VM comes back",
        |scene| {
            gone_with_its_folder(scene)?;
            let (h1, h2) = (scene.h1(), scene.h2());
            scene.at(Side::Destination).wait_for_more_ticks(200)?;
            scene.at(Side::Source).make_log_folder()?;
            migrate_json(&scene.at(Side::Destination), h1, P2P)?;
            scene.runs_at(Side::Source)?;
            let report = scene.whole_at(Side::Source)?;
            outbox_is_empty(scene)?;
            // And on it goes, whole.
            migrate_json(&scene.at(Side::Source), h2, P2P)?;
            scene.runs_at(Side::Destination)?;
            scene.whole_at(Side::Destination)?;
            scene.is_clean()?;
            Ok(format!(
                "status 3, put down, and all {} lines are there again",
                report.count
            ))
        },
    )
}

/// It is offered as one handoff for good, whatever is left there of an earlier try.
#[test]
fn what_is_torn_of_it_in_a_spool_is_put_anew() -> Outcome {
    row(
        "no ssh, and the log's folder is removed | and a piece of it is torn in a spool",
        |scene| {
            gone_with_its_folder(scene)?;
            let (h1, uuid, spool) = (scene.h1(), uuid(scene)?, "/var/lib/logchain/pieces");
            let url = format!("file://{spool}");
            let mut offer = vec!["logchain", "offer", "--patience", "1"];
            offer.extend(["--transport", &url, &uuid]);
            let find = ["find", spool, "-type", "f", "-printf", "%f %s\n"];
            let put = || -> Fallible<Vec<String>> {
                // Nobody takes it in there.
                says(&h1.command(&offer).limit(MIGRATION).run()?, 1)?;
                let lies = h1.run(find)?.checked()?.out();
                let mut lies: Vec<String> = lies.lines().map(str::to_owned).collect();
                lies.retain(|l| l.starts_with("chunk-") || l.starts_with("commit"));
                lies.sort();
                Ok(lies)
            };
            let whole = put()?;
            if whole.len() < 2 {
                return Err(format!("it is not there: {whole:?}").into());
            }
            let tear = format!(
                "find {spool} -name commit -delete; \
                 find {spool} -name 'chunk-*' -exec truncate -s 10 {{}} +"
            );
            h1.run(["sh", "-c", &tear])?.checked()?;
            let again = put()?;
            if again != whole {
                return Err(format!("not {whole:?}, but {again:?}").into());
            }
            scene.offered(&uuid)?;
            let report = scene.whole_at(Side::Destination)?;
            outbox_is_empty(scene)?;
            h1.run(["rm", "-r", spool])?.checked()?;
            scene.is_clean()?;
            Ok(format!(
                "status 3, put down; torn pieces are put anew, and offer brings all {} lines",
                report.count
            ))
        },
    )
}

/// Withdrawn half way, put down, withdrawn again, and all there in the end.
#[test]
fn a_log_that_found_no_room_is_put_down_and_offered_later() -> Outcome {
    let name = "the destination's disk is full, and the log's folder is removed | as soon as the \
                guest left";
    let guest = Guest::new("vm").pace(Pace::Micros(500));
    row_with(name, &guest, super::disks::LINES, |scene| {
        let folder = "/var/log/lab/vm";
        scene.h2().small_disk(folder, super::disks::KIB)?;
        left_without_its_folder(scene)?;
        let uuid = uuid(scene)?;
        let offer = ["logchain", "offer", "--transport", "ssh://h2", &uuid];
        let full = scene.h1().command(offer).limit(MIGRATION).run()?;
        says(&full, 1)?;
        if !full.err().contains("make room") {
            return Err(format!("it says: {}", full.err()).into());
        }
        scene.h2().resize_disk(folder, 64 * 1024)?;
        scene.offered(&uuid)?;
        let report = scene.whole_at(Side::Destination)?;
        outbox_is_empty(scene)?;
        scene.is_clean()?;
        Ok(format!(
            "status 3, put down; offer says that the disk is full, and then brings all {} lines",
            report.count
        ))
    })
}

/// The bytes have nowhere to go: that is said, and the VM runs.
#[test]
fn where_the_outbox_has_no_room_it_is_said() -> Outcome {
    row(
        "no ssh, no folder, and no room to put the log down | after the migration",
        |scene| {
            scene.h1().small_disk("/var/lib/logchain", 16)?;
            let output = gone_with_its_folder(scene)?;
            let said = output.err();
            // The folder goes at about the time when it is looked for.
            let there = said.contains("bring it over with");
            let told = there || said.contains("nothing to bring over");
            if !said.contains("could not be put down") || !said.contains("make room") || !told {
                return Err(format!("it says: {said}").into());
            }
            scene.runs_at(Side::Destination)?;
            let uuid = uuid(scene)?;
            let offer = ["logchain", "offer", "--transport", "ssh://h2", &uuid];
            let offer = scene.h1().command(offer).limit(MIGRATION).run()?;
            says(&offer, 1)?;
            Ok("status 3, one sentence says that and where room is wanted".to_owned())
        },
    )
}
