//! Agents that stream the logs of all domains to a store, while a guest moves between them.

use crate::agent::{Agent, P2P, SOON, in_a_folder, virsh};
use crate::common::{Outcome, history};
use logchain_tests::{Guest, Host, Lab, LabError, Output, Signal, Ticks};

fn url(lab: &Lab) -> String {
    format!("file://{}/streams", lab.state().display())
}

/// What anybody reads of the guest's log in the store.
fn shown(host: &Host, url: &str, how_much: &str) -> Result<Output, LabError> {
    let show = host.command(["logchain", "show", "--transport", url]);
    show.args(["-n", how_much, "vm"]).run()
}

/// It goes there and back; an agent is killed, one is started anew, and somebody streams the same
/// log by hand. The store has every line once and in order, also when the guest is gone.
#[test]
fn the_stream_of_agents_has_every_line_of_a_guest_that_moves() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let url = url(&lab);
    let config = format!(
        "{}[stream]\nto = \"{url}\"\ndelay = \"1s\"\n",
        in_a_folder(&lab)
    );
    let mut one = Agent::start(h1, &config)?;
    let two = Agent::start(h2, &config)?;
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    one.kill()?;
    vm.wait_for_more_ticks(100)?;
    let one = Agent::start(h1, &config)?;
    virsh(&vm, h2, P2P)?.checked()?;
    let there = h2.guest("vm");
    there.wait_for_more_ticks(200)?;
    let by_hand = h2.command(["logchain", "stream", "--wait", "--delay", "0.5"]);
    let mut by_hand = by_hand.args(["--transport", &url, "vm"]).spawn()?;
    two.wait_for_handoffs(1, "destination", "carried")?;
    two.stop()?.checked()?;
    there.wait_for_more_ticks(100)?;
    let two = Agent::start(h2, &config)?;
    there.wait_for_more_ticks(200)?;
    let status = h2.run(["logchain", "agent", "status"])?.checked()?.out();
    if !status.contains("streaming 1 log to file://") {
        return Err(format!("the status says nothing of the stream: {status}").into());
    }
    virsh(&there, h1, P2P)?.checked()?;
    vm.wait_for_more_ticks(200)?;
    one.wait_for_handoffs(1, "destination", "carried")?;
    vm.destroy()?;
    let last = Ticks::last(&history(&vm)?).ok_or("no line in the log")?;
    let mut seen = None;
    let put = h1.until("its last line to be put", SOON, || {
        seen = Ticks::last(&shown(h1, &url, "64K")?.stdout);
        Ok((seen == Some(last)).then_some(()))
    });
    if put.is_err() {
        println!("the store has {seen:?} of {last}");
        one.dump();
        two.dump();
    }
    put?;
    by_hand.signal(Signal::INT)?;
    by_hand.wait(SOON)?.checked()?;
    let all = shown(h2, &url, "all")?.checked()?;
    if all.err().contains("missing") {
        return Err(all.err().into());
    }
    let report = Ticks::check_from_boot(&all.stdout)?;
    println!("from the store: {report}");
    for agent in [one, two] {
        for event in agent.events() {
            if event["event"] == "warning" {
                println!("{event}");
            }
        }
        agent.stop()?.checked()?;
    }
    Ok(())
}
