use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::follow::NoWriters;
use crate::handoff::adopt::Adopt;
use crate::handoff::offer::{Held, Offer, Source};
use crate::handoff::{Handoff, run_locally};
use crate::ids::HandoffId;
use crate::testing::Host;
use crate::transport::{LogTransport, MemoryTransport};

/// Collects what is told, with the span that it is told in.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    spans: Vec<CollectedSpan>,
    /// The spans that each thread is in.
    inside: HashMap<ThreadId, Vec<usize>>,
}

#[derive(Clone)]
struct CollectedSpan {
    metadata: &'static Metadata<'static>,
    text: String,
    events: Vec<String>,
    entered_by: HashSet<ThreadId>,
}

/// A message, then ` name=value` for each field.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

fn id_of(index: usize) -> Id {
    Id::from_u64(u64::try_from(index).unwrap() + 1)
}

fn index(id: &Id) -> usize {
    usize::try_from(id.into_u64()).unwrap() - 1
}

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        let mut collected = self.0.lock().unwrap();
        collected.spans.push(CollectedSpan {
            metadata: span.metadata(),
            text: text.0,
            events: Vec::new(),
            entered_by: HashSet::new(),
        });
        id_of(collected.spans.len() - 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut collected = self.0.lock().unwrap();
        let inside = collected.inside.get(&thread::current().id());
        let innermost = inside.and_then(|spans| spans.last().copied());
        if let Some(span) = innermost {
            // What is tried again depends on how fast the other half is.
            if event.metadata().target().ends_with("::trace") {
                collected.spans[span].events.push(text.0);
            }
        }
    }

    /// What is carried to other threads.
    fn current_span(&self) -> Current {
        let collected = self.0.lock().unwrap();
        let inside = collected.inside.get(&thread::current().id());
        match inside.and_then(|spans| spans.last().copied()) {
            Some(at) => Current::new(id_of(at), collected.spans[at].metadata),
            None => Current::none(),
        }
    }

    fn enter(&self, id: &Id) {
        let (thread, span) = (thread::current().id(), index(id));
        let mut collected = self.0.lock().unwrap();
        collected.spans[span].entered_by.insert(thread);
        collected.inside.entry(thread).or_default().push(span);
    }

    fn exit(&self, id: &Id) {
        let (thread, span) = (thread::current().id(), index(id));
        let mut collected = self.0.lock().unwrap();
        let inside = collected.inside.entry(thread).or_default();
        let at = inside.iter().rposition(|inner| *inner == span).unwrap();
        inside.remove(at);
    }
}

#[tokio::test]
async fn both_halves_tell_each_step_in_a_span_of_their_own() {
    let (from, to) = (Host::new(), Host::new());
    from.print("before ");
    to.print("after");
    let handoff = Handoff {
        domain: uuid::Uuid::from_u128(7),
        console: "serial0".parse().unwrap(),
        id: HandoffId::random(),
    };
    let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
    let source = watch::Sender::new(Source::Over);
    let held = Held::open(&from.chain(), handoff.domain, &handoff.console).unwrap();
    let writers = Arc::new(NoWriters);
    let offer = Offer::new(
        handoff.clone(),
        Arc::clone(&transport),
        Arc::<NoWriters>::clone(&writers),
        source.subscribe(),
    );
    let adopt = Adopt::new(handoff.clone(), transport, writers, Arc::new(to.place()));

    let collector = Collector::default();
    let guard = tracing::subscriber::set_default(collector.clone());
    run_locally(offer, held, adopt).await.unwrap();
    drop(guard);

    let spans = collector.0.lock().unwrap().spans.clone();
    let ids = format!(
        "domain={} console=serial0 handoff={}",
        handoff.domain, handoff.id
    );
    let of = |half: &str| {
        let text = format!("handoff half={half:?} {ids}");
        let mut of_it = spans.iter().filter(|span| span.text == text);
        let (Some(span), None) = (of_it.next(), of_it.next()) else {
            let all: Vec<_> = spans.iter().map(|span| &span.text).collect();
            panic!("not one {text}: {all:?}");
        };
        // Files are read and written on other threads, in the same span.
        assert!(span.entered_by.len() > 1, "{half}");
        span.events.clone()
    };
    assert_eq!(
        of("offer"),
        [
            "holds the log bytes=7",
            "begun; bytes put by an earlier run bytes=0 pieces=0",
            "the guest has left bytes=0",
            "drained bytes=7",
            "committed bytes=7",
            "received bytes=7",
            "ended: carried bytes=7",
        ]
    );
    assert_eq!(
        of("adopt"),
        [
            "ready",
            "complete bytes=7",
            "sealed bytes=7",
            "placed bytes=7 dropped=0",
            "receipt given bytes=7",
            "staging folder removed bytes=7",
            "ended: adopted bytes=7",
        ]
    );
}
